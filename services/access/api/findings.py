"""What the finder found, and the ledger's state, as messages."""

from __future__ import annotations

from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.api import encode
from services.access.domain.orphans import Orphan, OrphanKind
from services.access.ledger.guard import LedgerState
from services.access.worker.orphan_scan import OrphanReport

_KIND = {
    OrphanKind.LEASE_UNKNOWN: pb.ORPHAN_KIND_LEASE_UNKNOWN,
    OrphanKind.LEASE_ENDED: pb.ORPHAN_KIND_LEASE_ENDED,
    OrphanKind.LEASE_MISSING: pb.ORPHAN_KIND_LEASE_MISSING,
    OrphanKind.DATABASE_USER_UNKNOWN: pb.ORPHAN_KIND_DATABASE_USER_UNKNOWN,
    OrphanKind.DATABASE_USER_ENDED: pb.ORPHAN_KIND_DATABASE_USER_ENDED,
}


def report(found: OrphanReport) -> pb.FindOrphansResponse:
    """All that was found."""
    return pb.FindOrphansResponse(
        orphans=[_orphan(each) for each in found.orphans],
        skipped_mounts=[
            pb.SkippedMount(address=each.address, mount=each.mount, reason=each.reason) for each in found.skipped_mounts
        ],
        leases_compared=found.leases_compared,
        database_users_compared=found.database_users_compared,
    )


def _orphan(found: Orphan) -> pb.Orphan:
    return pb.Orphan(
        kind=_KIND[found.kind],
        mount=found.mount,
        vault_role=found.role,
        lease_id=found.lease_id,
        username=found.username,
        access_request_id=found.request,
        advice=found.advice,
    )


def ledger(state: LedgerState) -> pb.Ledger:
    """The ledger's state."""
    return pb.Ledger(
        id=state.id,
        issuance_paused=bool(state.known_id),
        known_id=state.known_id,
        paused_requests=state.paused_requests,
        accept_time=encode.timestamp(state.accepted_at),
    )
