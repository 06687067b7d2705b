"""Requests: taking them in from Kubernetes, making them over gRPC, ending them, and showing them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.access.domain import approval, names
from services.access.domain.models import AccessRequest, Approval, Attempt, DbRole, Decision, Origin, Subject
from services.access.domain.request_view import AccessRequestView, NextStep
from services.access.leases.issue import owned
from services.access.ledger import answers, attempts, catalog, pauses, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.requests import reassess
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import CallerNotAllowedError, DbRoleNotFoundError


@dataclass(frozen=True, slots=True)
class DesiredAccess:
    """A request of Kubernetes as its object says it is wanted."""

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


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """A call that acts, made to do its thing once however often it is repeated."""

    caller: str
    method: str
    request_id: str
    content: str

    def earlier(self, tx: Tx) -> str | None:
        """What the same call was about before; None at the first time."""
        return answers.find_earlier(
            tx, caller=self.caller, method=self.method, request_id=self.request_id, content=self.content
        )

    def keep(self, tx: Tx, subject: str) -> None:
        """Remember that it was carried out."""
        answers.remember(
            tx,
            caller=self.caller,
            method=self.method,
            request_id=self.request_id,
            content=self.content,
            subject=subject,
        )


class AccessRequests:
    """The requests of the ledger, for callers."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, *, losses: LedgerGuard | None = None) -> None:
        self._ledger, self._vaults, self._losses = ledger, vaults, losses or LedgerGuard(ledger)
        self._own: dict[int, bool] = {}

    def ensure(
        self,
        desired: DesiredAccess,
        *,
        owner: str,
        secret_attempt: int = 0,
        claim: Callable[[Tx, AccessRequestView], None] | None = None,
    ) -> AccessRequestView:
        """Take the desired state of a request of Kubernetes; the same again, or an older generation, writes nothing.

        Args:
            desired: The request.
            owner: Who ensures it.
            secret_attempt: Number of the attempt that its Secret holds; 0 for none.
            claim: Called within the transaction, with what is answered, if the next step is to claim.

        Raises:
            CallerNotAllowedError: Somebody else ensured it before.
        """
        with self._ledger.read() as tx:
            known = requests.find(tx, desired.uid)
            if known and known.owner != owner:
                raise CallerNotAllowedError("that request belongs to another caller", service="WatcherService")
            view = self._view(tx, known) if known else None
        if view and not _brings_news(desired, view):
            view = self._held(view, secret_attempt)
            if claim is None or not _is_to_claim(view, secret_attempt):
                return view
        with self._ledger.write() as tx:
            request = self._take(tx, desired, owner=owner)
            role = catalog.role_of(tx, request)
            view = self._held(self._view(tx, reassess.reassess(tx, request, role)), secret_attempt)
            tx.changed.discard(request.uid)  # the answer tells the only one who would be told
            if claim is not None and _is_to_claim(view, secret_attempt):
                claim(tx, view)
        failpoints.point("ensure.committed")
        return view

    def _held(self, view: AccessRequestView, secret_attempt: int) -> AccessRequestView:
        return replace(
            view,
            unknown=secret_attempt if self._losses.observe_attempt(view.request, secret_attempt=secret_attempt) else 0,
        )

    def _take(self, tx: Tx, desired: DesiredAccess, *, owner: str) -> AccessRequest:
        request = requests.find(tx, desired.uid)
        if request is None:
            request = _new(desired, owner=owner, now=tx.now)
            requests.insert(tx, request)
        elif request.owner != owner:
            raise CallerNotAllowedError("that request belongs to another caller", service="WatcherService")
        elif request.ended:
            return request
        spec = _spec(desired)
        if desired.generation >= request.generation and any(
            getattr(request, name) != value for name, value in spec.items()
        ):
            request = requests.update(tx, request, **spec)
        known = requests.decisions_of(tx, request.uid)
        requests.decide(tx, request.uid, approval.unseen(desired.decisions, known, status_digest=desired.status_digest))
        return request

    def end(self, desired: DesiredAccess, *, owner: str) -> AccessRequestView:
        """End the access of a request that was deleted or vanished; one that is not known is noted as ended, lest it
        comes late.
        """
        with self._ledger.write() as tx:
            request = requests.find(tx, desired.uid)
            if request is None:
                request = replace(_new(desired, owner=owner, now=tx.now), approval=Approval.WITHDRAWN)
                requests.insert(tx, request)
            elif request.owner != owner:
                raise CallerNotAllowedError("that request belongs to another caller", service="WatcherService")
            if request.deleted_at is None:
                requests.update_silently(tx, request.uid, deleted_at=tx.now)
            view = self._view(tx, reassess.finish(tx, request, Approval.WITHDRAWN))
            tx.changed.discard(request.uid)  # the answer tells the only one who would be told
        failpoints.point("end.committed")
        self._losses.observe_attempt(view.request, secret_attempt=0)  # nothing is held any more of what is gone
        return view

    def create(
        self, call: IdempotentCall, *, target: str, role: str, ttl_s: float | None, reason: str
    ) -> AccessRequestView:
        """Make a request over gRPC, for a role of the catalogue.

        Raises:
            DbRoleNotFoundError: The catalogue has no such role there.
            RequestIdReused: The id was used for another request.
        """
        with self._ledger.write() as tx:
            if uid := call.earlier(tx):
                return self._view(tx, owned(tx, uid, call.caller))
            found = catalog.find_role(tx, "", "", "", role)
            if found is None or found.deleted or catalog.target(tx, found.target).name != target:
                raise DbRoleNotFoundError(f"the catalogue has no role {role!r} at the target {target!r}", db_role=role)
            request = _new(
                _wish(found, requester=call.caller, ttl_s=ttl_s),
                owner=call.caller,
                now=tx.now,
                origin=Origin.GRPC,
                reason=reason,
            )
            request = replace(request, digest=reassess.digest_of(request, found))
            requests.insert(tx, request)
            call.keep(tx, request.uid)
            view = self._view(tx, reassess.prepare(tx, request, found))
        failpoints.point("ensure.committed")
        return view

    def release(self, call: IdempotentCall, uid: str) -> AccessRequestView:
        """The requester gives access back, or withdraws a pending request.

        Raises:
            RequestNotFound: No such request of the caller.
        """
        with self._ledger.write() as tx:
            request = owned(tx, uid, call.caller)
            if call.earlier(tx) is None:
                call.keep(tx, uid)
                request = reassess.finish(tx, request, Approval.WITHDRAWN)
            view = self._view(tx, request)
        failpoints.point("end.committed")
        return view

    def show(self, uid: str, *, owner: str) -> AccessRequestView:
        """One request of the caller.

        Raises:
            RequestNotFound: There is none.
        """
        with self._ledger.read() as tx:
            return self._view(tx, owned(tx, uid, owner))

    def mine(self, owner: str, *, after: tuple[float, str] | None, limit: int) -> list[AccessRequestView]:
        """The caller's requests, newest first."""
        with self._ledger.read() as tx:
            return self._views(
                tx, requests.page(tx, requests.owned_by(owner), after=after, limit=limit, newest_first=True)
            )

    def waiting(self, *, after: tuple[float, str] | None, limit: int) -> list[AccessRequestView]:
        """The requests that nobody has decided, oldest first."""
        with self._ledger.read() as tx:
            return self._views(
                tx, requests.page(tx, requests.undecided(), after=after, limit=limit, newest_first=False)
            )

    def view(self, tx: Tx, request: AccessRequest) -> AccessRequestView:
        """A request with all that belongs to it, within a transaction of the caller's."""
        return self._view(tx, request)

    def _view(self, tx: Tx, request: AccessRequest) -> AccessRequestView:
        return self._make(tx, request, attempts.open_of(tx, request.uid), requests.decisions_of(tx, request.uid))

    def _views(self, tx: Tx, found: Sequence[AccessRequest]) -> list[AccessRequestView]:
        uids = [request.uid for request in found]
        opened, decided = attempts.open_of_many(tx, uids), requests.decisions_of_many(tx, uids)
        return [self._make(tx, request, opened[request.uid], decided[request.uid]) for request in found]

    def _make(
        self, tx: Tx, request: AccessRequest, opened: Sequence[Attempt], decided: Sequence[Decision]
    ) -> AccessRequestView:
        role = catalog.role_of(tx, request)
        return AccessRequestView(
            request=request,
            attempts=tuple(opened),
            decisions=tuple(decided),
            role=role,
            quiesced=role is not None and not request.ended and pauses.covers(tx, role),
            service_auth=role is None or self._own_login(tx, role.target),
            now=tx.now,
            known_ledger=self._losses.known_id,
        )

    def _own_login(self, tx: Tx, target: int) -> bool:
        found = self._own.get(
            target
        )  # the address belongs to the target's number, and own logins are configured at the start
        return (
            self._own.setdefault(target, self._vaults.service_auth(catalog.target(tx, target)))
            if found is None
            else found
        )


