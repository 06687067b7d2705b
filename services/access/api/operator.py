"""``leasegate.access.v1.OperatorService``: what is issued, ending one lease, what nobody explains, and which ledger this is."""

from __future__ import annotations

import grpc

from leasegate.access.v1 import lease_pb2, operator_service_pb2_grpc
from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.api import decode, encode, findings
from services.access.leases.admin import OPEN, LeaseAdmin
from services.access.ledger.guard import LedgerGuard
from services.access.worker.orphan_scan import MOST_LOGINS, OrphanScanner
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.rpc import caller


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Decodes, calls the domain once, encodes."""

    def __init__(self, operating: LeaseAdmin, finder: OrphanScanner, losses: LedgerGuard) -> None:
        self._operating, self._finder, self._losses = operating, finder, losses

    def ListLeases(self, request: pb.ListLeasesRequest, context: grpc.ServicerContext) -> pb.ListLeasesResponse:
        """See the .proto file."""
        wanted = request.state != lease_pb2.LEASE_STATE_UNSPECIFIED
        states = tuple(state for state, shown in encode.LEASE.items() if shown == request.state) if wanted else OPEN
        limit = decode.page_size(request.page_size)
        found = self._operating.leases(states, after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].issued_at or 0.0, found[-1].id) if len(found) == limit else ""
        return pb.ListLeasesResponse(leases=[encode.lease(attempt) for attempt in found], next_page_token=token)

    def RevokeLease(self, request: pb.RevokeLeaseRequest, context: grpc.ServicerContext) -> pb.RevokeLeaseResponse:
        """See the .proto file."""
        call = decode.call("RevokeLease", request, request_id=request.request_id)
        reason = decode.text(request.reason, field="reason")
        return pb.RevokeLeaseResponse(lease=encode.lease(self._operating.revoke(call, request.handle, reason=reason)))

    def RenewLease(
        self, request: pb.OperatorServiceRenewLeaseRequest, context: grpc.ServicerContext
    ) -> pb.OperatorServiceRenewLeaseResponse:
        """See the .proto file."""
        return pb.OperatorServiceRenewLeaseResponse(lease=encode.lease(self._operating.renew(request.handle)))

    def FindOrphans(self, request: pb.FindOrphansRequest, context: grpc.ServicerContext) -> pb.FindOrphansResponse:
        """See the .proto file."""
        if len(request.database_users) > MOST_LOGINS:
            raise SpecInvalidError.of(FieldViolation("logins", f"at most {MOST_LOGINS} at once"))
        return findings.report(self._finder.find(tuple(request.database_users)))

    def GetLedger(self, request: pb.GetLedgerRequest, context: grpc.ServicerContext) -> pb.GetLedgerResponse:
        """See the .proto file."""
        return pb.GetLedgerResponse(ledger=findings.ledger(self._losses.state()))

    def AcceptLedgerLoss(
        self, request: pb.AcceptLedgerLossRequest, context: grpc.ServicerContext
    ) -> pb.AcceptLedgerLossResponse:
        """See the .proto file."""
        reason = decode.text(request.reason, field="reason")
        state = self._losses.accept_loss(request.ledger_id, caller=caller.current(), reason=reason)
        return pb.AcceptLedgerLossResponse(ledger=findings.ledger(state))
