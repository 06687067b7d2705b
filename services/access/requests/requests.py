"""Access requests: taken in from Kubernetes, created over gRPC, ended and shown."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.access.domain import approval
from services.access.domain.models import AccessRequest, Approval, Attempt, DbRole, Decision, Origin, Subject
from services.access.domain.quotas import no_room
from services.access.domain.request_view import AccessRequestView
from services.access.ledger import attempts, catalog, pauses, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.ledger.quotas import take_room
from services.access.requests import reassess
from services.access.requests.guards import owned
from services.access.requests.idempotency import IdempotentCall
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import CallerNotAllowedError, DbRoleNotFoundError

_SPEC = (
    "cluster",
    "cluster_uid",
    "namespace",
    "name",
    "generation",
    "role_namespace",
    "role_name",
    "subjects",
    "ttl_s",
    "reason",
    "ticket",
    "requester",
    "on_behalf_of",
    "verified_by",
)
"""What a DesiredAccess and an AccessRequest have in common."""
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class DesiredAccess:
    """The desired state of an access request, as its object in Kubernetes says."""

    uid: str
    cluster: str
    cluster_uid: str
    namespace: str
    name: str
    generation: int
    role_namespace: str
    role_name: str
    subjects: tuple[Subject, ...]
    ttl_s: float | None
    requester: str
    decisions: tuple[Decision, ...]
    status_digest: str
    reason: str = ""
    ticket: str = ""
    on_behalf_of: str = ""
    verified_by: str = ""


class AccessRequests:
    """The access requests of the ledger, for callers."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, *, guard: LedgerGuard | None = None) -> None:
        self._ledger, self._vaults, self._guard = ledger, vaults, guard or LedgerGuard(ledger)
        self._service_auth: dict[int, bool] = {}

    def view_unchanged(self, desired: DesiredAccess, *, owner: str, secret_attempt: int) -> AccessRequestView | None:
        """The access request, if its desired state brings nothing new; None if it has to be taken in.

        Args:
            desired: The desired state.
            owner: Who ensures it.
            secret_attempt: Sequence of the attempt that its Secret holds; 0 for none.

        Raises:
            CallerNotAllowedError: Somebody else ensured it before.
        """
        with self._ledger.read() as tx:
            known = requests.find(tx, desired.uid)
            if known is None:
                return None
            _check_owner(known, desired, owner)
            decided = requests.decisions_of(tx, known.uid)
            if _brings_news(desired, known, decided):
                return None
            view = self._view(tx, known, attempts.open_of(tx, known.uid), decided, catalog.role_of(tx, known))
        return self._note_secret(view, secret_attempt)

    def take_in(self, tx: Tx, desired: DesiredAccess, *, owner: str, secret_attempt: int) -> AccessRequestView:
        """Take in the desired state of an access request of Kubernetes; an older generation changes nothing.

        Args:
            tx: Transaction of the caller.
            desired: The desired state.
            owner: Who ensures it.
            secret_attempt: Sequence of the attempt that its Secret holds; 0 for none.

        Raises:
            CallerNotAllowedError: Somebody else ensured it before.
            QuotaExceededError: It is new, and its namespace has as many as it may.
        """
        request, decided = self._store(tx, desired, owner=owner)
        db_role = catalog.role_of(tx, request)
        request = reassess.reassess(tx, request, db_role, decided=decided)
        tx.answer_change(request.uid)
        view = self._view(tx, request, attempts.open_of(tx, request.uid), decided, db_role)
        return self._note_secret(view, secret_attempt)

    def _note_secret(self, view: AccessRequestView, secret_attempt: int) -> AccessRequestView:
        """Have the guard remember an attempt that the Secret holds and the ledger does not know."""
        unknown = self._guard.observe_attempt(view.request, secret_attempt=secret_attempt)
        return replace(view, unknown_attempt=secret_attempt if unknown else 0)

    def _store(self, tx: Tx, desired: DesiredAccess, *, owner: str) -> tuple[AccessRequest, list[Decision]]:
        """Store what the desired state brings; returns the access request and all its decisions."""
        request = requests.find(tx, desired.uid)
        if request is None:
            request = _new(desired, owner=owner, now=tx.now)
            if not any(each.kind is Approval.DENIED for each in desired.decisions):  # a denial is taken in any case
                _check_room(tx, request)
            requests.insert(tx, request)
        _check_owner(request, desired, owner)
        known = requests.decisions_of(tx, request.uid)
        if request.ended:
            return request, known
        if _spec_changed(desired, request):
            request = requests.update(tx, request, **_spec(desired))
        unseen = approval.unseen(desired.decisions, known, status_digest=desired.status_digest)
        requests.decide(tx, request.uid, unseen)
        return request, [*known, *unseen]

    def delete_request(self, desired: DesiredAccess, *, owner: str) -> AccessRequestView:
        """End the access of an access request whose object is deleted.

        An unknown one is stored as withdrawn, so that an EnsureAccessRequest that arrives later does not create it. The
        same again writes nothing.

        Raises:
            CallerNotAllowedError: Somebody else ensured it before.
        """
        with self._ledger.read() as tx:
            request = requests.find(tx, desired.uid)
            if request is not None and request.deleted_at is not None and request.ended:
                _check_owner(request, desired, owner)
                return self.view(tx, request)
        with self._ledger.write() as tx:
            request = requests.find(tx, desired.uid)
            if request is None:
                request = replace(_new(desired, owner=owner, now=tx.now), approval=Approval.WITHDRAWN)
                requests.insert(tx, request)
            _check_owner(request, desired, owner)
            if request.deleted_at is None:
                requests.update_silently(tx, request.uid, deleted_at=tx.now)
            view = self.view(tx, reassess.end_access(tx, request, Approval.WITHDRAWN))
            tx.answer_change(request.uid)
        failpoints.point("revoke.committed")
        self._guard.observe_attempt(view.request, secret_attempt=0)
        return view

    def create_request(
        self, call: IdempotentCall, *, target: str, role: str, ttl_s: float | None, reason: str, ticket: str = ""
    ) -> AccessRequestView:
        """Create an access request over gRPC, for a db_role of the catalog file.

        Raises:
            DbRoleNotFoundError: The catalog file has no such role at that VaultTarget.
            QuotaExceededError: The caller has as many as it may.
            RequestIdReusedError: The request_id was used for other content.
        """
        with self._ledger.write() as tx:
            if uid := call.find_earlier(tx):
                return self.view(tx, owned(tx, uid, call.caller))
            db_role = catalog.find_role(tx, "", "", "", role)
            if db_role is None or db_role.deleted or catalog.target(tx, db_role.target).name != target:
                raise DbRoleNotFoundError(f"the catalog has no role {role!r} at the target {target!r}", db_role=role)
            desired = _desired_over_grpc(db_role, requester=call.caller, ttl_s=ttl_s, reason=reason, ticket=ticket)
            request = _new(desired, owner=call.caller, now=tx.now, origin=Origin.GRPC)
            _check_room(tx, request)
            request = replace(request, digest=approval.digest_of(request, db_role))
            requests.insert(tx, request)
            call.remember_call(tx, request.uid)
            view = self.view(tx, reassess.prepare(tx, request, db_role))
        failpoints.point("ensure.committed")
        return view

    def release_request(self, call: IdempotentCall, uid: str) -> AccessRequestView:
        """End access because the requester gives it back, or withdraws a pending access request.

        Raises:
            AccessRequestNotFoundError: The caller has no such access request.
        """
        with self._ledger.write() as tx:
            request = owned(tx, uid, call.caller)
            if call.find_earlier(tx) is None:
                call.remember_call(tx, uid)
                request = reassess.end_access(tx, request, Approval.WITHDRAWN)
            view = self.view(tx, request)
        failpoints.point("revoke.committed")
        return view

    def show_request(self, uid: str, *, owner: str) -> AccessRequestView:
        """One access request of the caller.

        Raises:
            AccessRequestNotFoundError: There is none.
        """
        with self._ledger.read() as tx:
            return self.view(tx, owned(tx, uid, owner))

    def list_owned(self, owner: str, *, after: tuple[float, str] | None, limit: int) -> list[AccessRequestView]:
        """The caller's access requests, newest first."""
        with self._ledger.read() as tx:
            found = requests.page(tx, requests.owned_by(owner), after=after, limit=limit, newest_first=True)
            return self._views(tx, found)

    def list_undecided(self, *, after: tuple[float, str] | None, limit: int) -> list[AccessRequestView]:
        """The access requests that nobody has decided, oldest first, whoever their approvers are."""
        with self._ledger.read() as tx:
            found = requests.page(tx, requests.undecided(), after=after, limit=limit, newest_first=False)
            return self._views(tx, found)

    def view(self, tx: Tx, request: AccessRequest) -> AccessRequestView:
        """An access request with all that belongs to it, within a transaction of the caller."""
        decided = requests.decisions_of(tx, request.uid)
        return self._view(tx, request, attempts.open_of(tx, request.uid), decided, catalog.role_of(tx, request))

    def _views(self, tx: Tx, found: Sequence[AccessRequest]) -> list[AccessRequestView]:
        uids = [request.uid for request in found]
        opened, decided = attempts.open_of_many(tx, uids), requests.decisions_of_many(tx, uids)
        return [
            self._view(tx, request, opened[request.uid], decided[request.uid], catalog.role_of(tx, request))
            for request in found
        ]

    def _view(
        self,
        tx: Tx,
        request: AccessRequest,
        opened: Sequence[Attempt],
        decided: Sequence[Decision],
        db_role: DbRole | None,
    ) -> AccessRequestView:
        return AccessRequestView(
            request=approval.assess(request, db_role, decided, verified_only=tx.verified_only),
            attempts=tuple(opened),
            decisions=tuple(decided),
            db_role=db_role,
            engine_paused=db_role is not None and not request.ended and pauses.covers(tx, db_role),
            service_auth=db_role is None or self._has_service_auth(tx, db_role.target),
            now=tx.now,
            known_ledger=self._guard.known_id_of(request.cluster_uid),
            verified_only=tx.verified_only,
        )

    def _has_service_auth(self, tx: Tx, target: int) -> bool:
        """Whether the service has its own auth there; the answer never changes, as its auths are read at start."""
        found = self._service_auth.get(target)
        if found is None:
            if len(self._service_auth) >= _REMEMBERED:
                self._service_auth.clear()
            found = self._service_auth[target] = self._vaults.service_auth(catalog.target(tx, target))
        return found


