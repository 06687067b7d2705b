"""Named points of a request's way at which tests kill the watcher as SIGKILL would; one comparison where nothing is to be killed."""

from __future__ import annotations

import os
from collections.abc import Callable

VARIABLE = "LEASEGATE_WATCHER_CRASH_AT"
"""``name`` or ``name:n``: the process ends the n-th time it passes that point (1 if n is absent)."""

POINTS = (
    "finalizer.on",
    "claim.asked",  # a credential is about to be asked for, for a request that is decided and whose Secret holds none
    "claim.answered",  # the password is in hand
    "secret.written",
    "acknowledged",  # Role and RoleBinding are being written beside
    "status.written",
    "end.answered",  # access has noted the end
    "removed",  # Secret, Role and RoleBinding are gone
    "finalizer.off",
)


class CrashPoints:
    """Calls ``die`` the n-th time that one point is passed."""

    def __init__(self, name: str = "", *, count: int = 1, die: Callable[[], object] = lambda: os._exit(137)) -> None:
        if name and name not in POINTS:
            raise ValueError(f"{VARIABLE}: {name!r} is none of {', '.join(POINTS)}")
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
