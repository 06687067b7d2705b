"""Plays the three services in memory: answers as the watcher sees them, and errors on demand.

Their methods take ``timeout`` like a stub's and ``context`` like a servicer's, so that the same objects stand in for
stubs in unit tests and are served by gRPC in integration tests. They know of Vault only what a caller can see.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from leasegate.access.v1 import (
    access_request_pb2,
    approval_pb2,
    change_pb2,
    lease_pb2,
    requester_service_pb2,
    watcher_service_pb2,
)
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import db_role_pb2, role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import (
    AccessEndedError,
    ApprovalRequiredError,
    ChangeDueError,
    ConflictError,
    LeasegateError,
    LeasesInUseError,
    SnapshotStaleError,
)
from services.common.names import DEFAULT_PLUGIN, vault_name
from services.common.rpc import status
from watcher.specs.appbinding import target_ref

EXPIRES = 2_000_000_000
"""Unix time at which every lease of these ends; it was issued an hour before."""


class Script:
    """Records calls, and raises or answers what a test says."""

    def __init__(self) -> None:
        self.calls: list[Message] = []
        self.errors: dict[str, list[LeasegateError]] = {}
        self.always: dict[str, LeasegateError] = {}
        self.before: Callable[[str], None] = lambda _method: None

    def fail(self, method: str, *errors: LeasegateError) -> None:
        """Have the next calls of a method fail, once each."""
        self.errors.setdefault(method, []).extend(errors)

    def fail_always(self, method: str, error: LeasegateError | None) -> None:
        """Have a method fail until this is called with None."""
        if error is None:
            self.always.pop(method, None)
        else:
            self.always[method] = error

    def asked(self, kind: type[Message]) -> list[Any]:
        """The requests of one kind, oldest first."""
        return [call for call in self.calls if isinstance(call, kind)]

    def enter(self, method: str, request: Message) -> None:
        """Note a call, and fail if it is to."""
        copy = type(request)()
        copy.CopyFrom(request)
        self.calls.append(copy)
        self.before(method)
        if queued := self.errors.get(method):
            raise queued.pop(0)
        if method in self.always:
            raise self.always[method]


class PlayedEngine(Script):
    """Mounts by address and path, with their owners and connections."""

    def __init__(self) -> None:
        super().__init__()
        self.mounts: dict[tuple[str, str], set[str]] = {}
        self.server: engine_service_pb2.VaultServer | None = None
        self.connections: dict[tuple[str, str, str], types_pb2.Database] = {}

    def EnsureEngine(
        self, request: engine_service_pb2.EnsureEngineRequest, context: Any = None, timeout: float | None = None
    ) -> engine_service_pb2.EnsureEngineResponse:
        self.enter("EnsureEngine", request)
        place, name = (request.target.address, request.mount), request.postgres.name
        known = self.connections.get((*place, name))
        moved = known is not None and _where(known) != _where(request.postgres.database)
        put_back = request.last_database == _where(request.postgres.database)
        if (
            moved
            and not put_back
            and request.same_database_moved != _where(request.postgres.database)
            and not request.HasField("quiesce_report")
        ):
            raise LeasesInUseError("the database can change only once nothing depends on it", mount=request.mount)
        redirected = known is None or _where(known) != _where(request.postgres.database)
        if place in self.mounts and redirected and not request.HasField("pause_report"):
            raise ChangeDueError("the connection can be written only once access has paused it", mount=request.mount)
        owner = f"{request.owner.namespace}/{request.owner.name}"
        changed = owner not in self.mounts.get(place, set()) or known != request.postgres.database
        self.mounts.setdefault(place, set()).add(owner)
        self.connections[*place, name] = request.postgres.database
        return engine_service_pb2.EnsureEngineResponse(
            target=target_ref(request.target),
            mount=request.mount,
            connection=name,
            ownership=engine_service_pb2.MOUNT_OWNERSHIP_OWNED,
            changed=changed,
            drift_corrected=put_back and (known is None or moved),
            database=_where(request.postgres.database),
            plugin=request.postgres.plugin_name or DEFAULT_PLUGIN,
            vault_server=self.server,
        )

    def DeleteEngine(
        self, request: engine_service_pb2.DeleteEngineRequest, context: Any = None, timeout: float | None = None
    ) -> engine_service_pb2.DeleteEngineResponse:
        self.enter("DeleteEngine", request)
        place = (request.target.address, request.mount)
        if request.connection_only:
            if not request.HasField("quiesce_report") or request.quiesce_report.open_attempts:
                raise LeasesInUseError("leases may be left", mount=request.mount)
            self.connections.pop((*place, request.connection), None)
            return engine_service_pb2.DeleteEngineResponse(remaining_owners=sorted(self.mounts.get(place, ())))
        owners = self.mounts.get(place, set()) - {f"{request.owner.namespace}/{request.owner.name}"}
        whole = not owners
        if place in self.mounts and (whole or not request.connection_shared):
            asked = request.quiesce_report
            if not request.HasField("quiesce_report") or asked.open_attempts or (whole and asked.connection):
                raise LeasesInUseError("leases may be left", mount=request.mount)
        if whole:
            self.mounts.pop(place, None)
            self.connections = {key: value for key, value in self.connections.items() if key[:2] != place}
        else:
            self.mounts[place] = owners
        return engine_service_pb2.DeleteEngineResponse(unmounted=whole, remaining_owners=sorted(owners))


def _where(database: types_pb2.Database) -> str:
    return database.url or f"{database.service.host}:{database.service.port}/{database.service.path}"


class PlayedRoles(Script):
    """Roles by address, mount and name; cleanup roles by name."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: dict[tuple[str, str, str], db_role_pb2.DbRoleDefinition] = {}
        self.cleanup_roles: set[str] = set()

    def EnsureDbRole(
        self, request: role_service_pb2.EnsureDbRoleRequest, context: Any = None, timeout: float | None = None
    ) -> role_service_pb2.EnsureDbRoleResponse:
        self.enter("EnsureDbRole", request)
        name = vault_name(request.owner.cluster, request.owner.namespace, request.owner.name)
        place = (request.target.address, request.mount, name)
        known = self.roles.get(place)
        before = request.last_db_name or (known.db_name if known else "")
        if before and before != request.definition.db_name and not request.HasField("quiesce_report"):
            raise LeasesInUseError("db_name can change only once nothing depends on it", mount=request.mount)
        if known != request.definition and not request.HasField("pause_report"):
            raise ChangeDueError("the role can be written only once access has paused it", mount=request.mount)
        self.roles[place] = request.definition
        snapshot = db_role_pb2.DbRoleSnapshot(
            object=request.owner,
            target=target_ref(request.target),
            mount=request.mount,
            vault_role=name,
            definition=request.definition,
        )
        snapshot.digest = f"{abs(hash(request.definition.SerializeToString(deterministic=True))):064x}"
        return role_service_pb2.EnsureDbRoleResponse(snapshot=snapshot, changed=known != request.definition)

    def DeleteDbRole(
        self, request: role_service_pb2.DeleteDbRoleRequest, context: Any = None, timeout: float | None = None
    ) -> role_service_pb2.DeleteDbRoleResponse:
        self.enter("DeleteDbRole", request)
        name = vault_name(request.owner.cluster, request.owner.namespace, request.owner.name)
        self.roles.pop((request.target.address, request.mount, name), None)
        return role_service_pb2.DeleteDbRoleResponse()

    def EnsureCleanupRole(
        self, request: role_service_pb2.EnsureCleanupRoleRequest, context: Any = None, timeout: float | None = None
    ) -> role_service_pb2.EnsureCleanupRoleResponse:
        self.enter("EnsureCleanupRole", request)
        self.cleanup_roles.add(request.name)
        return role_service_pb2.EnsureCleanupRoleResponse()

    def DeleteCleanupRole(
        self, request: role_service_pb2.DeleteCleanupRoleRequest, context: Any = None, timeout: float | None = None
    ) -> role_service_pb2.DeleteCleanupRoleResponse:
        self.enter("DeleteCleanupRole", request)
        self.cleanup_roles.discard(request.name)
        return role_service_pb2.DeleteCleanupRoleResponse()


