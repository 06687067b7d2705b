"""``leasegate.access.v1.WatcherService``: what Kubernetes says, and what the watcher has to do."""

from __future__ import annotations

import time

import grpc

from leasegate.access.v1 import change_pb2, requester_service_pb2, watcher_service_pb2_grpc
from leasegate.access.v1 import watcher_service_pb2 as pb
from leasegate.types.v1 import types_pb2
from services.access.api import decode, encode
from services.access.domain.request_view import AccessRequestView
from services.access.leases.ensure import AccessEnsurer
from services.access.ledger.guard import LedgerGuard
from services.access.requests.catalog import Catalog
from services.access.requests.changefeed import POLL_AFTER_S, ChangeFeed
from services.access.requests.quiesce import VALID_S, IssuancePauses
from services.access.requests.requests import AccessRequests
from services.access.vault.clients import VaultClients
from services.common.rpc import caller
from services.common.vault.target import VaultTarget

_CLAIMING = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"].full_name
DROP_S = 0.1
"""For so long an end waits for its logins' drop, so that who deletes sees both at once; it is durable before."""


class WatcherServicer(watcher_service_pb2_grpc.WatcherServiceServicer):
    """Decodes, calls the domain once, encodes."""

    def __init__(
        self,
        requests: AccessRequests,
        catalog: Catalog,
        quiescing: IssuancePauses,
        *,
        ensuring: AccessEnsurer,
        feed: ChangeFeed,
        vaults: VaultClients,
        losses: LedgerGuard,
    ) -> None:
        self._requests, self._catalog, self._quiescing = requests, catalog, quiescing
        self._ensuring, self._feed, self._vaults, self._losses = ensuring, feed, vaults, losses

    def EnsureAccessRequest(
        self, request: pb.EnsureAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.EnsureAccessRequestResponse:
        """See the .proto file."""
        secret_attempt, claim = request.secret_attempt, request.claim and caller.may_call(_CLAIMING)
        done = self._ensuring.ensure(
            decode.desired(request), owner=caller.current(), secret_attempt=secret_attempt, claim=claim
        )
        step, after_s = done.view.next_step(secret_attempt)
        return pb.EnsureAccessRequestResponse(
            access_request=encode.request(done.view),
            next_step=encode.step(step),
            retry_after=encode.duration(after_s),
            credential=encode.credential(done.issued) if done.issued else None,
            claim_error=encode.error(done.refused) if done.refused else None,
        )

    def DeleteAccessRequest(
        self, request: pb.DeleteAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.DeleteAccessRequestResponse:
        """See the .proto file."""
        number = self._feed.number(request.object.uid)
        view = self._requests.end(decode.ended(request.object), owner=caller.current())
        if view.dropping:
            view = self._dropped(view, beyond=number)
        pending = view.revoke_pending()
        return pb.DeleteAccessRequestResponse(
            open_attempts=view.open_count, conditions=encode.conditions([pending] if pending else [])
        )

    def _dropped(self, view: AccessRequestView, *, beyond: int) -> AccessRequestView:
        """Where the end of a request stands when its logins are dropped, which takes some milliseconds if all is well;
        else soon after.
        """
        uid, end = view.request.uid, time.monotonic() + DROP_S
        with self._feed.polls.wait() as granted, self._feed.answering(uid, since=beyond) as answer:
            while granted and view.dropping and time.monotonic() < end and not self._feed.polls.draining:
                answer.number = beyond = self._feed.wait_for(uid, beyond=beyond, end=end)
                view = self._requests.show(uid, owner=view.request.owner)
        return view

    def EnsureVaultTarget(
        self, request: pb.EnsureVaultTargetRequest, context: grpc.ServicerContext
    ) -> pb.EnsureVaultTargetResponse:
        """See the .proto file."""
        row = self._catalog.put_target(VaultTarget.from_proto(request.target))
        return pb.EnsureVaultTargetResponse(target=encode.target_ref(row), service_auth=self._vaults.service_auth(row))

    def PutDbRoleSnapshot(
        self, request: pb.PutDbRoleSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.PutDbRoleSnapshotResponse:
        """See the .proto file."""
        self._catalog.put_role(decode.role(request.snapshot), at=decode.target_name(request.snapshot.target))
        return pb.PutDbRoleSnapshotResponse()

    def DeleteDbRoleSnapshot(
        self, request: pb.DeleteDbRoleSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.DeleteDbRoleSnapshotResponse:
        """See the .proto file."""
        ref = request.object
        self._catalog.drop_role(
            cluster=decode.cluster(ref), cluster_uid=ref.cluster_uid, namespace=ref.namespace, name=ref.name
        )
        return pb.DeleteDbRoleSnapshotResponse()

    def Quiesce(self, request: pb.QuiesceRequest, context: grpc.ServicerContext) -> pb.QuiesceResponse:
        """See the .proto file."""
        at, mount = decode.target_name(request.target), decode.mount(request.mount)
        count = self._quiescing.quiesce(
            at, mount=mount, connection=request.connection, end_leases=request.revoke_leases
        )
        quiesce_report = types_pb2.QuiesceReport(
            target=request.target,
            mount=mount,
            connection=request.connection,
            open_attempts=count.remaining,
            count_time=encode.timestamp(count.counted_at),
            valid_for=encode.duration(VALID_S),
        )
        return pb.QuiesceResponse(quiesce_report=quiesce_report, conditions=encode.conditions(count.conditions))

    def Resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.ResumeResponse:
        """See the .proto file."""
        self._quiescing.resume(
            decode.target_name(request.target), mount=decode.mount(request.mount), connection=request.connection
        )
        return pb.ResumeResponse()

    def WatchChanges(self, request: pb.WatchChangesRequest, context: grpc.ServicerContext) -> pb.WatchChangesResponse:
        """See the .proto file."""
        self._losses.observe_ledger_id(request.known_ledger_id)
        batch = self._feed.poll(
            request.cursor, owner=caller.current(), max_wait_s=decode.seconds(request.max_wait, field="max_wait")
        )
        cleanup_roles = [encode.cleanup_role_change(cleanup_role, row) for cleanup_role, row in batch.cleanup_roles]
        logins = [change_pb2.Change(vault_auth_needed=encode.target_ref(row)) for row in batch.logins]
        requests = [change_pb2.Change(access_request_changed=encode.object_ref(each)) for each in batch.requests]
        return pb.WatchChangesResponse(
            changes=[*cleanup_roles, *logins, *requests],
            next_cursor=batch.cursor,
            restarted=batch.restarted,
            ledger_id=self._losses.ledger_id,
            issuance_paused=self._losses.observe_ledger_id(
                request.known_ledger_id
            ),  # its loss may have been accepted meanwhile
            retry_after=None if batch.waited else encode.duration(POLL_AFTER_S),
        )

    def ReportCleanupRole(
        self, request: pb.ReportCleanupRoleRequest, context: grpc.ServicerContext
    ) -> pb.ReportCleanupRoleResponse:
        """See the .proto file."""
        self._catalog.report_cleanup_role(
            request.name, at=decode.target_name(request.target), error=request.error[:300]
        )
        return pb.ReportCleanupRoleResponse()
