"""Prometheus metrics of a process, on a registry of its own, served on ``--metrics-listen``.

Any process may import this. A label has few values: the method and the code, never a caller, an object or anything from a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

from services.common.config import HostPort, StartupRefusedError

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def new_registry() -> CollectorRegistry:
    """A registry that already has the figures of the process and the interpreter."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class RpcMetrics:
    """Count and duration of calls by method and code."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "code")
        self._calls = Counter("leasegate_rpc", "Calls answered.", labels, registry=registry)
        self._seconds = Histogram(
            "leasegate_rpc_duration_seconds", "Time to answer a call.", labels, registry=registry, buckets=_BUCKETS_S
        )
        self._of: dict[
            tuple[str, str], tuple[Counter, Histogram]
        ] = {}  # finding them by their labels takes longer than counting

    def answered(self, method: str, *, code: str, seconds: float) -> None:
        """Count one call."""
        calls, durations = self._of.get((method, code)) or self._of.setdefault(
            (method, code), (self._calls.labels(method, code), self._seconds.labels(method, code))
        )
        calls.inc()
        durations.observe(seconds)


@contextmanager
def served(registry: CollectorRegistry, *, listen: HostPort | None) -> Iterator[HostPort | None]:
    """Serve the registry over HTTP inside, at the address yielded; not at all if ``listen`` is None.

    Raises:
        StartupRefusedError: The address cannot be had.
    """
    if listen is None:
        yield None
        return
    try:
        server, thread = start_http_server(listen.port, addr=listen.host, registry=registry)
    except OSError as err:
        raise StartupRefusedError(f"--metrics-listen {listen}: {err.strerror or err}") from err
    try:
        yield HostPort(listen.host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
