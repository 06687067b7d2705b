"""Named points between the ledger's commits and the calls to Vault, at which tests kill the process as SIGKILL would.

Costs one comparison where nothing is to be killed. The names are those of the steps of proofs/attempt_model.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable

VARIABLE = "LEASEGATE_ACCESS_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time it passes that point (1 if n is absent)."""

POINTS = (
    "ensure.committed",  # a request, its decisions or its end are in the ledger
    "end.committed",
    "pre.begun",  # an attempt is begun while its request is pending
    "pre.token",  # Vault made its token
    "pre.accessor",  # whose accessor is committed
    "claim.begun",
    "claim.token",
    "claim.reading",  # the accessor is committed and so is `reading`
    "claim.read",  # Vault answered the credential
    "claim.lease",  # its lease is committed
    "claim.refused",  # the lease was not: the attempt is not current
    "claim.revoked",  # by the reader itself, by lease id
    "ack.committed",
    "endt.revoked",  # the accessor of an attempt that never read
    "end.revoked",  # by lease id
    "end.closed",
    "undo.begun",
    "undo.accessor",  # the attempt's accessor is revoked
    "undo.token",  # the adopter has a token
    "undo.adoption",  # the adoption is committed
    "undo.outdated",  # all earlier accessors are revoked
    "undo.read",  # the adopter has its lease
    "undo.lease",  # which is committed
    "undo.dropped",  # and revoked
    "undo.first",  # the first of two adoptions is done
    "undo.closed",
    "renew.asked",  # Vault prolonged a lease
    "renew.committed",
    "rotate.due",
)

LEDGER_POINTS = (
    "ledger.begin",  # a transaction that writes is about to begin
    "ledger.commit",  # all of it is written, nothing is committed
    "ledger.committed",  # nobody has heard of it yet
)
"""Points of every write of the ledger, the ones at its opening included."""


class CrashPoints:
    """Calls ``die`` the n-th time that one point is passed."""

    def __init__(self, name: str = "", *, count: int = 1, die: Callable[[], object] = lambda: os._exit(137)) -> None:
        if name and name not in (*POINTS, *LEDGER_POINTS):
            raise ValueError(f"{VARIABLE}: {name!r} is none of {', '.join((*POINTS, *LEDGER_POINTS))}")
        self._name, self._left, self._die = name, count, die

    @classmethod
    def from_environment(cls) -> CrashPoints:
        """The point that ``VARIABLE`` names, or none.

        Raises:
            ValueError: There is no such point.
        """
        name, _, count = os.environ.get(VARIABLE, "").partition(":")
        return cls(name, count=int(count or 1))

    def pass_by(self, name: str) -> None:
        """Die here if this is the point and the time."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                self._die()


_points = CrashPoints()


def install(points: CrashPoints) -> None:
    """Make ``points`` those of this process; for the composition root and for tests."""
    global _points
    _points = points


def point(name: str) -> None:
    """Pass the point ``name``."""
    _points.pass_by(name)
