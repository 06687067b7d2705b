"""Reports of the orphan scan, and the state of the ledger, as messages."""

from __future__ import annotations

from leasegate.access.v1 import ledger_pb2, orphan_pb2
from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.api import encode
from services.access.domain.orphans import Orphan, OrphanKind, OrphanReport
from services.access.ledger.guard import LedgerState

_KIND = {
    OrphanKind.LEASE_UNKNOWN: orphan_pb2.ORPHAN_KIND_LEASE_UNKNOWN,
    OrphanKind.LEASE_CLOSED: orphan_pb2.ORPHAN_KIND_LEASE_CLOSED,
    OrphanKind.LEASE_MISSING: orphan_pb2.ORPHAN_KIND_LEASE_MISSING,
    OrphanKind.DATABASE_USER_UNKNOWN: orphan_pb2.ORPHAN_KIND_DATABASE_USER_UNKNOWN,
    OrphanKind.DATABASE_USER_CLOSED: orphan_pb2.ORPHAN_KIND_DATABASE_USER_CLOSED,
}


def report(found: OrphanReport) -> pb.FindOrphansResponse:
    """A report of the orphan scan."""
    return pb.FindOrphansResponse(
        orphans=[_orphan(each) for each in found.orphans],
        skipped_mounts=[
            orphan_pb2.SkippedMount(address=each.address, mount=each.mount, reason=each.reason)
            for each in found.skipped_mounts
        ],
        leases_compared=found.leases_compared,
        database_users_compared=found.database_users_compared,
    )


def _orphan(found: Orphan) -> orphan_pb2.Orphan:
    return orphan_pb2.Orphan(
        kind=_KIND[found.kind],
        mount=found.mount,
        vault_role=found.role,
        lease_id=found.lease_id,
        username=found.username,
        access_request_id=found.request,
        advice=found.advice,
    )


def ledger(state: LedgerState) -> ledger_pb2.Ledger:
    """The state of the ledger."""
    return ledger_pb2.Ledger(
        id=state.id,
        issuance_paused=bool(state.known_id),
        known_id=state.known_id,
        paused_access_requests=state.paused_access_requests,
        accept_time=encode.timestamp(state.accepted_at),
    )
