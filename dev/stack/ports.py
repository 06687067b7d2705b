"""Free ports on 127.0.0.1, reserved until their server starts.

A stack keeps its ports for its whole life (a killed server restarts at the same address), so they come from below the
range from which the kernel takes the source ports of outgoing connections.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

from dev.stack.errors import StackError

_LOWEST = 15000
_TRIES = 2000


class Ports:
    """Ports by name.

    A bound socket reserves each port from ``reserve`` until ``release``, so that no other stack picks it meanwhile.
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
        return candidate
    raise StackError(f"no free port on 127.0.0.1 between {_LOWEST} and {highest}")


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        start = 32768
    return start if start > _LOWEST + 2000 else 32768
