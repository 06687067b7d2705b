"""An HTTP server for pages that nobody needs a certificate for: a client that sends nothing keeps nobody else out."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.common.config import HostPort, StartupRefusedError

MOST_CONNECTIONS = 64
"""At once, each with a thread; of more the oldest is closed."""
SILENCE_S = 5.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listen: HostPort, handler: type[BaseHTTPRequestHandler]) -> None:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family, address = found[0], (listen.host, listen.port)
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > MOST_CONNECTIONS else None
            if oldest:
                del self._open[oldest]
        if oldest:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not logged."""


@contextmanager
def serving(listen: HostPort, handler: type[BaseHTTPRequestHandler], *, flag: str, name: str) -> Iterator[HostPort]:
    """Serve at the address that it yields, until the context ends.

    Args:
        listen: Address to listen on; port 0 takes a free one.
        handler: Answers one connection.
        flag: The option that the address comes from, for the error.
        name: Of the thread.

    Raises:
        StartupRefusedError: The address is not available.
    """
    limited = type(handler.__name__, (handler,), {"timeout": SILENCE_S})
    try:
        server = _Server(listen, limited)
    except OSError as err:
        raise StartupRefusedError(f"{flag} {listen}: {err.strerror or err}") from err
    thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)
    thread.start()
    try:
        yield HostPort(listen.host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
