"""Figures of the access service, read when they are asked for: from the ledger, and from what the process knows of Vaults and ledgers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.access.domain.models import AttemptState, Priority
from services.access.ledger import attempts, counts
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.vault.circuit_breaker import CircuitBreakers
from services.access.worker.orphan_scan import OrphanScanner
from services.common.errors import LedgerUnavailableError

_LEASES = {
    "issued": (AttemptState.ISSUED,),
    "active": (AttemptState.ACTIVE,),
    "superseded": (AttemptState.RETIRING, AttemptState.REPLACED),
    "ending": (AttemptState.REVOKING, AttemptState.RECOVERING),
}


class AccessMetrics(Collector):
    """Collects at each scrape; where the ledger cannot be read, its figures are absent."""

    def __init__(
        self,
        ledger: Ledger,
        registry: CollectorRegistry,
        *,
        finder: OrphanScanner,
        breakers: CircuitBreakers,
        losses: LedgerGuard,
    ) -> None:
        self._ledger, self._finder, self._breakers, self._losses = ledger, finder, breakers, losses
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the ledger is read when it is asked for."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All counts."""
        yield from self._of_ledger()
        yield from self._of_process()

    def _of_ledger(self) -> list[Metric]:
        try:
            with self._ledger.read() as tx:
                return [*_attempts(tx), *_leases(tx), *_work(tx)]
        except LedgerUnavailableError:
            return []

    def _of_process(self) -> Iterator[Metric]:
        if self._finder.orphaned_leases is not None:
            yield _gauge(
                "unexplained_leases",
                "Leases that the last comparison of ledger and Vault did not explain.",
                self._finder.orphaned_leases,
            )
            yield _gauge(
                "uncompared_mounts",
                "Mounts that the last comparison could not look at, or not wholly.",
                self._finder.skipped_mounts,
            )
            yield _gauge(
                "compared_timestamp_seconds", "When ledger and Vault were compared last.", self._finder.scanned_at or 0
            )
        yield _gauge(
            "issuing_held",
            "1 while nothing is issued as another ledger is known than this one.",
            bool(self._losses.known_id),
        )
        yield _gauge(
            "requests_held", "Requests with an attempt that the ledger does not know.", self._losses.paused_requests
        )
        breaker = GaugeMetricFamily(
            "leasegate_access_vault_breaker_open", "1 while a Vault is only probed.", labels=["address"]
        )
        found = self._breakers.open_for()
        for server in sorted({key.server for key in found}):  # namespaces of one server would be the same series twice
            breaker.add_metric([server], any(is_open for key, is_open in found.items() if key.server == server))
        yield breaker


def _attempts(tx: Tx) -> Iterator[Metric]:
    states = GaugeMetricFamily("leasegate_access_attempts", "Attempts that are not closed, by state.", labels=["state"])
    found = attempts.count_by_state(tx)
    for state in AttemptState:
        if state is not AttemptState.CLOSED:
            states.add_metric([state], found.get(state, 0))
    yield states
    yield CounterMetricFamily(
        "leasegate_access_attempts_undone", "Attempts of unknown outcome whose login was dropped.", counts.recovered(tx)
    )


def _leases(tx: Tx) -> Iterator[Metric]:
    leases = GaugeMetricFamily("leasegate_access_leases", "Leases that have not ended, by state.", labels=["state"])
    found = counts.leases_by_state(tx)
    for name, states in _LEASES.items():
        leases.add_metric([name], sum(found.get(state, 0) for state in states))
    yield leases
    if (left := counts.next_lease_expiry_s(tx)) is not None:
        yield _gauge("nearest_expiry_seconds", "Until the first credential in use ends unless it is renewed.", left)


def _work(tx: Tx) -> Iterator[Metric]:
    due = GaugeMetricFamily("leasegate_access_work_due", "Pieces of work that are due, by lane.", labels=["lane"])
    oldest = GaugeMetricFamily(
        "leasegate_access_work_oldest_seconds", "How long the oldest piece of work has been due.", labels=["lane"]
    )
    failing = GaugeMetricFamily(
        "leasegate_access_work_failing", "Pieces of work whose last try failed, by lane.", labels=["lane"]
    )
    found, failed = counts.due_by_priority(tx), counts.failing_by_priority(tx)
    for lane in Priority:
        there = found.get(lane)
        failing.add_metric([lane.name.lower()], failed.get(lane, 0))
        due.add_metric([lane.name.lower()], there.count if there else 0)
        oldest.add_metric([lane.name.lower()], there.oldest_s if there else 0)
    yield due
    yield oldest
    yield failing


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"leasegate_access_{name}", text, value=float(value))
