"""``leasegate.access.v1.OperatorService``: leases, orphans, and which ledger is in use."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from leasegate.access.v1 import lease_pb2, operator_service_pb2_grpc
from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.api import decode, encode, findings
from services.access.domain.orphans import OrphanReport
from services.access.leases.admin import OPEN, LeaseAdmin
from services.access.ledger.guard import LedgerGuard
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.rpc import caller

_MOST_DATABASE_USERS = 20_000


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Decodes a message, calls one object, encodes the answer."""

    def __init__(
        self, lease_admin: LeaseAdmin, find_orphans: Callable[[tuple[str, ...]], OrphanReport], guard: LedgerGuard
    ) -> None:
        self._lease_admin, self._find_orphans, self._guard = lease_admin, find_orphans, guard

    def ListLeases(self, request: pb.ListLeasesRequest, context: grpc.ServicerContext) -> pb.ListLeasesResponse:
        """Answer leases, newest first."""
        wanted = request.state != lease_pb2.LEASE_STATE_UNSPECIFIED
        states = tuple(state for state, shown in encode.LEASE.items() if shown == request.state) if wanted else OPEN
        limit = decode.page_size(request.page_size)
        found = self._lease_admin.list_leases(states, after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].issued_at or 0.0, found[-1].id) if len(found) == limit else ""
        return pb.ListLeasesResponse(leases=encode.readable(encode.lease, found), next_page_token=token)

    def RevokeLease(self, request: pb.RevokeLeaseRequest, context: grpc.ServicerContext) -> pb.RevokeLeaseResponse:
        """Revoke one lease."""
        call = decode.call("RevokeLease", request, request_id=request.request_id)
        reason = decode.text(request.reason, field="reason")
        return pb.RevokeLeaseResponse(
            lease=encode.lease(self._lease_admin.revoke_lease(call, request.handle, reason=reason))
        )

    def RenewLease(
        self, request: pb.OperatorServiceRenewLeaseRequest, context: grpc.ServicerContext
    ) -> pb.OperatorServiceRenewLeaseResponse:
        """Renew one lease now."""
        return pb.OperatorServiceRenewLeaseResponse(lease=encode.lease(self._lease_admin.renew_lease(request.handle)))

    def FindOrphans(self, request: pb.FindOrphansRequest, context: grpc.ServicerContext) -> pb.FindOrphansResponse:
        """Compare the ledger with Vault and with the given database users."""
        if len(request.database_users) > _MOST_DATABASE_USERS:
            raise SpecInvalidError.of(FieldViolation("database_users", f"at most {_MOST_DATABASE_USERS} at once"))
        return findings.report(self._find_orphans(tuple(request.database_users)))

    def GetLedger(self, request: pb.GetLedgerRequest, context: grpc.ServicerContext) -> pb.GetLedgerResponse:
        """Answer which ledger is in use."""
        return pb.GetLedgerResponse(ledger=findings.ledger(self._guard.state()))

    def AcceptLedgerLoss(
        self, request: pb.AcceptLedgerLossRequest, context: grpc.ServicerContext
    ) -> pb.AcceptLedgerLossResponse:
        """Accept that what the ledger does not know is lost."""
        reason = decode.text(request.reason, field="reason")
        state = self._guard.accept_loss(request.ledger_id, caller=caller.current(), reason=reason)
        return pb.AcceptLedgerLossResponse(ledger=findings.ledger(state))
