"""Metrics of the watcher: queues and reconciles under the names of controller-runtime, and what its cache has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.common.metrics import MetricSpec
from watcher.kube.controller import ReconcileOutcome
from watcher.kube.workqueue import QueueObserver

_NAME, _CONTROLLER = ("name",), ("controller",)
DEPTH = MetricSpec(
    "workqueue_depth", "gauge", "Keys that wait for a worker; of the queue events, Events to be written.", _NAME
)
ADDS = MetricSpec("workqueue_adds_total", "counter", "Keys added to a queue.", _NAME)
QUEUE_SECONDS = MetricSpec(
    "workqueue_queue_duration_seconds", "histogram", "How long a key waited in a queue for a worker, in seconds.", _NAME
)
WORK_SECONDS = MetricSpec(
    "workqueue_work_duration_seconds", "histogram", "How long a worker processed a key, in seconds.", _NAME
)
RETRIES = MetricSpec("workqueue_retries_total", "counter", "Keys added again after a growing pause.", _NAME)
UNFINISHED_SECONDS = MetricSpec(
    "workqueue_unfinished_work_seconds",
    "gauge",
    "Seconds of work in progress, summed over the keys that workers process now; large values say that workers hang.",
    _NAME,
)
DELAYED = MetricSpec("leasegate_workqueue_delayed", "gauge", "Keys that are added to a queue at a later time.", _NAME)
RECONCILES = MetricSpec(
    "leasegate_reconcile_total",
    "counter",
    "Reconciles by controller and result: success, requeue, requeue_after or error.",
    ("controller", "result"),
)
RECONCILE_ERRORS = MetricSpec("leasegate_reconcile_errors_total", "counter", "Reconciles that failed.", _CONTROLLER)
RECONCILE_SECONDS = MetricSpec(
    "leasegate_reconcile_seconds", "histogram", "Duration of a reconcile, in seconds.", _CONTROLLER
)
OBJECTS = MetricSpec("leasegate_watcher_objects", "gauge", "Objects in the watcher's cache, by kind.", ("kind",))
READY = MetricSpec(
    "leasegate_watcher_ready", "gauge", "1 while all kinds are listed and the access service has answered, else 0."
)
POLICIES = MetricSpec(
    "leasegate_watcher_policies_in_force",
    "gauge",
    "1 while the admission policies are those of this release and refuse what they must, else 0: nothing is issued.",
)

_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


def watcher_metrics() -> tuple[MetricSpec, ...]:
    """Return all metrics of the process."""
    return (
        DEPTH, ADDS, QUEUE_SECONDS, WORK_SECONDS, RETRIES, UNFINISHED_SECONDS, DELAYED, RECONCILES, RECONCILE_ERRORS,
        RECONCILE_SECONDS, OBJECTS, READY, POLICIES,
    )  # fmt: skip


class QueueState(Protocol):
    """What a scrape reads of a queue."""

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        ...

    @property
    def delayed(self) -> int:
        """How many keys wait for their time."""
        ...

    @property
    def unfinished_s(self) -> float:
        """Seconds of work in progress."""
        ...


class WatcherState(Protocol):
    """What a scrape reads of the watcher."""

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """Its queues by name."""
        ...

    def events_waiting(self) -> int:
        """How many Events wait to be written."""
        ...

    def counts(self) -> Mapping[str, int]:
        """How many objects are known of each kind."""
        ...

    def ready(self) -> bool:
        """Whether all kinds are listed and the access service has answered."""
        ...

    def policies_in_force(self) -> bool:
        """Whether the admission policies are in force."""
        ...


class WatcherMetrics:
    """Counts what queues and controllers report, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._adds, self._retries = ADDS.counter(registry), RETRIES.counter(registry)
        self._queue_s = QUEUE_SECONDS.histogram(registry, buckets=_BUCKETS_S)
        self._work_s = WORK_SECONDS.histogram(registry, buckets=_BUCKETS_S)
        self._reconciles, self._errors = RECONCILES.counter(registry), RECONCILE_ERRORS.counter(registry)
        self._reconcile_s = RECONCILE_SECONDS.histogram(registry, buckets=_BUCKETS_S)

    def of_queue(self, name: str) -> QueueMetrics:
        """Make the counters of one queue."""
        return QueueMetrics(self, name)

    def count_reconcile(self, controller: str, outcome: ReconcileOutcome, seconds: float) -> None:
        """Count one reconcile."""
        self._reconciles.labels(controller, outcome).inc()
        self._reconcile_s.labels(controller).observe(seconds)
        if outcome is ReconcileOutcome.ERROR:
            self._errors.labels(controller).inc()

    def read_from(self, watcher: WatcherState) -> None:
        """Read the gauges from a watcher at each scrape."""
        self._registry.register(_WatcherCollector(watcher))


class QueueMetrics(QueueObserver):
    """The counters of one queue, as ``watcher.kube.workqueue`` reports to them."""

    def __init__(self, metrics: WatcherMetrics, name: str) -> None:
        self._adds, self._retries = metrics._adds.labels(name), metrics._retries.labels(name)
        self._queue_s, self._work_s = metrics._queue_s.labels(name), metrics._work_s.labels(name)

    def on_add(self) -> None:
        """A key is added."""
        self._adds.inc()

    def on_retry(self) -> None:
        """A key is to be added after a growing pause."""
        self._retries.inc()

    def on_start(self, waited_s: float) -> None:
        """A worker takes a key."""
        self._queue_s.observe(waited_s)

    def on_done(self, worked_s: float) -> None:
        """A worker gives a key back."""
        self._work_s.observe(worked_s)


class _WatcherCollector(Collector):
    def __init__(self, watcher: WatcherState) -> None:
        self._watcher = watcher

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the watcher is read at a scrape, not at the registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read the gauges."""
        depth, delayed = DEPTH.gauge_family(), DELAYED.gauge_family()
        unfinished = UNFINISHED_SECONDS.gauge_family()
        for name, queue in self._watcher.queues.items():
            depth.add_metric([name], len(queue))
            delayed.add_metric([name], queue.delayed)
            unfinished.add_metric([name], queue.unfinished_s)
        depth.add_metric(["events"], self._watcher.events_waiting())
        objects, ready = OBJECTS.gauge_family(), READY.gauge_family()
        for kind, count in self._watcher.counts().items():
            objects.add_metric([kind], count)
        ready.add_metric([], int(self._watcher.ready()))
        policies = POLICIES.gauge_family()
        policies.add_metric([], int(self._watcher.policies_in_force()))
        yield from (depth, delayed, unfinished, objects, ready, policies)
