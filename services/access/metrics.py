"""Figures of the access service: attempts by state and work that is due, read from the ledger when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.access.ledger import attempts, work
from services.access.ledger.database import Ledger
from services.access.records import Lane, State
from services.common.errors import LedgerUnavailable


class LedgerFigures(Collector):
    """Counts rows at each scrape."""

    def __init__(self, ledger: Ledger, registry: CollectorRegistry) -> None:
        self._ledger = ledger
        registry.register(self)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing beforehand: the ledger is read when it is asked for."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One sample for each state and lane."""
        states = GaugeMetricFamily("leasegate_access_attempts", "Attempts that are not closed, by state.", labels=["state"])
        due = GaugeMetricFamily("leasegate_access_work_due", "Pieces of work that are due, by lane.", labels=["lane"])
        try:
            with self._ledger.read() as tx:
                by_state, by_lane = attempts.count_by_state(tx), work.depth(tx)
        except LedgerUnavailable:
            return []  # a scrape without these figures says so by their absence
        for state in State:
            if state is not State.CLOSED:
                states.add_metric([state], by_state.get(state, 0))
        for lane in Lane:
            due.add_metric([lane.name.lower()], by_lane.get(lane, 0))
        return [states, due]
