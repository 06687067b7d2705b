"""Records of the domain as messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import access_request_pb2, approval_pb2, change_pb2, lease_pb2, watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.access.domain import names
from services.access.domain.decide import Acknowledge, Claim, NextStep, Remove, Wait
from services.access.domain.grant import Grant
from services.access.domain.models import (
    AccessRequest,
    Approval,
    Attempt,
    AttemptState,
    CleanupRole,
    CleanupRoleState,
    Decision,
    DropBy,
    Origin,
    VaultTargetRow,
)
from services.access.domain.request_view import AccessRequestView, AccessState, Condition
from services.access.leases.issue import Issued
from services.common.errors import LeasegateError
from services.common.logs import logger
from services.common.rpc import status

Row = TypeVar("Row")
Message = TypeVar("Message")
_LOG = logger(__name__)

_APPROVAL = {
    Approval.PENDING: approval_pb2.APPROVAL_STATE_PENDING,
    Approval.APPROVED: approval_pb2.APPROVAL_STATE_APPROVED,
    Approval.DENIED: approval_pb2.APPROVAL_STATE_DENIED,
    Approval.WITHDRAWN: approval_pb2.APPROVAL_STATE_WITHDRAWN,
    Approval.EXPIRED: approval_pb2.APPROVAL_STATE_EXPIRED,
}
_KIND = {Approval.APPROVED: approval_pb2.DECISION_KIND_APPROVED, Approval.DENIED: approval_pb2.DECISION_KIND_DENIED}
_ACCESS = {
    AccessState.NONE: access_request_pb2.ACCESS_STATE_NONE,
    AccessState.ISSUING: access_request_pb2.ACCESS_STATE_ISSUING,
    AccessState.ACTIVE: access_request_pb2.ACCESS_STATE_ACTIVE,
    AccessState.REVOKING: access_request_pb2.ACCESS_STATE_REVOKING,
    AccessState.CLOSED: access_request_pb2.ACCESS_STATE_CLOSED,
}
_NEXT_STEP: dict[type[NextStep], watcher_service_pb2.NextStep.ValueType] = {
    Wait: watcher_service_pb2.NEXT_STEP_NONE,
    Claim: watcher_service_pb2.NEXT_STEP_CLAIM,
    Acknowledge: watcher_service_pb2.NEXT_STEP_ACKNOWLEDGE,
    Remove: watcher_service_pb2.NEXT_STEP_REMOVE,
}
LEASE = {
    AttemptState.ISSUED: lease_pb2.LEASE_STATE_ISSUED,
    AttemptState.ACTIVE: lease_pb2.LEASE_STATE_ACTIVE,
    AttemptState.RETIRING: lease_pb2.LEASE_STATE_RETIRING,
    AttemptState.REPLACED: lease_pb2.LEASE_STATE_RETIRING,
    AttemptState.REVOKING: lease_pb2.LEASE_STATE_REVOKING,
    AttemptState.RECOVERING: lease_pb2.LEASE_STATE_REVOKING,
    AttemptState.CLOSED: lease_pb2.LEASE_STATE_CLOSED,
}


def timestamp(at: float | None) -> Timestamp | None:
    """A time; None stays None, which leaves a field unset."""
    if at is None:
        return None
    seconds = int(at)
    return Timestamp(seconds=seconds, nanos=int((at - seconds) * 1e9))


def duration(seconds: float | None) -> Duration | None:
    """A span; None stays None."""
    if seconds is None:
        return None
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def readable(encode: Callable[[Row], Message], found: Iterable[Row]) -> list[Message]:
    """Encode a list; one that cannot be encoded is left out, with a line in the log, and stops no other."""
    encoded: list[Message] = []
    for each in found:
        try:
            encoded.append(encode(each))
        except Exception:
            _LOG.exception("unreadable row left out of a list", kind=type(each).__name__)
    return encoded


def request(view: AccessRequestView) -> access_request_pb2.AccessRequest:
    """An access request, as its owner and its approvers see it."""
    r, active, granted = view.request, view.active, view.grant
    return access_request_pb2.AccessRequest(
        id=r.uid,
        object=object_ref(r),
        db_role=types_pb2.ObjectRef(
            cluster=r.cluster, cluster_uid=r.cluster_uid, namespace=r.role_namespace, name=r.role_name
        ),
        subjects=[
            access_request_pb2.Subject(kind=s.kind, api_group=s.api_group, name=s.name, namespace=s.namespace)
            for s in r.subjects
        ],
        ttl=duration(r.ttl_s),
        requester=r.requester,
        create_time=timestamp(r.created_at),
        approval_state=_APPROVAL[r.approval],
        access_state=_ACCESS[view.access],
        digest=view.digest,
        decisions=[_decision(d) for d in view.decisions],
        lease=lease(active) if active else None,
        active_attempt=active.sequence if active else 0,
        conditions=conditions(view.conditions()),
        expire_time=timestamp(r.ends_at),
        open_attempts=view.open_count,
        grant=_grant(granted) if granted else None,
    )


def _grant(found: Grant) -> access_request_pb2.Grant:
    """What an approval grants, in words."""
    role, words = found.db_role, found.db_role.words
    return access_request_pb2.Grant(
        vault=words.vault,
        mount=role.mount,
        vault_role=role.vault_role,
        connection=role.db_name,
        database=words.database,
        plugin=words.plugin,
        creation_statements=words.creation,
        revocation_statements=words.revocation,
        rollback_statements=words.rollback,
        renew_statements=words.renew,
        default_ttl=duration(role.default_ttl_s),
        max_ttl=duration(role.max_ttl_s),
        subjects=found.subjects,
        ttl=duration(found.ttl_s),
        reason=found.reason,
        ticket=found.ticket,
        omitted_characters=found.omitted,
    )


def object_ref(r: AccessRequest) -> types_pb2.ObjectRef | None:
    """The object in Kubernetes; None for an access request over gRPC."""
    if r.origin is Origin.GRPC:
        return None
    return types_pb2.ObjectRef(
        cluster=r.cluster,
        cluster_uid=r.cluster_uid,
        namespace=r.namespace,
        name=r.name,
        uid=r.uid,
        generation=r.generation,
    )


def _decision(d: Decision) -> approval_pb2.Decision:
    return approval_pb2.Decision(
        kind=_KIND[d.kind],
        approver=d.approver,
        proof=approval_pb2.ApproverProof.ValueType(d.proof),
        reason=d.reason,
        message=d.message,
        decide_time=timestamp(d.decided_at),
        digest=d.digest,
        self_approved=d.self_approved,
    )


def conditions(found: Iterable[Condition]) -> list[types_pb2.Condition]:
    """Conditions."""
    return [types_pb2.Condition(type=c.type, status=c.status, reason=c.reason, message=c.message) for c in found]


def lease(a: Attempt) -> lease_pb2.Lease:
    """The lease of an attempt."""
    return lease_pb2.Lease(
        handle=names.lease_handle(a.id),
        lease_id=a.lease_id,
        access_request_id=a.access_request_id,
        vault_role=a.vault_role,
        state=LEASE.get(a.state, lease_pb2.LEASE_STATE_REVOKING),
        attempt=a.sequence,
        renewable=a.renewable,
        issue_time=timestamp(a.issued_at),
        expire_time=timestamp(a.ends_at),
        renew_time=timestamp(a.renewed_at),
        max_expire_time=timestamp(a.max_ends_at),
        username=a.database_user,
        end_reason=a.end_reason,
        close_time=timestamp(a.closed_at),
        lock_time=timestamp(a.locked_out_at),
        revocation_error=a.error if a.state in (AttemptState.REVOKING, AttemptState.RECOVERING) else "",
    )


def credential(issued: Issued) -> lease_pb2.Credential:
    """A credential with its password, answered once."""
    a = issued.attempt
    return lease_pb2.Credential(attempt=a.sequence, username=a.database_user, password=issued.password, lease=lease(a))


def error(err: LeasegateError) -> Any:
    """An error as a part of an answer: the google.rpc.Status that a call of its own would fail with."""
    return status.to_any(err)


def next_step(step: NextStep) -> watcher_service_pb2.NextStep.ValueType:
    """What the watcher has to do next."""
    return _NEXT_STEP[type(step)]


def retry_after_s(step: NextStep, *, now: float) -> float | None:
    """When the watcher asks again at the latest, in seconds from now; None if the change feed says so."""
    return max(0.0, step.until - now) if isinstance(step, Wait) and step.until is not None else None


def target_ref(row: VaultTargetRow) -> types_pb2.VaultTargetRef:
    """A Vault, without any auth."""
    return types_pb2.VaultTargetRef(
        cluster=row.cluster,
        namespace=row.namespace,
        name=row.name,
        digest=row.key_digest,
        address=row.address,
        vault_namespace=row.vault_namespace,
        vault=row.entry,
    )


def cleanup_role_change(cleanup_role: CleanupRole, row: VaultTargetRow) -> change_pb2.Change:
    """A cleanup role that is needed, or not any more."""
    if cleanup_role.state is CleanupRoleState.UNNEEDED:
        unneeded = change_pb2.CleanupRoleUnneeded(
            name=cleanup_role.name, target=target_ref(row), mount=cleanup_role.mount
        )
        return change_pb2.Change(cleanup_role_unneeded=unneeded)
    needed = change_pb2.CleanupRoleNeeded(
        name=cleanup_role.name,
        target=target_ref(row),
        mount=cleanup_role.mount,
        connection=cleanup_role.db_name,
        revocation_statements=cleanup_role.revocation_statements,
        force_drop=cleanup_role.drop_by is not DropBy.TEAM,
        keep_owners=cleanup_role.drop_by is DropBy.UNOWNED,
    )
    return change_pb2.Change(cleanup_role_needed=needed)
