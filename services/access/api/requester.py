"""``leasegate.access.v1.RequesterService``: asking for access, and using credentials."""

from __future__ import annotations

import hashlib
import time

import grpc

from leasegate.access.v1 import access_request_pb2, requester_service_pb2_grpc
from leasegate.access.v1 import requester_service_pb2 as pb
from services.access.api import decode, encode
from services.access.domain.settings import Settings
from services.access.leases.acknowledge import acknowledge
from services.access.leases.heartbeat import Heartbeat
from services.access.leases.issue import LeaseIssuer
from services.access.ledger.db.database import Ledger
from services.access.requests.changefeed import LONGEST_WAIT_S, POLL_AFTER_S, ChangeFeed
from services.access.requests.requests import AccessRequests
from services.common.rpc import caller


class RequesterServicer(requester_service_pb2_grpc.RequesterServiceServicer):
    """Decodes a message, calls one object, encodes the answer."""

    def __init__(
        self,
        requests: AccessRequests,
        issuer: LeaseIssuer,
        heartbeat: Heartbeat,
        *,
        ledger: Ledger,
        feed: ChangeFeed,
        settings: Settings,
    ) -> None:
        self._requests, self._issuer, self._heartbeat = requests, issuer, heartbeat
        self._ledger, self._feed, self._settings = ledger, feed, settings

    def CreateAccessRequest(
        self, request: pb.CreateAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.CreateAccessRequestResponse:
        """Create an access request for a db_role of the catalog file."""
        call = decode.call("CreateAccessRequest", request, request_id=request.request_id)
        reason, ticket = decode.reason(request), decode.ticket(request)
        view = self._requests.create_request(
            call,
            target=request.vault_target,
            role=request.db_role,
            ttl_s=decode.ttl(request),
            reason=reason,
            ticket=ticket,
        )
        return pb.CreateAccessRequestResponse(access_request=encode.request(view))

    def GetAccessRequest(
        self, request: pb.GetAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.GetAccessRequestResponse:
        """Answer one access request of the caller."""
        return pb.GetAccessRequestResponse(
            access_request=encode.request(
                self._requests.show_request(request.access_request_id, owner=caller.current())
            )
        )

    def ListAccessRequests(
        self, request: pb.ListAccessRequestsRequest, context: grpc.ServicerContext
    ) -> pb.ListAccessRequestsResponse:
        """Answer the access requests of the caller."""
        limit = decode.page_size(request.page_size)
        found = self._requests.list_owned(caller.current(), after=decode.page_token(request.page_token), limit=limit)
        token = decode.next_token(found[-1].request.created_at, found[-1].request.uid) if len(found) == limit else ""
        return pb.ListAccessRequestsResponse(
            access_requests=encode.readable(encode.request, found), next_page_token=token
        )

    def WaitAccessRequest(
        self, request: pb.WaitAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.WaitAccessRequestResponse:
        """Wait until an access request differs from the revision that the caller knows."""
        wait_s = min(decode.seconds(request.max_wait, field="max_wait"), LONGEST_WAIT_S)
        end = time.monotonic() + wait_s
        number = self._feed.last_change(request.access_request_id)
        found = self._shown(request.access_request_id)
        if request.revision != _revision(found):
            return pb.WaitAccessRequestResponse(access_request=found, revision=_revision(found))
        with self._feed.polls.waiting() as granted:
            while (
                granted
                and request.revision == _revision(found)
                and time.monotonic() < end
                and not self._feed.polls.draining
            ):
                number = self._feed.wait_for(request.access_request_id, beyond=number, end=end)
                found = self._shown(request.access_request_id)
        after = None if granted else encode.duration(POLL_AFTER_S)
        return pb.WaitAccessRequestResponse(access_request=found, revision=_revision(found), retry_after=after)

    def _shown(self, uid: str) -> access_request_pb2.AccessRequest:
        return encode.request(self._requests.show_request(uid, owner=caller.current()))

    def ClaimCredential(
        self, request: pb.ClaimCredentialRequest, context: grpc.ServicerContext
    ) -> pb.ClaimCredentialResponse:
        """Issue a credential."""
        issued = self._issuer.claim_credential(
            request.access_request_id, owner=caller.current(), secret_attempt=request.known_attempt
        )
        return pb.ClaimCredentialResponse(credential=encode.credential(issued))

    def AcknowledgeCredential(
        self, request: pb.AcknowledgeCredentialRequest, context: grpc.ServicerContext
    ) -> pb.AcknowledgeCredentialResponse:
        """Make a claimed credential the active one."""
        acknowledge(
            self._ledger,
            request.access_request_id,
            owner=caller.current(),
            number=request.attempt,
            settings=self._settings,
        )
        return pb.AcknowledgeCredentialResponse(access_request=self._shown(request.access_request_id))

    def RenewLease(self, request: pb.RenewLeaseRequest, context: grpc.ServicerContext) -> pb.RenewLeaseResponse:
        """Renew the lease of the active credential."""
        call = decode.call("RenewLease", request, request_id=request.request_id)
        attempt, should_claim = self._heartbeat.renew_held(call, request.access_request_id)
        return pb.RenewLeaseResponse(lease=encode.lease(attempt), should_claim=should_claim)

    def ReleaseAccessRequest(
        self, request: pb.ReleaseAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.ReleaseAccessRequestResponse:
        """End access."""
        call = decode.call("ReleaseAccessRequest", request, request_id=request.request_id)
        return pb.ReleaseAccessRequestResponse(
            access_request=encode.request(self._requests.release_request(call, request.access_request_id))
        )


def _revision(shown: access_request_pb2.AccessRequest) -> str:
    return hashlib.sha256(shown.SerializeToString(deterministic=True)).hexdigest()[:16]