def _is_to_claim(view: AccessRequestView, secret_attempt: int) -> bool:
    return view.next_step(secret_attempt)[0] is NextStep.CLAIM


def _brings_news(desired: DesiredAccess, view: AccessRequestView) -> bool:
    if view.request.ended:
        return False
    newer = desired.generation >= view.request.generation
    changed = newer and any(getattr(view.request, name) != value for name, value in _spec(desired).items())
    return changed or bool(approval.unseen(desired.decisions, view.decisions, status_digest=desired.status_digest))


def _spec(desired: DesiredAccess) -> dict[str, Any]:
    names = (
        "cluster",
        "cluster_uid",
        "namespace",
        "name",
        "generation",
        "role_namespace",
        "role_name",
        "subjects",
        "ttl_s",
        "requester",
    )
    return {name: getattr(desired, name) for name in names}


def _wish(role: DbRole, *, requester: str, ttl_s: float | None) -> DesiredAccess:
    """The desired state of a request that is made over gRPC."""
    return DesiredAccess(
        uid=str(uuid.uuid4()),
        cluster="",
        cluster_uid="",
        namespace="",
        name="",
        generation=0,
        role_namespace="",
        role_name=role.name,
        subjects=(Subject("Client", "", requester, ""),),
        ttl_s=ttl_s,
        requester=requester,
        decisions=(),
        status_digest="",
    )


def _new(
    desired: DesiredAccess, *, owner: str, now: float, origin: Origin = Origin.KUBERNETES, reason: str = ""
) -> AccessRequest:
    return AccessRequest(uid=desired.uid, origin=origin, owner=owner, reason=reason, created_at=now, **_spec(desired))


def content(*parts: object) -> str:
    """Digest of a call's content, for ``IdempotentCall``."""
    return names.content_digest(*parts)
