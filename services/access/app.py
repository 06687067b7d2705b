"""The access service without its server: opened, wired, started and closed in order. For ``__main__`` and for tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from leasegate.access.v1 import (
    approver_service_pb2,
    approver_service_pb2_grpc,
    operator_service_pb2,
    operator_service_pb2_grpc,
    requester_service_pb2,
    requester_service_pb2_grpc,
    watcher_service_pb2,
    watcher_service_pb2_grpc,
)
from services.access.api.approver import ApproverServicer
from services.access.api.clusters import WatcherClusters
from services.access.api.operator import OperatorServicer
from services.access.api.requester import RequesterServicer
from services.access.api.watcher import WatcherServicer
from services.access.domain.models import DbRole
from services.access.domain.settings import Settings
from services.access.leases.admin import LeaseAdmin
from services.access.leases.ensure import AccessEnsurer
from services.access.leases.heartbeat import Heartbeat
from services.access.leases.issue import LeaseIssuer
from services.access.leases.recover import IssuanceRecovery
from services.access.leases.renew import LeaseRenewal
from services.access.ledger.db.database import Clock, Ledger, open_ledger
from services.access.ledger.guard import LedgerGuard
from services.access.requests.catalog import Catalog
from services.access.requests.changefeed import ChangeFeed
from services.access.requests.decisions import Decisions
from services.access.requests.quiesce import IssuancePauses
from services.access.requests.requests import AccessRequests
from services.access.vault.circuit_breaker import CircuitBreakers
from services.access.vault.clients import SCOPE, VaultClients
from services.access.worker.dispatch import AttemptDispatcher
from services.access.worker.orphan_scan import OrphanScanner
from services.access.worker.periodic import PeriodicTask
from services.access.worker.pool import WorkerPool
from services.access.worker.prune import LedgerPruner
from services.access.worker.reassessor import Reassessor
from services.access.worker.startup import recover
from services.common.rpc.limit import LongPolls
from services.common.rpc.server import Service, service
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.common.vault.vaults import Vaults

LONG_POLLS = 64


@dataclass(frozen=True, slots=True)
class Access:
    """What a server needs of the access service.

    Attributes:
        services: The four gRPC services.
        polls: Budget of the calls that wait.
        ledger: The open ledger.
        ready: Whether the service can work.
        wake: Ends waiting calls when the process stops.
        orphan_scanner: Compares the ledger with Vault.
        breakers: The circuits of the Vaults.
        guard: Whether the ledger is the known one.
    """

    services: Sequence[Service]
    polls: LongPolls
    ledger: Ledger
    ready: Callable[[], bool]
    wake: Callable[[], None]
    orphan_scanner: OrphanScanner
    breakers: CircuitBreakers
    guard: LedgerGuard


@contextmanager
def access(
    ledger_file: Path,
    *,
    vaults: Vaults,
    configured: Sequence[tuple[VaultTarget, DbRole]] = (),
    watcher_clusters: Mapping[str, str],
    settings: Settings,
    clock: Clock,
) -> Iterator[Access]:
    """The running access service, as a context manager.

    Args:
        ledger_file: File of the ledger.
        vaults: The Vaults that may be called, and the service's own auth at each.
        configured: What the operator's catalog file names.
        watcher_clusters: uid of its cluster by name in a watcher's certificate.
        settings: Options.
        clock: The time, seconds since 1970.

    Raises:
        StartupRefusedError: The ledger cannot be used.
    """
    ledger = open_ledger(ledger_file, clock=clock)
    ledger.quotas, ledger.verified_only = settings.quotas, settings.verified_only
    sessions = Sessions(SCOPE, vaults=vaults)
    try:
        clusters = WatcherClusters(watcher_clusters)
        with _running(
            ledger, sessions, vaults=vaults, configured=configured, clusters=clusters, settings=settings
        ) as running:
            yield running
    finally:
        sessions.close()
        ledger.close()


@contextmanager
def _running(
    ledger: Ledger,
    sessions: Sessions,
    *,
    vaults: Vaults,
    configured: Sequence[tuple[VaultTarget, DbRole]],
    clusters: WatcherClusters,
    settings: Settings,
) -> Iterator[Access]:
    clients = VaultClients(sessions, vaults=vaults, max_request_duration_s=settings.max_request_duration_s)
    polls = LongPolls(LONG_POLLS)
    feed = ChangeFeed(ledger, polls)
    clients.on_missing = lambda row: feed.request_auth(row.id)
    guard = LedgerGuard(ledger)
    catalog, requests = (
        Catalog(ledger, clients, feed),
        AccessRequests(ledger, clients, guard=guard),
    )
    issuer = LeaseIssuer(ledger, clients, settings=settings, guard=guard)
    renewal = LeaseRenewal(ledger, clients, settings=settings, jitter=random.random)
    recovery = IssuanceRecovery(ledger, clients)
    dispatcher = AttemptDispatcher(
        ledger, clients, issuer=issuer, renewal=renewal, recovery=recovery, jitter=random.random
    )
    recover(ledger, max_access_s=settings.max_access_s)
    catalog.refresh_targets()
    catalog.put_configured(configured)
    scanner = OrphanScanner(ledger, clients)
    pool = WorkerPool(
        ledger,
        dispatcher,
        workers=settings.workers,
        max_renewals_per_second=settings.max_renewals_per_second,
        pausing=clients.breakers.pausing,
    )
    pruner = LedgerPruner(ledger, kept_s=settings.retention_s)
    tasks = (
        PeriodicTask("orphan-scan", lambda _stopping: scanner.scan(), every_s=settings.orphan_scan_interval_s),
        PeriodicTask("pruning", pruner.prune, every_s=settings.prune_every_s),
    )
    reassessor = Reassessor(ledger)
    pool.start()
    reassessor.start()
    for task in tasks:
        task.start()
    requester = RequesterServicer(
        requests, issuer, Heartbeat(ledger, renewal, settings=settings), ledger=ledger, feed=feed, settings=settings
    )
    watcher = WatcherServicer(
        requests,
        catalog,
        IssuancePauses(ledger, renewals=renewal.count_under_way),
        clusters=clusters,
        ensurer=AccessEnsurer(ledger, requests, issuer),
        feed=feed,
        vaults=clients,
        guard=guard,
    )
    approver = ApproverServicer(requests, Decisions(ledger, requests))
    operator = OperatorServicer(LeaseAdmin(ledger, renewal), scanner.find_orphans, guard)
    try:
        yield Access(
            services=_services(requester, watcher, approver, operator),
            polls=polls,
            ledger=ledger,
            ready=lambda: clients.serving() and not feed.unread(),
            wake=feed.wake,
            orphan_scanner=scanner,
            breakers=clients.breakers,
            guard=guard,
        )
    finally:
        for task in tasks:
            task.stop()
        reassessor.stop()
        pool.stop()


def _services(
    requester: RequesterServicer, watcher: WatcherServicer, approver: ApproverServicer, operator: OperatorServicer
) -> Sequence[Service]:
    return (
        service(
            requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"],
            requester_service_pb2_grpc.add_RequesterServiceServicer_to_server,
            requester,
            revoking=["ReleaseAccessRequest"],
        ),
        service(
            watcher_service_pb2.DESCRIPTOR.services_by_name["WatcherService"],
            watcher_service_pb2_grpc.add_WatcherServiceServicer_to_server,
            watcher,
            first=True,
        ),
        service(
            approver_service_pb2.DESCRIPTOR.services_by_name["ApproverService"],
            approver_service_pb2_grpc.add_ApproverServiceServicer_to_server,
            approver,
            revoking=["DenyAccessRequest"],
        ),
        service(
            operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"],
            operator_service_pb2_grpc.add_OperatorServiceServicer_to_server,
            operator,
            revoking=["RevokeLease"],
        ),
    )
