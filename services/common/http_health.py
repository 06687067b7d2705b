"""Serves ``/healthz`` and ``/readyz`` over HTTP for probes: plain text, without detail that helps an attacker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from services.common.config import HostPort
from services.common.http_server import serving


@contextmanager
def serve_probes(listen: HostPort, *, alive: Callable[[], bool], ready: Callable[[], bool]) -> Iterator[HostPort]:
    """Answer probes at the address that it yields, until the context ends.

    Args:
        listen: Address to listen on; port 0 takes a free one.
        alive: Whether the process works at all; if not, Kubernetes restarts it.
        ready: Whether the process does its work.

    Raises:
        StartupRefusedError: The address is not available.
    """
    checks = {"/healthz": alive, "/readyz": ready}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            check = checks.get(self.path)
            status, text = (404, "not found\n") if check is None else (200, "ok\n") if check() else (503, "not ready\n")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Probes are not logged."""

    with serving(listen, Handler, flag="--health-listen", name="health") as address:
        yield address
