"""Everything of the access service but its server: opened, wired, started and closed in order. For ``__main__`` and for tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
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
from services.access.adoption import Undoing
from services.access.breaker import Breakers
from services.access.catalog import Catalog
from services.access.deciding import Deciding
from services.access.ending import Work
from services.access.ensuring import Ensuring
from services.access.feed import Feed
from services.access.finder import Finder
from services.access.holding import Holding
from services.access.issuing import Issuing
from services.access.ledger.database import Clock, Ledger, open_ledger
from services.access.losses import Losses
from services.access.operating import Operating
from services.access.pruning import Pruning
from services.access.queue import Queue
from services.access.quiesce import Quiescing
from services.access.records import Role
from services.access.recovery import recover
from services.access.renewal import Renewal
from services.access.requests import Requests
from services.access.rounds import Rounds
from services.access.servicers.approver import ApproverServicer
from services.access.servicers.operator import OperatorServicer
from services.access.servicers.requester import RequesterServicer
from services.access.servicers.watcher import WatcherServicer
from services.access.settings import Settings
from services.access.vaults import SCOPE, Vaults
from services.common.rpc.limit import LongPolls
from services.common.rpc.server import Service, service
from services.common.vault.own import OwnLogins
from services.common.vault.sessions import Sessions
from services.common.vault.target import Target

LONG_POLLS = 64


@dataclass(frozen=True, slots=True)
class Access:
    """What a server needs of the access service.

    Attributes:
        services: The four gRPC services.
        polls: Budget of the calls that wait.
        ledger: The open ledger.
        ready: Whether it can do its work.
        wake: Lets waiting calls go on when the process stops.
        finder: Compares the ledger with Vault.
        breakers: Which Vaults answer.
        losses: Whether the ledger is the known one.
    """

    services: Sequence[Service]
    polls: LongPolls
    ledger: Ledger
    ready: Callable[[], bool]
    wake: Callable[[], None]
    finder: Finder
    breakers: Breakers
    losses: Losses


@contextmanager
def access(
    ledger_file: Path, *, own: OwnLogins, configured: Sequence[tuple[Target, Role]] = (), settings: Settings, clock: Clock
) -> Iterator[Access]:
    """The access service while inside.

    Raises:
        StartupRefused: The ledger cannot be used.
    """
    ledger = open_ledger(ledger_file, clock=clock)
    sessions = Sessions(SCOPE, own=own)
    try:
        with _working(ledger, sessions, own=own, configured=configured, settings=settings) as made:
            yield made
    finally:
        sessions.close()
        ledger.close()


@contextmanager
def _working(
    ledger: Ledger, sessions: Sessions, *, own: OwnLogins, configured: Sequence[tuple[Target, Role]], settings: Settings
) -> Iterator[Access]:
    vaults = Vaults(sessions, own=own, max_request_duration_s=settings.max_request_duration_s)
    polls = LongPolls(LONG_POLLS)
    feed = Feed(ledger, polls)
    vaults.on_missing = lambda row: feed.login_missing(row.id)
    losses = Losses(ledger)
    catalog, requests = Catalog(ledger, vaults, feed), Requests(ledger, vaults, losses=losses)
    issuing = Issuing(ledger, vaults, settings=settings, losses=losses)
    renewal = Renewal(ledger, vaults, settings=settings, jitter=random.random)
    work = Work(ledger, vaults, issuing=issuing, renewal=renewal, undoing=Undoing(ledger, vaults), jitter=random.random)
    recover(ledger, max_access_s=settings.max_access_s)
    catalog.configure(configured)
    finder = Finder(ledger, vaults)
    queue = Queue(ledger, work, workers=settings.workers, renew_rate=settings.renew_rate, pausing=vaults.breakers.pausing)
    pruning = Pruning(ledger, kept_s=settings.keep_ended_s)
    rounds = (
        Rounds("finder", lambda _stopping: finder.look(), every_s=settings.compare_every_s),
        Rounds("pruning", pruning.prune, every_s=settings.prune_every_s),
    )
    queue.start()
    for each in rounds:
        each.start()
    requester = RequesterServicer(
        requests, issuing, Holding(ledger, renewal, settings=settings), ledger=ledger, feed=feed, settings=settings
    )
    watcher = WatcherServicer(
        requests, catalog, Quiescing(ledger), ensuring=Ensuring(requests, issuing), feed=feed, vaults=vaults, losses=losses
    )
    approver = ApproverServicer(requests, Deciding(ledger, requests))
    operator = OperatorServicer(Operating(ledger, renewal), finder, losses)
    try:
        yield Access(
            services=_services(requester, watcher, approver, operator),
            polls=polls,
            ledger=ledger,
            ready=lambda: vaults.serving() and not feed.unread(),
            wake=feed.wake,
            finder=finder,
            breakers=vaults.breakers,
            losses=losses,
        )
    finally:
        for each in rounds:
            each.stop()
        queue.stop()


def _services(
    requester: RequesterServicer, watcher: WatcherServicer, approver: ApproverServicer, operator: OperatorServicer
) -> Sequence[Service]:
    return (
        service(
            requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"],
            requester_service_pb2_grpc.add_RequesterServiceServicer_to_server,
            requester,
        ),
        service(
            watcher_service_pb2.DESCRIPTOR.services_by_name["WatcherService"],
            watcher_service_pb2_grpc.add_WatcherServiceServicer_to_server,
            watcher,
        ),
        service(
            approver_service_pb2.DESCRIPTOR.services_by_name["ApproverService"],
            approver_service_pb2_grpc.add_ApproverServiceServicer_to_server,
            approver,
        ),
        service(
            operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"],
            operator_service_pb2_grpc.add_OperatorServiceServicer_to_server,
            operator,
        ),
    )
