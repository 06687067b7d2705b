"""What access says of a request, as a DatabaseAccessRequest's status shows it. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from leasegate.access.v1 import access_request_pb2, approval_pb2, lease_pb2
from leasegate.types.v1 import types_pb2
from services.common.durations import go_duration
from watcher.kube.conditions import Condition, timestamp
from watcher.kube.resources import Body

_PHASES = {
    approval_pb2.APPROVAL_STATE_APPROVED: "Approved",
    approval_pb2.APPROVAL_STATE_DENIED: "Denied",
    approval_pb2.APPROVAL_STATE_EXPIRED: "Expired",
    approval_pb2.APPROVAL_STATE_WITHDRAWN: "Expired",
}


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """Where a request stands.

    Attributes:
        phase: As KubeVault names it.
        digest: Of what would be granted now; empty while the role is not known.
        lease: The lease in use, as the status shows it; None without one.
        facts: Conditions that access wants to be seen.
    """

    phase: str
    digest: str
    lease: Body | None
    facts: Sequence[Condition]


def request_status(request: access_request_pb2.AccessRequest) -> RequestStatus:
    """Read where a request stands."""
    return RequestStatus(
        phase=_PHASES.get(request.approval, "WaitingForApproval"),
        digest=request.digest,
        lease=lease_status(request.lease) if request.HasField("lease") else None,
        facts=[_fact(condition) for condition in request.conditions],
    )


def _fact(condition: types_pb2.Condition) -> Condition:
    """Good news is no warning, and what lasts for a moment only is no news."""
    warning: bool | None = condition.type != "Available" or not condition.status
    if condition.reason in ("IssuingCredential", "RevocationInProgress"):
        warning = None
    return Condition(
        condition.type, status=condition.status, reason=condition.reason, message=condition.message, warning=warning
    )


def lease_status(lease: lease_pb2.Lease) -> Body:
    """A lease as the guide prints it, and when it ends."""
    begin = lease.renew_time if lease.HasField("renew_time") else lease.issue_time
    ttl_s = round(lease.expire_time.ToNanoseconds() / 1e9 - begin.ToNanoseconds() / 1e9)
    return {
        "id": lease.lease_id,
        "duration": go_duration(max(ttl_s, 0)),
        "renewable": lease.renewable,
        "expireTime": timestamp(lease.expire_time.ToDatetime(tzinfo=datetime.UTC)),
    }
