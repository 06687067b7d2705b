"""``leasegate.access.v1.RequesterService``: asking for access, and holding credentials."""

from __future__ import annotations

import hashlib
import time

import grpc

from leasegate.access.v1 import request_pb2, requester_service_pb2_grpc
from leasegate.access.v1 import requester_service_pb2 as pb
from services.access.acknowledging import acknowledge
from services.access.feed import LONGEST_WAIT_S, POLL_AFTER_S, Feed
from services.access.holding import Holding
from services.access.issuing import Issuing
from services.access.ledger.database import Ledger
from services.access.requests import Requests
from services.access.servicers import decode, encode
from services.access.settings import Settings
from services.common.rpc import caller


class RequesterServicer(requester_service_pb2_grpc.RequesterServiceServicer):
    """Decodes, calls the domain once, encodes."""

    def __init__(self, requests: Requests, issuing: Issuing, holding: Holding, *, ledger: Ledger, feed: Feed, settings: Settings) -> None:
        self._requests, self._issuing, self._holding = requests, issuing, holding
        self._ledger, self._feed, self._settings = ledger, feed, settings

    def CreateRequest(self, request: pb.CreateRequestRequest, context: grpc.ServicerContext) -> pb.CreateRequestResponse:
        """See the .proto file."""
        call = decode.call("CreateRequest", request, request_id=request.request_id)
        reason = decode.text(request.reason, field="reason")
        view = self._requests.create(call, target=request.target, role=request.role, ttl_s=decode.ttl(request), reason=reason)
        return pb.CreateRequestResponse(request=encode.request(view))

    def GetRequest(self, request: pb.GetRequestRequest, context: grpc.ServicerContext) -> pb.GetRequestResponse:
        """See the .proto file."""
        return pb.GetRequestResponse(request=encode.request(self._requests.show(request.id, owner=caller.current())))

    def ListRequests(self, request: pb.ListRequestsRequest, context: grpc.ServicerContext) -> pb.ListRequestsResponse:
        """See the .proto file."""
        limit = decode.page_size(request.page_size)
        found = self._requests.mine(caller.current(), after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].request.created_at, found[-1].request.uid) if len(found) == limit else ""
        return pb.ListRequestsResponse(requests=[encode.request(view) for view in found], next_page_token=token)

    def WaitRequest(self, request: pb.WaitRequestRequest, context: grpc.ServicerContext) -> pb.WaitRequestResponse:
        """See the .proto file."""
        wait_s = min(decode.seconds(request.max_wait, field="max_wait"), LONGEST_WAIT_S)
        end = time.monotonic() + wait_s
        number = self._feed.number(request.id)
        found = self._shown(request.id)
        if request.revision != _revision(found):
            return pb.WaitRequestResponse(request=found, revision=_revision(found))
        with self._feed.polls.wait() as granted:
            while granted and request.revision == _revision(found) and time.monotonic() < end and not self._feed.polls.draining:
                number = self._feed.wait_for(request.id, beyond=number, end=end)
                found = self._shown(request.id)
        after = None if granted else encode.duration(POLL_AFTER_S)
        return pb.WaitRequestResponse(request=found, revision=_revision(found), next_poll_after=after)

    def _shown(self, uid: str) -> request_pb2.AccessRequest:
        return encode.request(self._requests.show(uid, owner=caller.current()))

    def ClaimCredential(self, request: pb.ClaimCredentialRequest, context: grpc.ServicerContext) -> pb.ClaimCredentialResponse:
        """See the .proto file."""
        issued = self._issuing.claim(request.id, owner=caller.current(), held=request.held_attempt)
        return pb.ClaimCredentialResponse(credential=encode.credential(issued))

    def AcknowledgeCredential(
        self, request: pb.AcknowledgeCredentialRequest, context: grpc.ServicerContext
    ) -> pb.AcknowledgeCredentialResponse:
        """See the .proto file."""
        acknowledge(self._ledger, request.id, owner=caller.current(), number=request.attempt, settings=self._settings)
        return pb.AcknowledgeCredentialResponse(request=self._shown(request.id))

    def RenewLease(self, request: pb.RenewLeaseRequest, context: grpc.ServicerContext) -> pb.RenewLeaseResponse:
        """See the .proto file."""
        call = decode.call("RenewLease", request, request_id=request.request_id)
        attempt, anew = self._holding.renew(call, request.id)
        return pb.RenewLeaseResponse(lease=encode.lease(attempt), claim_anew=anew)

    def ReleaseRequest(self, request: pb.ReleaseRequestRequest, context: grpc.ServicerContext) -> pb.ReleaseRequestResponse:
        """See the .proto file."""
        call = decode.call("ReleaseRequest", request, request_id=request.request_id)
        return pb.ReleaseRequestResponse(request=encode.request(self._requests.release(call, request.id)))


def _revision(shown: request_pb2.AccessRequest) -> str:
    return hashlib.sha256(shown.SerializeToString(deterministic=True)).hexdigest()[:16]
