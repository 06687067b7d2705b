"""``leasegate.access.v1.ApproverService``: deciding access requests that were created over gRPC."""

from __future__ import annotations

import grpc

from leasegate.access.v1 import approver_service_pb2 as pb
from leasegate.access.v1 import approver_service_pb2_grpc
from services.access.api import decode, encode
from services.access.requests.decisions import Decisions
from services.access.requests.requests import AccessRequests
from services.common.rpc import caller


class ApproverServicer(approver_service_pb2_grpc.ApproverServiceServicer):
    """Decodes a message, calls one object, encodes the answer."""

    def __init__(self, requests: AccessRequests, decisions: Decisions) -> None:
        self._requests, self._decisions = requests, decisions

    def ListPendingAccessRequests(
        self, request: pb.ListPendingAccessRequestsRequest, context: grpc.ServicerContext
    ) -> pb.ListPendingAccessRequestsResponse:
        """Answer the access requests that nobody has decided, without those whose db_role has other approvers."""
        limit = decode.page_size(request.page_size)
        found = self._requests.list_undecided(after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].request.created_at, found[-1].request.uid) if len(found) == limit else ""
        own = [view for view in found if view.db_role is None or view.db_role.may_decide(caller.current())]
        return pb.ListPendingAccessRequestsResponse(
            access_requests=encode.readable(encode.request, own), next_page_token=token
        )

    def ApproveAccessRequest(
        self, request: pb.ApproveAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.ApproveAccessRequestResponse:
        """Approve what would be granted now."""
        call = decode.call("ApproveAccessRequest", request, request_id=request.request_id)
        message = decode.text(request.message, field="message")
        return pb.ApproveAccessRequestResponse(
            access_request=encode.request(
                self._decisions.approve_request(call, request.access_request_id, digest=request.digest, message=message)
            )
        )

    def DenyAccessRequest(
        self, request: pb.DenyAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.DenyAccessRequestResponse:
        """Deny for good."""
        call = decode.call("DenyAccessRequest", request, request_id=request.request_id)
        message = decode.text(request.message, field="message")
        return pb.DenyAccessRequestResponse(
            access_request=encode.request(
                self._decisions.deny_request(call, request.access_request_id, message=message)
            )
        )
