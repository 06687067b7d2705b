"""The watcher's metrics: queues and reconciles as controller-runtime counts them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.clock import Clock
from watcher.kube.backoff import Backoff
from watcher.kube.client import KubeError
from watcher.kube.controller import Controller
from watcher.kube.result import Result
from watcher.kube.workqueue import Priority, WorkQueue
from watcher.metrics import WatcherMetrics, watcher_metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> WatcherMetrics:
    return WatcherMetrics(registry)


def a_queue(metrics: WatcherMetrics, clock: Clock) -> WorkQueue[str]:
    backoff = Backoff(base_s=1.0, cap_s=8.0, random=lambda: 1.0)
    return WorkQueue(backoff, clock=clock, observer=metrics.of_queue("roles"))


def test_a_queue_reports_adds_waits_and_work(registry: CollectorRegistry, metrics: WatcherMetrics) -> None:
    clock = Clock()
    queue = a_queue(metrics, clock)
    queue.add("a", Priority.RESYNC)
    clock.now += 2
    queue.add("a")  # once, with the wait of the first
    clock.now += 1
    assert queue.next_key() == "a"
    clock.now += 5
    assert queue.unfinished_s == 5
    queue.mark_done("a")
    queue.add_rate_limited("a")
    assert queue.unfinished_s == 0

    def sample(name: str) -> float | None:
        return registry.get_sample_value(name, {"name": "roles"})

    assert sample("workqueue_adds_total") == 1
    assert sample("workqueue_queue_duration_seconds_sum") == 3
    assert sample("workqueue_work_duration_seconds_sum") == 5
    assert sample("workqueue_retries_total") == 1


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Result(), "success"),
        (Result(requeue=True), "requeue"),
        (Result(requeue_after_s=5.0), "requeue_after"),
        (KubeError("gone", status=404, reason="NotFound"), "requeue"),
        (KubeError("no", status=500, reason="InternalError"), "error"),
        (RuntimeError("no"), "error"),
    ],
)
def test_a_reconcile_is_counted_by_its_result(
    registry: CollectorRegistry, metrics: WatcherMetrics, result: Result | Exception, outcome: str
) -> None:
    def reconcile(_key: str) -> Result:
        if isinstance(result, Exception):
            raise result
        return result

    controller = Controller("roles", a_queue(metrics, Clock()), reconcile, workers=1, observer=metrics.count_reconcile)
    controller.reconcile_key("a")
    labels = {"controller": "roles"}
    assert registry.get_sample_value("leasegate_reconcile_total", {**labels, "result": outcome}) == 1
    assert registry.get_sample_value("leasegate_reconcile_seconds_count", labels) == 1
    errors = registry.get_sample_value("leasegate_reconcile_errors_total", labels)
    assert errors == (1 if outcome == "error" else None)


def test_every_metric_is_declared_and_every_declared_one_is_there(
    registry: CollectorRegistry, metrics: WatcherMetrics
) -> None:
    queue = a_queue(metrics, Clock())
    queue.add("a")
    watcher: Any = SimpleNamespace(
        queues={"roles": queue},
        events_waiting=lambda: 7,
        counts=lambda: {"PostgresRole": 3},
        ready=lambda: True,
        policies_in_force=lambda: True,
    )
    metrics.read_from(watcher)
    found = {family.name + "_total" * (family.type == "counter") for family in registry.collect()}
    assert found == {spec.name for spec in watcher_metrics()}
    assert registry.get_sample_value("workqueue_depth", {"name": "roles"}) == 1
    assert registry.get_sample_value("workqueue_depth", {"name": "events"}) == 7
