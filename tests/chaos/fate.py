"""How the process "dies" in the quick path: a BaseException at a point, after which none of its threads acts."""

from __future__ import annotations

import threading

from tests.chaos.aims import Aim

MOMENT = "any moment"
"""Where a life ends that no point ended."""


class Crashed(BaseException):
    """The process is gone; like SIGKILL, nothing of the product handles it."""


class Fate:
    """One life of the process; safe for threads.

    Attributes:
        aim: Where it is to end.
        dead: Set when it has.
        at: Where it did.
    """

    def __init__(self, aim: Aim | None) -> None:
        """``None`` plans no death."""
        self.aim, self.at = aim, ""
        self._lock = threading.Lock()
        self._passes, self._hasty = 0, False
        self.dead = threading.Event()

    def pass_by(self, name: str) -> None:
        """Pass a point; for ``services.common.failpoints.install``.

        Raises:
            Crashed: The process dies here, or has died already.
        """
        with self._lock:
            self.check()
            if self.aim is None:
                return
            self._passes += name == self.aim.point
            if self._hasty or (name == self.aim.point and self._passes >= self.aim.count):
                self.at = name
                self.dead.set()
        self.check()

    def hurry(self) -> None:
        """What it is aimed at does not come about: the next point will do, or the aim's at its first pass."""
        self._hasty = True

    def check(self) -> None:
        """What every call to the outside asks first and last.

        Raises:
            Crashed: The process has died.
        """
        if self.dead.is_set():
            raise Crashed(self.at)

    def die(self, at: str) -> None:
        """End the process from outside, at no point of its own."""
        with self._lock:
            if not self.dead.is_set():
                self.at = at
                self.dead.set()
