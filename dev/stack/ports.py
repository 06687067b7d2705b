"""Free ports on 127.0.0.1, reserved until their server starts.

A stack keeps its ports for its whole life (a killed server restarts at the same address), so they come from below the
range from which the kernel takes the source ports of outgoing connections. Between a port's release and the bind of its
server, and while a killed server restarts, a lock keeps other stacks of the same user from taking it.
"""

from __future__ import annotations

import fcntl
import functools
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from dev.stack.errors import StackError

_LOWEST = 15000
_TRIES = 2000
_LOCKED: set[int] = set()
"""What this process has locked: such a lock keeps out other processes alone."""
_LOCKING = threading.Lock()


class Ports:
    """Ports by name.

    A bound socket reserves each port from ``reserve`` until ``release``; a lock on its number does so for the life of
    this process.
    """

    def __init__(self, numbers: dict[str, int] | None = None) -> None:
        self.numbers: dict[str, int] = dict(numbers or {})
        self._reserved: dict[str, socket.socket] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Choose and reserve one free port for each name.

        Raises:
            StackError: No free port was found.
        """
        for name in names:
            self._reserved[name] = bound = _bind_any()
            self.numbers[name] = bound.getsockname()[1]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def release(self, *names: str) -> None:
        """Release the ports of these names, right before their server binds them."""
        for name in names:
            if bound := self._reserved.pop(name, None):
                bound.close()

    def close(self) -> None:
        """Release every port that is still reserved."""
        self.release(*list(self._reserved))


def _bind_any() -> socket.socket:
    highest = _ephemeral_start() - 1
    for _ in range(_TRIES):
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", random.randint(_LOWEST, highest)))  # noqa: S311 - not a secret
        except OSError:
            candidate.close()
            continue
        if _is_locked_now(candidate.getsockname()[1]):
            return candidate
        candidate.close()
    raise StackError(f"no free port on 127.0.0.1 between {_LOWEST} and {highest}")


def _is_locked_now(number: int) -> bool:
    """Lock a port's number for the life of this process; False where another process or stack has it."""
    with _LOCKING:
        if number in _LOCKED:
            return False
        try:
            fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except OSError:
            return False
        _LOCKED.add(number)
        return True


@functools.cache
def _lock_file() -> int:
    """A file whose bytes stand for ports. It is never closed, as that would end all locks of the process."""
    path = Path(tempfile.gettempdir(), f"leasegate-ports-{os.getuid()}.lock")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        start = 32768
    return start if start > _LOWEST + 2000 else 32768
