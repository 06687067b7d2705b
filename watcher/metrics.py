"""Metrics of the watcher: what waits in its queues and how many objects it knows."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from watcher.app import Watcher


def register(registry: CollectorRegistry, watcher: Watcher) -> None:
    """Have the figures read whenever somebody asks for them."""
    registry.register(_WatcherMetrics(watcher))


class _WatcherMetrics(Collector):
    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def collect(self) -> Iterator[Metric]:
        """Read the figures."""
        waiting = GaugeMetricFamily(
            "leasegate_watcher_queue_depth", "Keys, and Events, that wait for a worker.", labels=["queue"]
        )
        delayed = GaugeMetricFamily(
            "leasegate_watcher_queue_delayed", "Keys that wait for their time.", labels=["queue"]
        )
        for name, queue in self._watcher.queues.items():
            waiting.add_metric([name], len(queue))
            delayed.add_metric([name], queue.delayed)
        waiting.add_metric(["events"], len(self._watcher.events))
        objects = GaugeMetricFamily("leasegate_watcher_objects", "Objects known.", labels=["kind"])
        for kind, count in self._watcher.counts().items():
            objects.add_metric([kind], count)
        ready = GaugeMetricFamily(
            "leasegate_watcher_ready",
            "Whether all kinds are listed and access answers.",
            value=int(self._watcher.ready()),
        )
        yield from (waiting, delayed, objects, ready)
