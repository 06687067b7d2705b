"""``leasegate.access.v1.OperatorService``: what is issued, and ending one lease."""

from __future__ import annotations

import grpc

from leasegate.access.v1 import lease_pb2, operator_service_pb2_grpc
from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.operating import OPEN, Operating
from services.access.servicers import decode, encode


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Decodes, calls the domain once, encodes."""

    def __init__(self, operating: Operating) -> None:
        self._operating = operating

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
