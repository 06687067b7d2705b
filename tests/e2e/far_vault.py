"""Another way to the stack's Vault, as an entry of its own in ``--vault-config``: it swallows packets when told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from dev.stack.services import NAMES
from dev.stack.stack import LocalStack
from tests.e2e.crowd import restart

NAME = "far"


class FarVault:
    """A TCP proxy in front of Vault.

    Attributes:
        address: Its URL.
        swallows: While set, connections are taken and nothing is passed on, in either direction.
        connections: How many there were while it swallowed.
    """

    def __init__(self, vault_addr: str) -> None:
        url = urlsplit(vault_addr)
        self._to = (url.hostname or "", url.port or 0)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"{url.scheme}://127.0.0.1:{self._server.getsockname()[1]}"
        self.swallows, self.connections = threading.Event(), 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End it, with all its connections."""
        self.answer_again()
        _end(self._server)

    def answer_again(self) -> None:
        """Swallow no more. What was swallowed is lost, so that these connections end."""
        self.swallows.clear()
        while self._sockets:
            _end(self._sockets.pop())

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._sockets.append(near)
                if self.swallows.is_set():
                    self.connections += 1
                    continue
                with suppress(OSError):
                    far = socket.create_connection(self._to)
                    self._sockets.append(far)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not self.swallows.is_set():
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)  # which ends a call that waits for it in another thread
    each.close()


@contextmanager
def far_vault(stack: LocalStack, *, mounts: list[dict[str, Any]]) -> Iterator[FarVault]:
    """The proxy as an entry that all four processes know, who are restarted for it, and again afterwards.

    Args:
        stack: The stack.
        mounts: What the entry says of the paths that are owned.
    """
    file = stack.directory / "services" / "vaults.yaml"
    before = file.read_text()
    (entry,) = json.loads(before)["vaults"]
    far = FarVault(entry["addresses"][0])
    own = {"name": NAME, "addresses": [far.address], "mounts": {"owned": mounts}}
    file.write_text(json.dumps({"vaults": [entry, {**entry, **own}]}))
    restart(stack, *NAMES)
    try:
        yield far
    finally:
        far.answer_again()
        file.write_text(before)
        restart(stack, *NAMES)
        far.close()
