"""What decisions, roles and ends make of a request and, in the same transaction, of its attempts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.access import approval, naming
from services.access.attempts import ENDING, LAPSING
from services.access.ledger import attempts, catalog, quiesced, requests
from services.access.ledger.database import Tx
from services.access.records import FINAL, Approval, Origin, Request, Role, State

_UNREAD = {State.NEW: State.END_TOKEN, State.TOKEN: State.END_TOKEN}
_OVER = {Approval.WITHDRAWN: "its request was deleted or given back", Approval.EXPIRED: "the time of its access was over"}


def digest_of(request: Request, role: Role | None) -> str:
    """The digest of what would be granted now; where the role is not known, the last that was."""
    if role is None or role.gone:
        return request.digest
    return naming.grant_digest(role_digest=role.digest, subjects=request.subjects, ttl_s=request.ttl_s, uid=request.uid)


def reassess(tx: Tx, request: Request, role: Role | None) -> Request:
    """Bring a request in line with its decisions and its role; the same again changes nothing.

    A denial ends everything. An approval that counts no longer sends the request back to pending: what was not acknowledged yet is ended,
    what is in use runs on without being renewed.
    """
    if request.ended:
        return request
    digest = digest_of(request, role)
    made = requests.decisions_of(tx, request.uid)
    verdict = approval.verdict(made, digest=digest, approvals=role.approvals if role else 1)
    before = request
    if (verdict.approval, verdict.outdated, digest) != (request.approval, request.outdated, request.digest):
        changes: dict[str, Any] = {"approval": verdict.approval, "outdated": verdict.outdated, "digest": digest, "retry_at": None}
        request = requests.update(tx, request, **changes, **_gone(tx, request, verdict.approval))
    if request.approval is Approval.DENIED:
        attempts.end_all(tx, request.uid, ENDING, why="its request was denied")
    elif before.approved and not request.approved:
        attempts.end_all(tx, request.uid, LAPSING, why="its approval counts no longer")
    elif before.digest != digest:
        attempts.end_all(tx, request.uid, _UNREAD, why="something else is granted now")
    return prepare(tx, request, role)


def prepare(tx: Tx, request: Request, role: Role | None) -> Request:
    """Have a token made while the request is pending, so that its credential takes one call once it is approved."""
    if request.approval is not Approval.PENDING or role is None or role.gone or quiesced.covers(tx, role):
        return request
    if any(attempt.may_have_login or attempt.state in _UNREAD for attempt in attempts.open_of(tx, request.uid)):
        return request
    number = request.last_number + 1
    attempts.begin(tx, request=request, role=role, number=number, work_at=tx.now)
    requests.note(tx, request.uid, last_number=number)
    return replace(request, last_number=number)


def finish(tx: Tx, request: Request, outcome: Approval) -> Request:
    """End the access of a request for good."""
    if request.ended:
        return request
    attempts.end_all(tx, request.uid, ENDING, why=_OVER[outcome])
    return requests.update(tx, request, approval=outcome, due=False, work_at=None, **_gone(tx, request, outcome))


def _gone(tx: Tx, request: Request, outcome: Approval) -> dict[str, float]:
    """Nobody can ask again for a request over gRPC that has ended; one of Kubernetes is asked for as long as its object is there."""
    return {"gone_at": tx.now} if outcome in FINAL and request.origin is Origin.GRPC else {}


def expire(tx: Tx, uid: str) -> None:
    """End the access of a request whose time is over; for a worker. One that has ended already is not looked at again."""
    request = requests.find(tx, uid)
    if request is None or request.ends_at is None or request.ended:
        requests.note(tx, uid, work_at=None)
    elif request.ends_at <= tx.now:
        finish(tx, request, Approval.EXPIRED)


def role_changed(tx: Tx, role: Role) -> None:
    """A role came, changed or went: all its requests are looked at again."""
    touched = requests.of_role(tx, role)
    for request in touched:
        reassess(tx, request, role)
        if request.retry_at is not None:
            requests.note(tx, request.uid, retry_at=None)
        tx.changed.add(request.uid)
    attempts.look_again(tx, [request.uid for request in touched])


def place_changed(tx: Tx, roles: list[Role]) -> None:
    """Something may be issued again for these roles, or may not any more."""
    for role in roles:
        for request in requests.of_role(tx, role):
            prepare(tx, request, catalog.role_of(tx, request))
            tx.changed.add(request.uid)
