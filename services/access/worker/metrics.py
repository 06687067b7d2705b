"""Metrics of the access service: read from the ledger at each scrape, and counted as transactions are committed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from services.access.domain.models import AttemptState, Priority
from services.access.ledger import attempts, counts, pauses
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.db.outcomes import OutcomeKind
from services.access.ledger.guard import LedgerGuard
from services.access.vault.circuit_breaker import CircuitBreakers
from services.access.worker.orphan_scan import OrphanScanner
from services.common.errors import LedgerUnavailableError
from services.common.metrics import MetricSpec
from services.common.vault.call_metrics import server_metrics

ISSUED = MetricSpec("leasegate_leases_issued_total", "counter", "Credentials issued.")
RENEWED = MetricSpec("leasegate_leases_renewed_total", "counter", "Renewals of leases that Vault granted.")
RENEWAL_FAILURES = MetricSpec(
    "leasegate_lease_renewal_failures_total", "counter", "Renewals of leases that failed; each is tried again."
)
REVOKED = MetricSpec(
    "leasegate_leases_revoked_total",
    "counter",
    "Credentials whose database user was dropped, by revocation or recovery.",
)
REVOCATION_SECONDS = MetricSpec(
    "leasegate_lease_revocation_seconds",
    "histogram",
    "Time from when a revocation was due to when the database user was dropped, in seconds.",
)
ATTEMPTS = MetricSpec("leasegate_attempts", "gauge", "Attempts that are not closed, by state.", ("state",))
RECOVERED = MetricSpec(
    "leasegate_attempts_recovered_total",
    "counter",
    "Attempts of unknown outcome whose database user was dropped by a cleanup role, since the ledger began.",
)
LEASES = MetricSpec("leasegate_leases", "gauge", "Leases that are not revoked, by state.", ("state",))
NEXT_EXPIRY = MetricSpec(
    "leasegate_next_lease_expiry_seconds",
    "gauge",
    "Seconds until the first active lease expires unless it is renewed; absent without an active lease.",
)
WORK_DUE = MetricSpec("leasegate_work_due", "gauge", "Pieces of work that are due, by priority.", ("priority",))
WORK_OLDEST = MetricSpec(
    "leasegate_work_oldest_seconds",
    "gauge",
    "How long the oldest piece of work has been due, by priority.",
    ("priority",),
)
WORK_FAILING = MetricSpec(
    "leasegate_work_failing", "gauge", "Pieces of work whose last try failed, by priority.", ("priority",)
)
ORPHANED_LEASES = MetricSpec(
    "leasegate_orphaned_leases",
    "gauge",
    "Leases in Vault that the last orphan scan found and the ledger does not explain.",
)
SKIPPED_MOUNTS = MetricSpec(
    "leasegate_orphan_scan_skipped_mounts",
    "gauge",
    "Mounts that the last orphan scan could not compare, or not wholly.",
)
SCANNED_AT = MetricSpec(
    "leasegate_orphan_scan_timestamp_seconds", "gauge", "When the last orphan scan ended, in seconds since 1970."
)
ISSUANCE_PAUSED = MetricSpec(
    "leasegate_issuance_paused",
    "gauge",
    "Why issuance is paused: 1 for LedgerMismatch while a watcher knows another ledger; for SecretEngineUpdating the"
    " number of mounts and connections that are paused, for RolePaused and RoleOutdated that of db_roles.",
    ("reason",),
)
REQUESTS_PAUSED = MetricSpec(
    "leasegate_access_requests_paused",
    "gauge",
    "Access requests that are paused because their Secret has an attempt that the ledger does not know.",
)
CIRCUIT_OPEN = MetricSpec(
    "leasegate_vault_circuit_open", "gauge", "Vault servers whose circuit is open: they are probed and not called."
)

_COUNTED = {OutcomeKind.ISSUED: ISSUED, OutcomeKind.RENEWED: RENEWED, OutcomeKind.RENEWAL_FAILED: RENEWAL_FAILURES}
_STATES = {
    "issued": (AttemptState.ISSUED,),
    "active": (AttemptState.ACTIVE,),
    "retiring": (AttemptState.RETIRING, AttemptState.REPLACED),
    "revoking": (AttemptState.REVOKING, AttemptState.RECOVERING),
}
_REVOCATION_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)


def access_metrics() -> tuple[MetricSpec, ...]:
    """Return all metrics of the process."""
    own = (
        *_COUNTED.values(), REVOKED, REVOCATION_SECONDS, ATTEMPTS, RECOVERED, LEASES, NEXT_EXPIRY, WORK_DUE,
        WORK_OLDEST, WORK_FAILING, ORPHANED_LEASES, SKIPPED_MOUNTS, SCANNED_AT, ISSUANCE_PAUSED, REQUESTS_PAUSED,
        CIRCUIT_OPEN,
    )  # fmt: skip
    return (*own, *server_metrics())


class AccessMetrics(Collector):
    """Reads gauges at each scrape and counts the outcomes of commits.

    Where the ledger cannot be read, what is read from it is absent.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: CollectorRegistry,
        *,
        orphan_scanner: OrphanScanner,
        breakers: CircuitBreakers,
        guard: LedgerGuard,
    ) -> None:
        self._ledger, self._orphan_scanner, self._breakers, self._guard = ledger, orphan_scanner, breakers, guard
        registry.register(self)
        self._counters = {kind: spec.counter(registry) for kind, spec in _COUNTED.items()}
        self._counters[OutcomeKind.REVOKED] = REVOKED.counter(registry)
        self._revocation_seconds = REVOCATION_SECONDS.histogram(registry, buckets=_REVOCATION_BUCKETS_S)
        ledger.listeners.append(self._count_outcomes)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the ledger is read at a scrape, not at the registration."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Read all gauges."""
        yield from self._of_ledger()
        yield from self._of_process()

    def _count_outcomes(self, tx: Tx) -> None:
        for outcome in tx.outcomes:
            self._counters[outcome.kind].inc()
            if outcome.kind is OutcomeKind.REVOKED:
                self._revocation_seconds.observe(outcome.seconds)

    def _of_ledger(self) -> list[Metric]:
        try:
            with self._ledger.read() as tx:
                return [*_attempts(tx), *_leases(tx), *_work(tx), self._issuance_paused(tx)]
        except LedgerUnavailableError:
            return []

    def _issuance_paused(self, tx: Tx) -> Metric:
        changing, outdated = pauses.count_roles(tx)
        paused = {
            "LedgerMismatch": bool(self._guard.known_id),
            "SecretEngineUpdating": pauses.count(tx),
            "RolePaused": changing,
            "RoleOutdated": outdated,
        }
        return _labeled(ISSUANCE_PAUSED, paused)

    def _of_process(self) -> Iterator[Metric]:
        if self._orphan_scanner.orphaned_leases is not None:
            yield _gauge(ORPHANED_LEASES, self._orphan_scanner.orphaned_leases)
            yield _gauge(SKIPPED_MOUNTS, self._orphan_scanner.skipped_mounts)
            yield _gauge(SCANNED_AT, self._orphan_scanner.scanned_at or 0)
        yield _gauge(REQUESTS_PAUSED, self._guard.paused_access_requests)
        yield _gauge(CIRCUIT_OPEN, len({key.vault for key, is_open in self._breakers.open_for().items() if is_open}))