def _check_room(tx: Tx, request: AccessRequest) -> None:
    """Refuse another open access request of a tenant that has as many as it may.

    Raises:
        QuotaExceededError: It has.
    """
    most = tx.quotas.open_requests
    count = take_room(
        tx,
        "access requests",
        request.tenant,
        most=most,
        count=lambda: requests.count_open(tx, request, most=most),
    )
    if count is not None:
        raise no_room(
            count,
            most,
            what="access requests that are pending or approved",
            namespace=request.namespace,
            do="delete those that are not needed",
            option="--max-requests-per-namespace",
        )


def _check_owner(request: AccessRequest, desired: DesiredAccess, owner: str) -> None:
    if (request.owner, request.cluster_uid) != (owner, desired.cluster_uid):
        raise CallerNotAllowedError("that access request belongs to another caller", service="WatcherService")


def _brings_news(desired: DesiredAccess, request: AccessRequest, decided: Sequence[Decision]) -> bool:
    if request.ended:
        return False
    unseen = approval.unseen(desired.decisions, decided, status_digest=desired.status_digest)
    return _spec_changed(desired, request) or bool(unseen)


def _spec_changed(desired: DesiredAccess, request: AccessRequest) -> bool:
    return desired.generation >= request.generation and any(
        getattr(request, name) != value for name, value in _spec(desired).items()
    )


def _spec(desired: DesiredAccess) -> dict[str, Any]:
    return {name: getattr(desired, name) for name in _SPEC}


def _desired_over_grpc(
    db_role: DbRole, *, requester: str, ttl_s: float | None, reason: str, ticket: str
) -> DesiredAccess:
    """The desired state of an access request that is created over gRPC."""
    return DesiredAccess(
        uid=str(uuid.uuid4()),
        cluster="",
        cluster_uid="",
        namespace="",
        name="",
        generation=0,
        role_namespace="",
        role_name=db_role.name,
        subjects=(Subject("Client", "", requester, ""),),
        ttl_s=ttl_s,
        requester=requester,
        decisions=(),
        status_digest="",
        reason=reason,
        ticket=ticket,
    )


def _new(desired: DesiredAccess, *, owner: str, now: float, origin: Origin = Origin.KUBERNETES) -> AccessRequest:
    return AccessRequest(uid=desired.uid, origin=origin, owner=owner, created_at=now, **_spec(desired))
