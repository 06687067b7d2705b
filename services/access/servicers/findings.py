"""What the finder found, and the ledger's state, as messages."""

from __future__ import annotations

from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.finder import Kind, Orphan, Report
from services.access.losses import LedgerState
from services.access.servicers import encode

_KIND = {
    Kind.LEASE_UNKNOWN: pb.ORPHAN_KIND_LEASE_UNKNOWN,
    Kind.LEASE_ENDED: pb.ORPHAN_KIND_LEASE_ENDED,
    Kind.LEASE_MISSING: pb.ORPHAN_KIND_LEASE_MISSING,
    Kind.LOGIN_UNKNOWN: pb.ORPHAN_KIND_LOGIN_UNKNOWN,
    Kind.LOGIN_ENDED: pb.ORPHAN_KIND_LOGIN_ENDED,
}


def report(found: Report) -> pb.FindOrphansResponse:
    """All that was found."""
    return pb.FindOrphansResponse(
        orphans=[_orphan(each) for each in found.orphans],
        unlooked=[pb.Unlooked(address=each.address, mount=each.mount, reason=each.reason) for each in found.unlooked],
        leases_compared=found.leases_compared,
        logins_compared=found.logins_compared,
    )


def _orphan(found: Orphan) -> pb.Orphan:
    return pb.Orphan(
        kind=_KIND[found.kind],
        mount=found.mount,
        role=found.role,
        lease_id=found.lease_id,
        username=found.username,
        request=found.request,
        advice=found.advice,
    )


def ledger(state: LedgerState) -> pb.Ledger:
    """The ledger's state."""
    return pb.Ledger(
        id=state.id,
        held=bool(state.known_id),
        known_id=state.known_id,
        held_requests=state.held_requests,
        accept_time=encode.timestamp(state.accepted_at),
    )
