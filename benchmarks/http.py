"""Plain HTTPS on kept-alive connections, one a thread: the baseline costs as little as Python allows."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
_IDLE_S = 10.0


class RequestRefusedError(RuntimeError):
    """A server answered with an error.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status


class Lines:
    """The lines of an answer as they come, until the server ends it or ``close`` is called by another thread.

    Attributes:
        closed: Whether ``close`` was called.
    """

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        """Wait for the head of the answer."""
        self._connection, self._answer, self.closed = connection, connection.getresponse(), False

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        while part := self._more():
            *whole, rest = (rest + part).split(b"\n")
            yield from whole

    def close(self) -> None:
        """End it; whoever reads sees what had come until then, and the end."""
        self.closed = True
        if self._connection.sock:
            with contextlib.suppress(OSError):  # the server may have ended it before
                # The shutdown of ssl.SSLSocket also drops its TLS state: a reader in another thread would then be given
                # what is still to be read as it came over the wire, encrypted.
                socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)

    def _more(self) -> bytes:
        try:
            return self._answer.read1(1 << 16)
        except (OSError, http.client.HTTPException):
            if not self.closed:
                raise
            return b""


class Server:
    """One HTTPS server and the headers that every request carries. Safe for threads."""

    def __init__(self, address: str, *, ca: Path, headers: Mapping[str, str]) -> None:
        """Describe it; nothing is connected."""
        url = urlsplit(address)
        self._host, self._port, self._headers = str(url.hostname), url.port, dict(headers)
        self._context = ssl.create_default_context(cafile=str(ca))
        self._own = threading.local()

    def send(
        self, method: str, path: str, body: bytes | None = None, *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Send one request and answer the raw body; ``headers`` are those that differ.

        Raises:
            RequestRefusedError: The status is 300 or more.
        """
        connection = self._connection()
        try:
            connection.request(method, path, body, {**self._headers, **headers} if headers else self._headers)
            answer = connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request of this thread connects again
            raise
        if answer.status >= 300:
            raise RequestRefusedError(
                f"{method} {path}: {answer.status} {raw[:300].decode(errors='replace')}", status=answer.status
            )
        return raw

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """The same with JSON both ways; {} where there is no answer.

        Raises:
            RequestRefusedError: The status is 300 or more.
        """
        raw = self.send(method, path, None if body is None else json.dumps(body).encode())
        return dict(json.loads(raw)) if raw else {}

    def follow(self, path: str) -> Lines:
        """Begin an answer that goes on for long, on a connection of its own."""
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context)
        connection.request("GET", path, headers=self._headers)
        return Lines(connection)

    def _connection(self) -> http.client.HTTPSConnection:
        """This thread's connection; one that was idle for long is replaced, as the server may be about to close it."""
        now, own = time.monotonic(), self._own
        found: http.client.HTTPSConnection | None = getattr(own, "connection", None)
        if found is None:
            found = own.connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=120, context=self._context
            )
        elif now - own.used > _IDLE_S:
            found.close()
        own.used = now
        return found