@dataclass
class Asked:
    """A request as access keeps it."""

    spec: watcher_service_pb2.EnsureAccessRequestRequest
    decisions: list[approval_pb2.Decision] = field(default_factory=list)
    approved_elsewhere: bool = False
    attempt: int = 0
    active: int = 0
    ended: bool = False
    open: int = 0

    @property
    def is_decided(self) -> bool:
        """Whether somebody decided, by a condition of the object or over gRPC."""
        return bool(self.decisions) or self.approved_elsewhere


class PlayedAccess(Script):
    """Requests by uid, roles by place, and everything that the watcher sent.

    It serves both the watcher's and the requesters' side.

    Attributes:
        requests: By uid. EnsureAccessRequest claims if it is asked to; a claim counts, and fails, as ClaimCredential.
        rpcs: How often it was called from outside to ensure or to claim.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, Asked] = {}
        self.roles: dict[tuple[str, str], str] = {}
        self.targets: dict[tuple[str, str], types_pb2.VaultTarget] = {}
        self.paused: set[tuple[str, str]] = set()
        self.pauses: dict[str, int] = {}  # numbers, by name of the role in Vault
        self.role_pauses: set[str] = set()
        self.changing: set[tuple[str, str]] = set()
        self.under_way = self.waiting = self.revoked_otherwise = 0
        self.reports: list[watcher_service_pb2.ReportCleanupRoleRequest] = []
        self.remaining = 0
        self.stuck = False
        self.conditions: list[types_pb2.Condition] = []
        self.ledger, self.issuance_paused = "one", False
        self.rpcs: Counter[str] = Counter()
        self.step: watcher_service_pb2.NextStep.ValueType | None = None
        self._number = itertools.count(1)
        self._changes: list[change_pb2.Change] = []
        self._changed = threading.Condition()

    def EnsureVaultTarget(
        self, request: watcher_service_pb2.EnsureVaultTargetRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.EnsureVaultTargetResponse:
        self.enter("EnsureVaultTarget", request)
        self.targets[request.target.source.namespace, request.target.source.name] = request.target
        return watcher_service_pb2.EnsureVaultTargetResponse(target=target_ref(request.target), service_auth=True)

    def PutDbRoleSnapshot(
        self, request: watcher_service_pb2.PutDbRoleSnapshotRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.PutDbRoleSnapshotResponse:
        self.enter("PutDbRoleSnapshot", request)
        name = request.snapshot.vault_role
        if request.pause_number != self.pauses.get(name, 0):
            raise SnapshotStaleError("take another snapshot", pause_number=str(self.pauses[name]))
        if (request.snapshot.mount, request.snapshot.definition.db_name) in self.changing:
            return watcher_service_pb2.PutDbRoleSnapshotResponse(paused=True)
        self.role_pauses.discard(name)
        self.roles[request.snapshot.object.namespace, request.snapshot.object.name] = request.snapshot.digest
        return watcher_service_pb2.PutDbRoleSnapshotResponse()

    def DeleteDbRoleSnapshot(
        self,
        request: watcher_service_pb2.DeleteDbRoleSnapshotRequest,
        context: Any = None,
        timeout: float | None = None,
    ) -> watcher_service_pb2.DeleteDbRoleSnapshotResponse:
        self.enter("DeleteDbRoleSnapshot", request)
        self.roles.pop((request.object.namespace, request.object.name), None)
        return watcher_service_pb2.DeleteDbRoleSnapshotResponse()

    def PauseDbRoles(
        self, request: watcher_service_pb2.PauseDbRolesRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.PauseDbRolesResponse:
        self.enter("PauseDbRoles", request)
        if request.vault_role:
            self.pauses[request.vault_role] = self.pauses.get(request.vault_role, 0) + 1
            self.role_pauses.add(request.vault_role)
        else:
            self.changing.add((request.mount, request.connection))
        report = types_pb2.PauseReport(
            target=request.target,
            mount=request.mount,
            connection=request.connection,
            vault_role=request.vault_role,
            calls_under_way=self.under_way,
            revocation=request.revocation if request.HasField("revocation") else None,
            leases_revoked_otherwise=self.revoked_otherwise,
        )
        changing = types_pb2.Condition(type="RoleChanging", status=True, reason="RolePaused", message="it is changing")
        return watcher_service_pb2.PauseDbRolesResponse(
            pause_report=report, pause_number=self.pauses.get(request.vault_role, 0), conditions=[changing]
        )

    def Quiesce(
        self, request: watcher_service_pb2.QuiesceRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.QuiesceResponse:
        self.enter("Quiesce", request)
        self.paused.add((request.mount, request.connection))
        answer = types_pb2.QuiesceReport(
            target=request.target, mount=request.mount, connection=request.connection, open_attempts=self.remaining
        )
        return watcher_service_pb2.QuiesceResponse(quiesce_report=answer)

    def Resume(
        self, request: watcher_service_pb2.ResumeRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.ResumeResponse:
        self.enter("Resume", request)
        self.paused.discard((request.mount, request.connection))
        if request.connection_written:
            self.changing.discard((request.mount, request.connection))
        return watcher_service_pb2.ResumeResponse(paused_db_roles=self.waiting)

    def EnsureAccessRequest(
        self, request: watcher_service_pb2.EnsureAccessRequestRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.EnsureAccessRequestResponse:
        self.rpcs["EnsureAccessRequest"] += 1
        self.enter("EnsureAccessRequest", request)
        known = self.requests.setdefault(request.object.uid, Asked(request))
        known.spec = request
        known.decisions = list(request.decisions)
        answer = watcher_service_pb2.EnsureAccessRequestResponse(
            access_request=self._show(known), next_step=self._step(known, request.secret_attempt)
        )
        if request.claim and answer.next_step == watcher_service_pb2.NEXT_STEP_CLAIM:
            claim = requester_service_pb2.ClaimCredentialRequest(
                access_request_id=request.object.uid, known_attempt=request.secret_attempt
            )
            try:
                answer.credential.CopyFrom(self._claim(claim))
            except LeasegateError as err:
                answer.claim_error.Pack(status.to_status(err))
        return answer

    def DeleteAccessRequest(
        self, request: watcher_service_pb2.DeleteAccessRequestRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.DeleteAccessRequestResponse:
        self.enter("DeleteAccessRequest", request)
        known = self.requests.get(request.object.uid)
        if known is None:
            return watcher_service_pb2.DeleteAccessRequestResponse()
        known.ended = True
        known.open = known.open if self.stuck else 0
        return watcher_service_pb2.DeleteAccessRequestResponse(open_attempts=known.open)

    def ReportCleanupRole(
        self, request: watcher_service_pb2.ReportCleanupRoleRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.ReportCleanupRoleResponse:
        self.enter("ReportCleanupRole", request)
        self.reports.append(request)
        return watcher_service_pb2.ReportCleanupRoleResponse()

    def WatchChanges(
        self, request: watcher_service_pb2.WatchChangesRequest, context: Any = None, timeout: float | None = None
    ) -> watcher_service_pb2.WatchChangesResponse:
        self.enter("WatchChanges", request)
        since = int(request.cursor or 0)
        with self._changed:
            if request.cursor:
                self._changed.wait_for(lambda: len(self._changes) > since, timeout=min(request.max_wait.seconds, 1))
            found, end = self._changes[since:], len(self._changes)
        return watcher_service_pb2.WatchChangesResponse(
            changes=found,
            next_cursor=str(end),
            restarted=not request.cursor,
            ledger_id=self.ledger,
            issuance_paused=self.issuance_paused,
        )

    def ClaimCredential(
        self, request: requester_service_pb2.ClaimCredentialRequest, context: Any = None, timeout: float | None = None
    ) -> requester_service_pb2.ClaimCredentialResponse:
        self.rpcs["ClaimCredential"] += 1
        return requester_service_pb2.ClaimCredentialResponse(credential=self._claim(request))

    def _claim(self, request: requester_service_pb2.ClaimCredentialRequest) -> lease_pb2.Credential:
        self.enter("ClaimCredential", request)
        known = self.requests[request.access_request_id]
        if known.ended or self._denied(known):
            raise AccessEndedError("it has ended", request=request.access_request_id)
        if not known.is_decided:
            raise ApprovalRequiredError("it is not approved", request=request.access_request_id)
        known.attempt, known.open = next(self._number), known.open + 1
        return lease_pb2.Credential(
            attempt=known.attempt,
            username=f"user-{known.attempt}",
            password=f"password-{known.attempt}",
            lease=_lease(known.attempt),
        )

    def AcknowledgeCredential(
        self,
        request: requester_service_pb2.AcknowledgeCredentialRequest,
        context: Any = None,
        timeout: float | None = None,
    ) -> requester_service_pb2.AcknowledgeCredentialResponse:
        self.enter("AcknowledgeCredential", request)
        known = self.requests[request.access_request_id]
        if request.attempt != known.attempt:
            raise ConflictError("a later attempt was made", request=request.access_request_id)
        known.active = request.attempt
        return requester_service_pb2.AcknowledgeCredentialResponse(access_request=self._show(known))

    def ListAccessRequests(
        self,
        request: requester_service_pb2.ListAccessRequestsRequest,
        context: Any = None,
        timeout: float | None = None,
    ) -> requester_service_pb2.ListAccessRequestsResponse:
        self.enter("ListAccessRequests", request)
        return requester_service_pb2.ListAccessRequestsResponse(
            access_requests=[self._show(known) for known in self.requests.values()]
        )

    def publish(self, **change: Any) -> None:
        """Put a change on the feed."""
        with self._changed:
            self._changes.append(change_pb2.Change(**change))
            self._changed.notify_all()

    def digest(self, uid: str) -> str:
        """Digest of what a request would be granted now."""
        return self._show(self.requests[uid]).digest

    def _step(self, known: Asked, secret_attempt: int) -> watcher_service_pb2.NextStep.ValueType:
        if self.step is not None:
            return self.step
        if known.ended or self._denied(known):
            known.active = 0
            return watcher_service_pb2.NEXT_STEP_REMOVE
        if not known.is_decided or not self._role(known):
            return watcher_service_pb2.NEXT_STEP_NONE
        if known.active and secret_attempt == known.active:
            return watcher_service_pb2.NEXT_STEP_NONE
        if secret_attempt and secret_attempt == known.attempt:
            return watcher_service_pb2.NEXT_STEP_ACKNOWLEDGE
        return watcher_service_pb2.NEXT_STEP_CLAIM

    def _show(self, known: Asked) -> access_request_pb2.AccessRequest:
        approval = approval_pb2.APPROVAL_STATE_PENDING
        if known.is_decided:
            approval = (
                approval_pb2.APPROVAL_STATE_DENIED if self._denied(known) else approval_pb2.APPROVAL_STATE_APPROVED
            )
        role = self._role(known)
        return access_request_pb2.AccessRequest(
            id=known.spec.object.uid,
            object=_shown(known.spec.object),
            approval_state=approval,
            access_state=access_request_pb2.ACCESS_STATE_CLOSED
            if known.ended
            else access_request_pb2.ACCESS_STATE_ACTIVE,
            digest=digest_of(role) if role else "",
            lease=_lease(known.active) if known.active and not known.ended else None,
            active_attempt=known.active,
            conditions=self.conditions,
            open_attempts=known.open,
        )

    def _role(self, known: Asked) -> str:
        return self.roles.get((known.spec.db_role.namespace, known.spec.db_role.name), "")

    @staticmethod
    def _denied(known: Asked) -> bool:
        return any(decision.kind == approval_pb2.DECISION_KIND_DENIED for decision in known.decisions)


def _shown(ref: types_pb2.ObjectRef) -> types_pb2.ObjectRef:
    """An object as access names it: a cluster without a name is ``-``."""
    shown = types_pb2.ObjectRef()
    shown.CopyFrom(ref)
    shown.cluster = ref.cluster or "-"
    return shown


def digest_of(role: str) -> str:
    """The digest of what an approval grants, by the role's digest."""
    return hashlib.sha256(role.encode()).hexdigest()


def _lease(attempt: int) -> lease_pb2.Lease:
    return lease_pb2.Lease(
        lease_id=f"mount/creds/role/lease-{attempt}",
        attempt=attempt,
        renewable=True,
        issue_time=timestamp_pb2.Timestamp(seconds=EXPIRES - 3600),
        expire_time=timestamp_pb2.Timestamp(seconds=EXPIRES),
    )
