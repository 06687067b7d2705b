"""Bringing an access request and its attempts in line with its decisions and its db_role, and ending access."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from services.access.domain import approval
from services.access.domain.attempt_states import ENDING, LAPSING, PREPARED
from services.access.domain.models import FINAL, AccessRequest, Approval, DbRole, Decision, Origin, Reassessment
from services.access.domain.subjects import is_permitted
from services.access.ledger import attempts, catalog, meta, pauses, reassessments, requests
from services.access.ledger.db.database import Tx
from services.access.ledger.quotas import take_room

MANY = 20
"""So many access requests of a db_role are reassessed in the transaction that changes it; where there are more, those
follow in steps, and none gets a token ahead.
"""
STEP, STEP_S = 50, 0.05
"""Most access requests of one step, and after which time it takes no further one: other writers wait for it."""
_ASSESSED = ("approval", "outdated", "digest", "retry_at")
_VERIFIED_ONLY = "require_verified_requester"
_END_REASON = {
    Approval.WITHDRAWN: "its access request was deleted or released",
    Approval.EXPIRED: "the time of its access was over",
}


def current(tx: Tx, request: AccessRequest) -> AccessRequest:
    """An access request as its decisions and its db_role make it now, for those who write nothing of that."""
    decided = requests.decisions_of(tx, request.uid)
    return approval.assess(request, catalog.role_of(tx, request), decided, verified_only=tx.verified_only)


def find_current(tx: Tx, uid: str) -> AccessRequest | None:
    """One access request as its decisions and its db_role make it now; None if it does not exist."""
    request = requests.find(tx, uid)
    return None if request is None else current(tx, request)


def reassess(
    tx: Tx,
    request: AccessRequest,
    db_role: DbRole | None,
    *,
    decided: Sequence[Decision] | None = None,
    prepares: bool = True,
) -> AccessRequest:
    """Bring an access request in line with its decisions and its db_role; the same again changes nothing.

    A denial revokes everything. An approval that does not count any more returns the access request to pending: what is
    not acknowledged yet is revoked, a credential in use expires without being renewed.

    Args:
        tx: Transaction of the caller.
        request: The access request.
        db_role: Its db_role, deleted or not; None if the catalog never had it.
        decided: All its decisions; None to read them.
        prepares: Whether a token may be made ahead.
    """
    if request.ended:
        return request
    if decided is None:
        decided = requests.decisions_of(tx, request.uid)
    before, now = request, approval.assess(request, db_role, decided, verified_only=tx.verified_only)
    if now is not before:
        changes: dict[str, Any] = {name: getattr(now, name) for name in _ASSESSED}
        request = requests.update(tx, request, **changes, **_deleted(tx, request, now.approval))
    if request.approval is Approval.DENIED:
        attempts.revoke_all(tx, request.uid, ENDING, end_reason="its access request was denied")
    elif before.approved and not request.approved:
        attempts.revoke_all(tx, request.uid, LAPSING, end_reason="its approval does not count any more")
    elif before.digest != request.digest:
        attempts.revoke_all(
            tx, request.uid, {state: ENDING[state] for state in PREPARED}, end_reason="something else is granted now"
        )
    elif request.approved and not before.approved and request.first_issued_at is not None:
        attempts.schedule_now(tx, [request.uid])  # what was left to expire is renewed again
    return prepare(tx, request, db_role) if prepares else request


def prepare(tx: Tx, request: AccessRequest, db_role: DbRole | None) -> AccessRequest:
    """Have a token made while the access request is pending, so that its credential takes one call once approved."""
    if request.approval is not Approval.PENDING or db_role is None or db_role.deleted:
        return request
    permitted = is_permitted(request, db_role, verified_only=tx.verified_only)
    if not permitted or db_role.paused or pauses.covers(tx, db_role):
        return request
    if any(
        attempt.may_have_database_user or attempt.state in PREPARED for attempt in attempts.open_of(tx, request.uid)
    ):
        return request
    if not _may_prepare(tx, request):
        return request  # the claim makes its token
    number = request.last_sequence + 1
    attempts.begin(tx, request=request, role=db_role, sequence=number, due_at=tx.now)
    requests.update_silently(tx, request.uid, last_sequence=number)
    return replace(request, last_sequence=number)


def _may_prepare(tx: Tx, request: AccessRequest) -> bool:
    """Whether a token may be made ahead: each is one of Vault's, for an access request that may never be approved."""
    most, tenant = tx.quotas.prepared_tokens, request.tenant
    taken = take_room(
        tx,
        "prepared tokens",
        tenant,
        most=most,
        count=lambda: attempts.count_of_tenant(tx, tenant, PREPARED, most=most),
    )
    return taken is None


