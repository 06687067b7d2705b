"""DatabaseAccessRequest: the access that it asks for, and the decisions that approvers wrote into its status. Pure."""

from __future__ import annotations

import datetime

from google.protobuf import timestamp_pb2

from leasegate.access.v1 import access_request_pb2, approval_pb2, watcher_service_pb2
from watcher.kube.resources import Body, annotation, key_of
from watcher.specs.cluster import Cluster
from watcher.specs.fields import Fields
from watcher.specs.kinds import ON_BEHALF_OF, REQUESTED_BY, VERIFIED_BY
from watcher.specs.references import db_role_ref
from watcher.specs.status import RequestStatus, decision_conditions

DECISION_KINDS = {"Approved": approval_pb2.DECISION_KIND_APPROVED, "Denied": approval_pb2.DECISION_KIND_DENIED}
MESSAGE_CHARS = 1024


def ensure_access_request(
    obj: Body, cluster: Cluster, *, secret_attempt: int
) -> watcher_service_pb2.EnsureAccessRequestRequest:
    """Read a DatabaseAccessRequest with its decisions.

    Args:
        obj: The object.
        cluster: Where it is.
        secret_attempt: Number of the attempt that its Secret holds unharmed; 0 for none.

    Raises:
        SpecInvalidError: Names each wrong field.
    """
    spec, own = Fields(obj.get("spec"), "spec"), key_of(obj).namespace
    found = watcher_service_pb2.EnsureAccessRequestRequest(
        object=cluster.ref(obj),
        db_role=cluster.place(db_role_ref(spec, own=own)),
        subjects=[access_request_pb2.Subject(**subject) for subject in _subjects(obj, spec)],
        ttl=spec.duration("ttl"),
        requester=annotation(obj, REQUESTED_BY),
        on_behalf_of=annotation(obj, ON_BEHALF_OF),
        verified_by=annotation(obj, VERIFIED_BY),
        decisions=decisions(obj),
        status_digest=RequestStatus.from_object(obj).digest,
        secret_attempt=secret_attempt,
        reason=spec.text("reason"),
        ticket=spec.text("ticket"),
    )
    spec.check()
    return found


def decisions(obj: Body) -> list[approval_pb2.Decision]:
    """The conditions Approved and Denied in the order of the status, as they stand."""
    requester = annotation(obj, REQUESTED_BY)
    return [_decision(condition, requester) for condition in decision_conditions(obj)]


def binding_subjects(obj: Body) -> list[Body]:
    """The subjects of a DatabaseAccessRequest as a RoleBinding takes them.

    Raises:
        SpecInvalidError: A subject is wrong.
    """
    spec = Fields(obj.get("spec"), "spec")
    named = {"kind": "kind", "api_group": "apiGroup", "name": "name", "namespace": "namespace"}
    found = [{named[field]: value for field, value in subject.items() if value} for subject in _subjects(obj, spec)]
    spec.check()
    return found


def _subjects(obj: Body, spec: Fields) -> list[dict[str, str]]:
    subjects = spec.children("subjects")
    if not subjects:
        spec.wrong("subjects", "needs at least one item: who may read the Secret")
    return [_subject(subject, own=key_of(obj).namespace) for subject in subjects]


def _subject(subject: Fields, *, own: str) -> dict[str, str]:
    kind = subject.text("kind", required=True)
    if kind not in ("", "ServiceAccount", "User", "Group"):
        subject.wrong("kind", "must be ServiceAccount, User or Group")
    namespace = subject.text("namespace") or (own if kind == "ServiceAccount" else "")
    return {
        "kind": kind,
        "api_group": subject.text("apiGroup"),
        "name": subject.text("name", required=True),
        "namespace": namespace,
    }


def _decision(condition: Body, requester: str) -> approval_pb2.Decision:
    approver = str(condition.get("approver") or "")
    return approval_pb2.Decision(
        kind=DECISION_KINDS[condition["type"]],
        approver=approver,
        proof=approval_pb2.APPROVER_PROOF_ADMISSION if approver else approval_pb2.APPROVER_PROOF_NONE,
        reason=str(condition.get("reason") or ""),
        message=str(condition.get("message") or "")[:MESSAGE_CHARS],
        decide_time=_timestamp(condition.get("lastUpdateTime") or condition.get("lastTransitionTime")),
        digest=str(condition.get("digest") or ""),
        self_approved=bool(approver) and approver == requester,
    )


def _timestamp(text: object) -> timestamp_pb2.Timestamp | None:
    try:
        when = datetime.datetime.fromisoformat(str(text)).astimezone(datetime.UTC)
    except (ValueError, OverflowError):  # OverflowError: in UTC it is before the year 1 or after the year 9999
        return None
    found = timestamp_pb2.Timestamp()
    found.FromDatetime(when)
    return found
