"""Prometheus metrics of a process, on a registry of its own, served on ``--metrics-listen``.

Any process may import this. Label values come from closed lists: the method, the code, the operation; never a caller,
an object or anything that a request or a tenant names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    MetricsHandler,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from services.common.config import HostPort
from services.common.http_server import serving

CALL_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""For calls that somebody waits for."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric as docs/reference/metrics.md lists it, and the one place where its name and help stand.

    Attributes:
        name: As Prometheus shows it; a counter's ends in ``_total``.
        kind: Its Prometheus type.
        help: What it measures, one sentence.
        labels: Names of its labels.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()

    def counter(self, registry: CollectorRegistry | None) -> Counter:
        """Make a counter that the code increments."""
        return Counter(self.name.removesuffix("_total"), self.help, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry | None, *, buckets: Sequence[float] = CALL_BUCKETS_S) -> Histogram:
        """Make a histogram that the code observes."""
        return Histogram(self.name, self.help, self.labels, registry=registry, buckets=buckets)

    def gauge_family(self) -> GaugeMetricFamily:
        """Make a gauge for one scrape, to which a collector adds its values."""
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)

    def counter_family(self) -> CounterMetricFamily:
        """Make a counter for one scrape, to which a collector adds its values."""
        return CounterMetricFamily(self.name.removesuffix("_total"), self.help, labels=self.labels)


HANDLED = MetricSpec(
    "grpc_server_handled_total",
    "counter",
    "RPCs that the server has completed, by service, method and status code.",
    ("grpc_service", "grpc_method", "grpc_code"),
)
HANDLING_SECONDS = MetricSpec(
    "grpc_server_handling_seconds",
    "histogram",
    "Time from the start of an RPC to its answer, in seconds.",
    ("grpc_service", "grpc_method"),
)
RPC_METRICS = (HANDLED, HANDLING_SECONDS)


def new_registry() -> CollectorRegistry:
    """Make a registry that already has the figures of the process and the interpreter."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class RpcMetrics:
    """Counts the RPCs of a server and measures their duration, under the names of go-grpc-middleware."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled, self._seconds = HANDLED.counter(registry), HANDLING_SECONDS.histogram(registry)
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}  # labels() takes longer than inc()

    def count_handled(self, method: str, *, code: str, seconds: float) -> None:
        """Count one RPC.

        Args:
            method: ``/package.Service/Method``.
            code: Name of the gRPC status code, such as NOT_FOUND.
            seconds: From its start to its answer.
        """
        handled, durations = self._children.get((method, code)) or self._add_children(method, code)
        handled.inc()
        durations.observe(seconds)

    def _add_children(self, method: str, code: str) -> tuple[Counter, Histogram]:
        service, _, name = method.strip("/").partition("/")
        made = self._handled.labels(service, name, _camel_case(code)), self._seconds.labels(service, name)
        return self._children.setdefault((method, code), made)


def _camel_case(code: str) -> str:
    """Return a status code as Go and the dashboards made for it spell it: OK, NotFound, Canceled.

    Source: https://pkg.go.dev/google.golang.org/grpc/codes#Code.String.
    """
    special = {"OK": "OK", "CANCELLED": "Canceled"}
    return special.get(code) or "".join(word.capitalize() for word in code.split("_"))


@contextmanager
def served(registry: CollectorRegistry, *, listen: HostPort | None) -> Iterator[HostPort | None]:
    """Serve the registry over HTTP inside, at the address yielded; not at all if ``listen`` is None.

    Raises:
        StartupRefusedError: The address cannot be bound.
    """
    if listen is None:
        yield None
        return
    with serving(listen, MetricsHandler.factory(registry), flag="--metrics-listen", name="metrics") as address:
        yield address
