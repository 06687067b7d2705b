"""``leasegate.access.v1.WatcherService``: what Kubernetes says, and what the watcher has to do."""

from __future__ import annotations

import grpc

from leasegate.access.v1 import change_pb2, requester_service_pb2, watcher_service_pb2_grpc
from leasegate.access.v1 import watcher_service_pb2 as pb
from leasegate.types.v1 import types_pb2
from services.access.api import decode, encode
from services.access.api.clusters import WatcherClusters
from services.access.leases.ensure import AccessEnsurer
from services.access.ledger.guard import LedgerGuard
from services.access.requests.catalog import Catalog
from services.access.requests.changefeed import POLL_AFTER_S, ChangeFeed
from services.access.requests.quiesce import VALID_S, IssuancePauses
from services.access.requests.requests import AccessRequests
from services.access.vault.clients import VaultClients
from services.common.rpc import caller
from services.common.vault.pause_report import LeaseRevocation
from services.common.vault.target import VaultTarget

_REQUESTER_SERVICE = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"].full_name
_ERROR_CHARS = 300


class WatcherServicer(watcher_service_pb2_grpc.WatcherServiceServicer):
    """Decodes a message, calls one object, encodes the answer."""

    def __init__(
        self,
        requests: AccessRequests,
        catalog: Catalog,
        pauses: IssuancePauses,
        *,
        clusters: WatcherClusters,
        ensurer: AccessEnsurer,
        feed: ChangeFeed,
        vaults: VaultClients,
        guard: LedgerGuard,
    ) -> None:
        self._requests, self._catalog, self._pauses = requests, catalog, pauses
        self._clusters, self._ensurer, self._feed = clusters, ensurer, feed
        self._vaults, self._guard = vaults, guard

    def EnsureAccessRequest(
        self, request: pb.EnsureAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.EnsureAccessRequestResponse:
        """Take in an access request of Kubernetes; a caller who may call RequesterService gets its credential, too."""
        self._clusters.admit(request)
        claim = request.claim and caller.may_call(_REQUESTER_SERVICE)
        ensured = self._ensurer.ensure_request(
            decode.desired(request), owner=caller.current(), secret_attempt=request.secret_attempt, claim=claim
        )
        return pb.EnsureAccessRequestResponse(
            access_request=encode.request(ensured.view),
            next_step=encode.next_step(ensured.next_step),
            retry_after=encode.duration(encode.retry_after_s(ensured.next_step, now=ensured.view.now)),
            credential=encode.credential(ensured.issued) if ensured.issued else None,
            claim_error=encode.error(ensured.refused) if ensured.refused else None,
        )

    def DeleteAccessRequest(
        self, request: pb.DeleteAccessRequestRequest, context: grpc.ServicerContext
    ) -> pb.DeleteAccessRequestResponse:
        """End access, and answer what is left to be dropped."""
        self._clusters.admit(request)
        view = self._requests.delete_request(decode.deleted(request.object), owner=caller.current())
        pending = view.revocation_pending()
        return pb.DeleteAccessRequestResponse(
            open_attempts=view.open_count, conditions=encode.conditions([pending] if pending else [])
        )

    def EnsureVaultTarget(
        self, request: pb.EnsureVaultTargetRequest, context: grpc.ServicerContext
    ) -> pb.EnsureVaultTargetResponse:
        """Take in a Vault and its auth, and answer whether the service has its own auth there."""
        self._clusters.admit(request)
        row = self._catalog.put_target(VaultTarget.from_proto(request.target))
        return pb.EnsureVaultTargetResponse(target=encode.target_ref(row), service_auth=self._vaults.service_auth(row))

    def PutDbRoleSnapshot(
        self, request: pb.PutDbRoleSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.PutDbRoleSnapshotResponse:
        """Take in a db_role as the role service wrote it."""
        at = self._at(request.snapshot.target, cluster_uid=self._clusters.admit(request))
        paused = self._catalog.put_role(
            decode.db_role(request.snapshot, at=at),
            at=at,
            pause_number=request.pause_number,
            caller=caller.current(),
        )
        return pb.PutDbRoleSnapshotResponse(paused=paused)

    def DeleteDbRoleSnapshot(
        self, request: pb.DeleteDbRoleSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.DeleteDbRoleSnapshotResponse:
        """Delete a db_role from the catalog."""
        self._clusters.admit(request)
        ref = request.object
        self._catalog.drop_role(
            cluster=decode.cluster(ref),
            cluster_uid=ref.cluster_uid,
            namespace=ref.namespace,
            name=ref.name,
            not_allowed=request.not_allowed[:_ERROR_CHARS],
        )
        return pb.DeleteDbRoleSnapshotResponse()

    def PauseDbRoles(self, request: pb.PauseDbRolesRequest, context: grpc.ServicerContext) -> pb.PauseDbRolesResponse:
        """Pause db_roles, and report the calls under way."""
        cluster_uid, mount = self._clusters.admit(request), decode.mount(request.mount)
        at = self._at(request.target, cluster_uid=cluster_uid)
        paused = self._pauses.pause_db_roles(
            at,
            mount=mount,
            connection=request.connection,
            vault_role=request.vault_role,
            revocation=LeaseRevocation.from_proto(request.revocation) if request.HasField("revocation") else None,
            caller=caller.current(),
        )
        report = types_pb2.PauseReport(
            target=at.ref(),
            mount=mount,
            connection=request.connection,
            vault_role=request.vault_role,
            calls_under_way=paused.under_way,
            count_time=encode.timestamp(paused.counted_at),
            valid_for=encode.duration(VALID_S),
            revocation=request.revocation if request.HasField("revocation") else None,
            leases_revoked_otherwise=paused.revoked_otherwise,
        )
        return pb.PauseDbRolesResponse(
            pause_report=report, pause_number=paused.number, conditions=encode.conditions(paused.conditions)
        )

    def Quiesce(self, request: pb.QuiesceRequest, context: grpc.ServicerContext) -> pb.QuiesceResponse:
        """Pause issuance at a mount or connection, and report what is left."""
        cluster_uid = self._clusters.admit(request)
        at, mount = self._at(request.target, cluster_uid=cluster_uid), decode.mount(request.mount)
        count = self._pauses.quiesce(
            at, mount=mount, connection=request.connection, revoke_leases=request.revoke_leases
        )
        quiesce_report = types_pb2.QuiesceReport(
            target=at.ref(),
            mount=mount,
            connection=request.connection,
            open_attempts=count.remaining,
            count_time=encode.timestamp(count.counted_at),
            valid_for=encode.duration(VALID_S),
        )
        return pb.QuiesceResponse(quiesce_report=quiesce_report, conditions=encode.conditions(count.conditions))

    def Resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.ResumeResponse:
        """Resume issuance, but for db_roles that wait for a snapshot."""
        cluster_uid = self._clusters.admit(request)
        waiting = self._pauses.resume(
            self._at(request.target, cluster_uid=cluster_uid),
            mount=decode.mount(request.mount),
            connection=request.connection,
            written=request.connection_written,
        )
        return pb.ResumeResponse(paused_db_roles=waiting)

    def WatchChanges(self, request: pb.WatchChangesRequest, context: grpc.ServicerContext) -> pb.WatchChangesResponse:
        """Wait for changes."""
        cluster_uid = self._clusters.admit(request)
        self._guard.observe_ledger_id(request.known_ledger_id, cluster_uid=cluster_uid)
        batch = self._feed.poll(
            request.cursor,
            owner=caller.current(),
            cluster_uid=cluster_uid,
            max_wait_s=decode.seconds(request.max_wait, field="max_wait"),
        )
        cleanup_roles = [encode.cleanup_role_change(cleanup_role, row) for cleanup_role, row in batch.cleanup_roles]
        missing_auths = [change_pb2.Change(vault_auth_needed=encode.target_ref(row)) for row in batch.missing_auths]
        requests = [change_pb2.Change(access_request_changed=encode.object_ref(each)) for each in batch.requests]
        return pb.WatchChangesResponse(
            changes=[*cleanup_roles, *missing_auths, *requests],
            next_cursor=batch.cursor,
            restarted=batch.restarted,
            ledger_id=self._guard.ledger_id,
            issuance_paused=self._guard.observe_ledger_id(
                request.known_ledger_id, cluster_uid=cluster_uid
            ),  # its loss may have been accepted meanwhile
            retry_after=None if batch.waited else encode.duration(POLL_AFTER_S),
        )

    def ReportCleanupRole(
        self, request: pb.ReportCleanupRoleRequest, context: grpc.ServicerContext
    ) -> pb.ReportCleanupRoleResponse:
        """Store that a cleanup role exists, or why not."""
        at = self._at(request.target, cluster_uid=self._clusters.admit(request))
        self._catalog.report_cleanup_role(
            request.name, at=at, digest=request.target.digest, error=request.error[:_ERROR_CHARS]
        )
        return pb.ReportCleanupRoleResponse()

    def _at(self, ref: types_pb2.VaultTargetRef, *, cluster_uid: str) -> VaultTarget:
        """The Vault that a caller refers to, as the operator's file names it."""
        return self._vaults.resolve(decode.target(ref, cluster_uid=cluster_uid))
