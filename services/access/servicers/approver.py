"""``leasegate.access.v1.ApproverService``: deciding on requests that were made over gRPC."""

from __future__ import annotations

import grpc

from leasegate.access.v1 import approver_service_pb2 as pb
from leasegate.access.v1 import approver_service_pb2_grpc
from services.access.deciding import Deciding
from services.access.requests import Requests
from services.access.servicers import decode, encode


class ApproverServicer(approver_service_pb2_grpc.ApproverServiceServicer):
    """Decodes, calls the domain once, encodes."""

    def __init__(self, requests: Requests, deciding: Deciding) -> None:
        self._requests, self._deciding = requests, deciding

    def ListPendingRequests(self, request: pb.ListPendingRequestsRequest, context: grpc.ServicerContext) -> pb.ListPendingRequestsResponse:
        """See the .proto file."""
        limit = decode.page_size(request.page_size)
        found = self._requests.waiting(after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].request.created_at, found[-1].request.uid) if len(found) == limit else ""
        return pb.ListPendingRequestsResponse(requests=[encode.request(view) for view in found], next_page_token=token)

    def ApproveRequest(self, request: pb.ApproveRequestRequest, context: grpc.ServicerContext) -> pb.ApproveRequestResponse:
        """See the .proto file."""
        call = decode.call("ApproveRequest", request, request_id=request.request_id)
        message = decode.text(request.message, field="message")
        return pb.ApproveRequestResponse(
            request=encode.request(self._deciding.approve(call, request.id, digest=request.digest, message=message))
        )

    def DenyRequest(self, request: pb.DenyRequestRequest, context: grpc.ServicerContext) -> pb.DenyRequestResponse:
        """See the .proto file."""
        call = decode.call("DenyRequest", request, request_id=request.request_id)
        message = decode.text(request.message, field="message")
        return pb.DenyRequestResponse(request=encode.request(self._deciding.deny(call, request.id, message=message)))