def end_access(tx: Tx, request: AccessRequest, outcome: Approval) -> AccessRequest:
    """End access for good."""
    if request.ended:
        return request
    attempts.revoke_all(tx, request.uid, ENDING, end_reason=_END_REASON[outcome])
    return requests.update(
        tx, request, approval=outcome, rotation_due=False, due_at=None, **_deleted(tx, request, outcome)
    )


def _deleted(tx: Tx, request: AccessRequest, outcome: Approval) -> dict[str, float]:
    """An ended access request over gRPC counts as deleted; one of Kubernetes exists as long as its object does."""
    return {"deleted_at": tx.now} if outcome in FINAL and request.origin is Origin.GRPC else {}


def expire(tx: Tx, uid: str) -> None:
    """End access whose time is over; for a worker."""
    request = requests.find(tx, uid)
    if request is None or request.ends_at is None or request.ended:
        requests.update_silently(tx, uid, due_at=None)
    elif request.ends_at <= tx.now:
        end_access(tx, request, Approval.EXPIRED)


def role_changed(tx: Tx, db_role: DbRole) -> None:
    """A db_role was created, changed or deleted: reassess its access requests, those of a large one in later steps."""
    _begin(tx, db_role, leases=True)


def requester_rule_changed(tx: Tx) -> int:
    """Reassess the access requests for which ``--require-verified-requester`` matters, if it was changed.

    Returns:
        How many there are.
    """
    was = meta.get(tx, _VERIFIED_ONLY) is not None
    if was is tx.verified_only:
        return 0
    touched = requests.unverified(tx)
    for request in touched:
        reassess(tx, request, catalog.role_of(tx, request), prepares=len(touched) <= MANY)
        tx.changed.add(request.uid)
    attempts.schedule_now(tx, [request.uid for request in touched])
    if tx.verified_only:
        meta.put(tx, _VERIFIED_ONLY, "on")
    else:
        meta.drop(tx, _VERIFIED_ONLY)
    return len(touched)


def place_changed(tx: Tx, roles: list[DbRole]) -> None:
    """Issuance was paused or resumed for these db_roles."""
    for db_role in roles:
        _begin(tx, db_role, leases=False)


def _begin(tx: Tx, db_role: DbRole, *, leases: bool) -> None:
    begun = reassessments.begin(tx, db_role, leases=leases)
    if begun:
        _step(tx, begun, db_role, most=MANY)


def step(tx: Tx, db_role: int) -> None:
    """Reassess the next access requests of a db_role that changed; for the reassessor."""
    left = reassessments.find(tx, db_role)
    if left:
        _step(tx, left, reassessments.role_of(tx, left), most=STEP)


def _step(tx: Tx, left: Reassessment, db_role: DbRole, *, most: int) -> None:
    found = requests.of_role(tx, db_role, after=left.after, limit=most + 1)
    few = not left.after and len(found) <= MANY
    end, done = time.monotonic() + STEP_S, list[str]()
    for request in found[:most]:
        # Of many, each claim makes its token: a role that changes again and again would have them all made each time.
        reassess(tx, request, db_role, prepares=few)
        if left.leases and request.retry_at is not None:
            requests.update_silently(tx, request.uid, retry_at=None)
        tx.changed.add(request.uid)
        done.append(request.uid)
        if time.monotonic() > end:
            break
    if left.leases:
        attempts.schedule_now(tx, done)
    if len(done) < len(found):
        reassessments.go_on(tx, replace(left, after=max([left.after, *done])))
    elif left.again:
        reassessments.go_on(tx, replace(left, since=tx.now, after="", again=False))
    else:
        reassessments.end(tx, left)
        return
    tx.reassessments = True
