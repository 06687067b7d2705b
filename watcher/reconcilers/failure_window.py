"""For how long something has gone wrong: when a passing failure becomes worth a condition, and when waiting for Vault becomes pointless."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.common.errors import (
    CallerNotAllowedError,
    ConflictError,
    DeadlineExpiredError,
    DeadlineTooShortError,
    LeasegateError,
    OverloadedError,
    PeerUnavailableError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
    VaultUnavailableError,
)

PASSING = (PeerUnavailableError, DeadlineExpiredError, DeadlineTooShortError, OverloadedError, ConflictError)
"""What a restart or a burst brings and the next try mends. A status that says so for each object would be a storm of
writes for nothing.
"""
NO_LOGIN = (VaultAuthMissingError, VaultAuthRefusedError, VaultPolicyMissingError, CallerNotAllowedError)
"""Vault (or the service) answers, but does not let us do it, however often it is asked."""
SHOWN_AFTER_S = 5.0
NEVER_REACHED_S = 15.0
"""How long a deletion waits for a Vault that never once answered: a mistyped address above all."""


class FailureWindow:
    """Since when each object has failed in one way or another. Safe for threads.

    Args:
        clock: Monotonic seconds.
        finalizer_timeout_s: How long a deletion waits where Vault answers but lets nobody in.
    """

    def __init__(self, clock: Callable[[], float], *, finalizer_timeout_s: float) -> None:
        self._clock, self._abandon_after_s = clock, finalizer_timeout_s
        self._since: dict[str, dict[str, float]] = {}  # by uid, and by what has gone wrong since then
        self._lock = threading.Lock()

    def lasted_s(self, uid: str, what: str) -> float:
        """Seconds since this was first asked about an object; 0 the first time."""
        now = self._clock()
        with self._lock:
            return now - self._since.setdefault(uid, {}).setdefault(what, now)

    def forget(self, uid: str, what: str | None = None) -> None:
        """It went well, or the object is gone: begin anew."""
        with self._lock:
            known = self._since.pop(uid, {})
            if what is not None and (others := {name: since for name, since in known.items() if name != what}):
                self._since[uid] = others

    def hides(self, uid: str, err: Exception) -> bool:
        """Whether an error is passing and young, so that nothing is to be written about it yet."""
        return isinstance(err, PASSING) and self.lasted_s(uid, "passing") < SHOWN_AFTER_S

    def is_over(self, uid: str, err: LeasegateError, *, made_nothing: bool, unreached: bool = False) -> bool:
        """Whether a deletion no longer waits for this error to go.

        Args:
            uid: The object that is being deleted.
            err: What keeps it.
            made_nothing: Whether that Vault never answered; then that it cannot be reached counts, too, and sooner.
            unreached: Whether that it cannot be reached counts in any case.
        """
        if not isinstance(err, (*NO_LOGIN, VaultUnavailableError) if made_nothing or unreached else NO_LOGIN):
            return False
        limit_s = min(NEVER_REACHED_S, self._abandon_after_s) if made_nothing else self._abandon_after_s
        return self.lasted_s(uid, "no login") >= limit_s
