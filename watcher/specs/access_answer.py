"""Translates the access request that access answers to status and conditions of its object. Pure."""

from __future__ import annotations

import datetime

from leasegate.access.v1 import access_request_pb2, approval_pb2, lease_pb2
from leasegate.types.v1 import types_pb2
from services.common.durations import go_duration
from watcher.kube.conditions import Condition, timestamp
from watcher.kube.resources import Body
from watcher.specs.status import LeaseStatus, RequestStatus

WAITING = "WaitingForApproval"
_PHASES = {
    approval_pb2.APPROVAL_STATE_APPROVED: "Approved",
    approval_pb2.APPROVAL_STATE_DENIED: "Denied",
    approval_pb2.APPROVAL_STATE_EXPIRED: "Expired",
    approval_pb2.APPROVAL_STATE_WITHDRAWN: "Expired",
}
"""KubeVault's phases; WaitingForApproval otherwise."""
_PASSING = ("IssuingCredential", "RevocationInProgress")
"""Reasons of conditions that usually hold for a moment only, so that they have no Event."""


def answered_status(request: access_request_pb2.AccessRequest) -> RequestStatus:
    """The status that access answers, without what only the watcher knows: Secret and attempt."""
    return RequestStatus(
        phase=_PHASES.get(request.approval_state, WAITING),
        digest=request.digest,
        grant=_grant_fields(request.grant) if request.HasField("grant") else {},
        lease=lease_status(request.lease) if request.HasField("lease") else None,
    )


def answered_conditions(request: access_request_pb2.AccessRequest) -> list[Condition]:
    """The conditions that access answers."""
    return [_condition(condition) for condition in request.conditions]


def lease_status(lease: lease_pb2.Lease) -> LeaseStatus:
    """A lease as the guide prints it, and when it expires."""
    begin = lease.renew_time if lease.HasField("renew_time") else lease.issue_time
    ttl_s = round(lease.expire_time.ToNanoseconds() / 1e9 - begin.ToNanoseconds() / 1e9)
    return LeaseStatus(
        id=lease.lease_id,
        duration=go_duration(max(ttl_s, 0)),
        renewable=lease.renewable,
        expire_time=timestamp(lease.expire_time.ToDatetime(tzinfo=datetime.UTC)),
    )


def _grant_fields(grant: access_request_pb2.Grant) -> Body:
    """``status.grant``, without empty members."""
    ttls = {
        "defaultTTL": go_duration(grant.default_ttl.seconds) if grant.HasField("default_ttl") else "",
        "maxTTL": go_duration(grant.max_ttl.seconds) if grant.HasField("max_ttl") else "",
        "ttl": go_duration(grant.ttl.seconds) if grant.HasField("ttl") else "",
    }
    found: Body = {
        "vault": grant.vault,
        "mount": grant.mount,
        "role": grant.vault_role,
        "connection": grant.connection,
        "database": grant.database,
        "plugin": grant.plugin,
        "creationStatements": list(grant.creation_statements),
        "revocationStatements": list(grant.revocation_statements),
        "rollbackStatements": list(grant.rollback_statements),
        "renewStatements": list(grant.renew_statements),
        "subjects": list(grant.subjects),
        "reason": grant.reason,
        "ticket": grant.ticket,
        "omittedCharacters": grant.omitted_characters,
    } | ttls
    return {name: value for name, value in found.items() if value}


def _condition(condition: types_pb2.Condition) -> Condition:
    warning: bool | None = condition.type != "Available" or not condition.status
    if condition.reason in _PASSING:
        warning = None
    return Condition(
        condition.type, status=condition.status, reason=condition.reason, message=condition.message, warning=warning
    )
