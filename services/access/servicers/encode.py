"""Values of the domain as messages."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import approval_pb2, lease_pb2, request_pb2, watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.access import naming
from services.access.issuing import Issued
from services.access.records import Adopter, AdopterState, Approval, Attempt, Decision, Origin, Request, State, TargetRow
from services.access.view import Access, Condition, Step, View
from services.common.errors import LeasegateError
from services.common.rpc import status

_APPROVAL = {
    Approval.PENDING: approval_pb2.APPROVAL_STATE_PENDING,
    Approval.APPROVED: approval_pb2.APPROVAL_STATE_APPROVED,
    Approval.DENIED: approval_pb2.APPROVAL_STATE_DENIED,
    Approval.WITHDRAWN: approval_pb2.APPROVAL_STATE_WITHDRAWN,
    Approval.EXPIRED: approval_pb2.APPROVAL_STATE_EXPIRED,
}
_KIND = {Approval.APPROVED: approval_pb2.DECISION_KIND_APPROVED, Approval.DENIED: approval_pb2.DECISION_KIND_DENIED}
_ACCESS = {
    Access.NONE: request_pb2.ACCESS_STATE_NONE,
    Access.ISSUING: request_pb2.ACCESS_STATE_ISSUING,
    Access.ACTIVE: request_pb2.ACCESS_STATE_ACTIVE,
    Access.ENDING: request_pb2.ACCESS_STATE_ENDING,
    Access.ENDED: request_pb2.ACCESS_STATE_ENDED,
}
_STEP = {
    Step.NONE: watcher_service_pb2.NEXT_STEP_NONE,
    Step.CLAIM: watcher_service_pb2.NEXT_STEP_CLAIM,
    Step.ACKNOWLEDGE: watcher_service_pb2.NEXT_STEP_ACKNOWLEDGE,
    Step.REMOVE: watcher_service_pb2.NEXT_STEP_REMOVE,
}
LEASE = {
    State.ISSUED: lease_pb2.LEASE_STATE_ISSUED,
    State.ACTIVE: lease_pb2.LEASE_STATE_ACTIVE,
    State.OLD: lease_pb2.LEASE_STATE_SUPERSEDED,
    State.SUPERSEDED: lease_pb2.LEASE_STATE_SUPERSEDED,
    State.END: lease_pb2.LEASE_STATE_ENDING,
    State.UNDOING: lease_pb2.LEASE_STATE_ENDING,
    State.CLOSED: lease_pb2.LEASE_STATE_ENDED,
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


def request(view: View) -> request_pb2.AccessRequest:
    """A request, as its owner and approvers see it."""
    r, active = view.request, view.active
    return request_pb2.AccessRequest(
        id=r.uid,
        object=object_ref(r),
        role=types_pb2.ObjectRef(cluster=r.cluster, cluster_uid=r.cluster_uid, namespace=r.role_namespace, name=r.role_name),
        subjects=[request_pb2.Subject(kind=s.kind, api_group=s.api_group, name=s.name, namespace=s.namespace) for s in r.subjects],
        ttl=duration(r.ttl_s),
        requester=r.requester,
        create_time=timestamp(r.created_at),
        approval=_APPROVAL[r.approval],
        access=_ACCESS[view.access],
        digest=view.digest,
        decisions=[_decision(d) for d in view.decisions],
        lease=lease(active) if active else None,
        active_attempt=active.number if active else 0,
        conditions=conditions(view.conditions()),
        end_time=timestamp(r.ends_at),
        open_attempts=view.open_count,
    )


def object_ref(r: Request) -> types_pb2.ObjectRef | None:
    """The object in Kubernetes; None for a request over gRPC."""
    if r.origin is Origin.GRPC:
        return None
    return types_pb2.ObjectRef(
        cluster=r.cluster, cluster_uid=r.cluster_uid, namespace=r.namespace, name=r.name, uid=r.uid, generation=r.generation
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
        handle=naming.lease_handle(a.id),
        lease_id=a.lease_id,
        request=a.request,
        role=a.vault_role,
        state=LEASE.get(a.state, lease_pb2.LEASE_STATE_ENDING),
        attempt=a.number,
        renewable=a.renewable,
        issue_time=timestamp(a.issued_at),
        expire_time=timestamp(a.ends_at),
        renew_time=timestamp(a.renewed_at),
        max_expire_time=timestamp(a.max_ends_at),
        username=a.login,
        end_reason=a.why,
        end_time=timestamp(a.closed_at),
    )


def credential(issued: Issued) -> lease_pb2.Credential:
    """A credential with its password, to be answered once."""
    a = issued.attempt
    return lease_pb2.Credential(attempt=a.number, username=a.login, password=issued.password, lease=lease(a))


def error(err: LeasegateError) -> Any:
    """An error within an answer: the google.rpc.Status with which a call of its own would fail."""
    return status.to_any(err)


def step(found: Step) -> watcher_service_pb2.NextStep.ValueType:
    """What the watcher has to do next."""
    return _STEP[found]


def target_ref(row: TargetRow) -> types_pb2.TargetRef:
    """A Vault, without any login."""
    return types_pb2.TargetRef(
        cluster=row.cluster,
        namespace=row.namespace,
        name=row.name,
        digest=row.key_digest,
        address=row.address,
        vault_namespace=row.vault_namespace,
    )


def adopter_change(adopter: Adopter, row: TargetRow) -> watcher_service_pb2.Change:
    """An adopter that is needed, or needed no longer."""
    if adopter.state is AdopterState.UNNEEDED:
        gone = watcher_service_pb2.AdopterUnneeded(name=adopter.name, target=target_ref(row), mount=adopter.mount)
        return watcher_service_pb2.Change(adopter_unneeded=gone)
    needed = watcher_service_pb2.AdopterNeeded(
        name=adopter.name,
        target=target_ref(row),
        mount=adopter.mount,
        db_name=adopter.db_name,
        revocation_statements=adopter.revocation_statements,
        finish=adopter.finish,
    )
    return watcher_service_pb2.Change(adopter_needed=needed)
