"""Remembers since when an object fails: when to report a transient failure, and when to stop waiting for Vault."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.common.bounded import BoundedMap
from services.common.errors import (
    CallerNotAllowedError,
    ConflictError,
    DeadlineExpiredError,
    DeadlineTooShortError,
    LeasegateError,
    OverloadedError,
    PeerUnavailableError,
    SnapshotStaleError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultNotAllowedError,
    VaultPolicyMissingError,
    VaultUnavailableError,
)

TRANSIENT = (
    PeerUnavailableError,
    DeadlineExpiredError,
    DeadlineTooShortError,
    OverloadedError,
    ConflictError,
    SnapshotStaleError,
)
"""Errors of a restart or a burst, which the next try mends: a status write for each object would be a storm."""
NOT_PERMITTED = (
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultNotAllowedError,
    VaultPolicyMissingError,
    CallerNotAllowedError,
)
"""Vault, the service or the operator's file does not permit the call, however often it is made."""
REPORTED_AFTER_S = 5.0
NEVER_ANSWERED_S = 15.0
"""How long a deletion waits for a Vault that never once answered, above all behind a mistyped address."""


MOST = 50_000
"""Objects that fail at once; the window of one that is forgotten begins again."""


class FailureWindow:
    """Since when each object has failed, by kind of failure. Safe for threads.

    Args:
        clock: Monotonic seconds.
        finalizer_timeout_s: How long a deletion waits where Vault answers but does not permit the cleanup.
    """

    def __init__(self, clock: Callable[[], float], *, finalizer_timeout_s: float) -> None:
        self._clock, self._finalizer_timeout_s = clock, finalizer_timeout_s
        self._since = BoundedMap[str, dict[str, float]](MOST)  # by uid, then by kind of failure
        self._lock = threading.Lock()

    def elapsed_s(self, uid: str, kind: str) -> float:
        """Seconds since this was first called for an object and a kind of failure; 0 the first time."""
        now = self._clock()
        with self._lock:
            return now - self._since.setdefault(uid, {}).setdefault(kind, now)

    def reset_failures(self, uid: str, kind: str | None = None) -> None:
        """Forget the failures of an object, or those of one kind, after a success or a deletion."""
        with self._lock:
            known = self._since.pop(uid, {})
            if kind is not None and (others := {name: since for name, since in known.items() if name != kind}):
                self._since[uid] = others

    def is_unreported(self, uid: str, err: Exception) -> bool:
        """Whether an error is transient and recent, so that no status is written for it yet."""
        return isinstance(err, TRANSIENT) and self.elapsed_s(uid, "transient") < REPORTED_AFTER_S

    def is_given_up(self, uid: str, err: LeasegateError, *, answered: bool, former_place: bool = False) -> bool:
        """Whether the cleanup in Vault is given up because of this error.

        Args:
            uid: The object whose things in Vault are to be removed.
            err: What prevents it.
            answered: Whether that Vault has ever answered. If not, being unreachable counts, and the wait is shorter.
            former_place: Whether the object moves elsewhere; then being unreachable counts in any case.
        """
        counts = NOT_PERMITTED if answered and not former_place else (*NOT_PERMITTED, VaultUnavailableError)
        if not isinstance(err, counts):
            return False
        limit_s = self._finalizer_timeout_s if answered else min(NEVER_ANSWERED_S, self._finalizer_timeout_s)
        return self.elapsed_s(uid, "not permitted") >= limit_s
