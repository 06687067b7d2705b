"""Named points at which tests kill a process. A point costs one comparison in a process that is not to be killed.

Each process lists its own points (``services.access.domain.failpoints``, ``watcher.reconcilers.failpoints``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection


class Failpoints:
    """Calls ``die`` the n-th time that one point is passed.

    Args:
        name: The point; empty for none.
        count: At which pass, counted from 1.
        die: What to do there.
    """

    def __init__(self, name: str = "", *, count: int = 1, die: Callable[[], object] = lambda: os._exit(137)) -> None:
        self._name, self._left, self._die = name, count, die

    @classmethod
    def from_environment(cls, variable: str, *, points: Collection[str]) -> Failpoints:
        """The point that an environment variable names as ``NAME`` or ``NAME:N``, or none.

        Raises:
            ValueError: The process has no such point.
        """
        name, _, count = os.environ.get(variable, "").partition(":")
        if name and name not in points:
            raise ValueError(f"{variable}: {name!r} is none of {', '.join(points)}")
        return cls(name, count=int(count or 1))

    def pass_by(self, name: str) -> None:
        """Die here if this is the point and the time."""
        if name == self._name:
            self._left -= 1
            if self._left == 0:
                self._die()


_installed = Failpoints()


def install(points: Failpoints) -> None:
    """Make ``points`` those of this process; for the composition root and for tests."""
    global _installed
    _installed = points


def point(name: str) -> None:
    """Pass the point ``name``."""
    _installed.pass_by(name)