def _attempts(tx: Tx) -> Iterator[Metric]:
    found = attempts.count_by_state(tx)
    yield _labeled(ATTEMPTS, {state: found.get(state, 0) for state in attempts.OPEN})
    recovered = RECOVERED.counter_family()
    recovered.add_metric([], counts.recovered(tx))
    yield recovered


def _leases(tx: Tx) -> Iterator[Metric]:
    found = counts.leases_by_state(tx)
    yield _labeled(LEASES, {name: sum(found.get(state, 0) for state in states) for name, states in _STATES.items()})
    if (left_s := counts.next_lease_expiry_s(tx)) is not None:
        yield _gauge(NEXT_EXPIRY, left_s)


def _work(tx: Tx) -> Iterator[Metric]:
    due, failing = counts.due_by_priority(tx), counts.failing_by_priority(tx)
    priorities = {priority.name.lower(): priority for priority in Priority}
    nothing = counts.Due(0, 0.0)
    yield _labeled(WORK_DUE, {name: due.get(each, nothing).count for name, each in priorities.items()})
    yield _labeled(WORK_OLDEST, {name: due.get(each, nothing).oldest_s for name, each in priorities.items()})
    yield _labeled(WORK_FAILING, {name: failing.get(each, 0) for name, each in priorities.items()})


def _gauge(spec: MetricSpec, value: float) -> Metric:
    family = spec.gauge_family()
    family.add_metric([], float(value))
    return family


def _labeled(spec: MetricSpec, values: Mapping[str, float]) -> Metric:
    family = spec.gauge_family()
    for label, value in values.items():
        family.add_metric([str(label)], float(value))
    return family
