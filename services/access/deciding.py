"""Decisions over gRPC, on requests that were made over gRPC. Those of Kubernetes are decided there (design, section 6)."""

from __future__ import annotations

import time

from services.access import approval, crash, granting
from services.access.ledger import catalog, requests
from services.access.ledger.database import Ledger, Tx
from services.access.records import Approval, Decision, Origin, Request
from services.access.requests import Call, Requests
from services.access.view import View
from services.common.errors import AccessEnded, AlreadyDecided, CallerNotAllowed, DigestOutdated, RequestNotFound, RoleNotReady
from services.common.logs import bounded

CLIENT_CERTIFICATE = 2
"""``leasegate.access.v1.ApproverProof.APPROVER_PROOF_CLIENT_CERTIFICATE``."""


class Deciding:
    """Approves and denies."""

    def __init__(self, ledger: Ledger, shown: Requests) -> None:
        self._ledger, self._requests = ledger, shown

    def approve(self, call: Call, uid: str, *, digest: str, message: str) -> View:
        """Approve what would be granted now.

        Args:
            call: Who approves.
            uid: The request.
            digest: What the approver saw; empty for what would be granted now.
            message: The approver's words.

        Raises:
            RequestNotFound: No such request.
            CallerNotAllowed: It is the approver's own, or one of Kubernetes.
            AlreadyDecided: It was decided already.
            DigestOutdated: Something else would be granted now.
            RoleNotReady: Its role is not in the catalogue.
            AccessEnded: It was withdrawn or has expired.
        """
        with self._ledger.write() as tx:
            request = _decidable(tx, uid)
            if call.earlier(tx) is None:
                self._check_approvable(tx, request, call.caller, digest=digest)
                call.keep(tx, uid)
                request = self._decide(tx, request, Approval.APPROVED, call.caller, message=message)
            view = self._requests.view(tx, request)
        crash.point("ensure.committed")
        return view

    def deny(self, call: Call, uid: str, *, message: str) -> View:
        """Deny for good; what was issued is revoked.

        Raises:
            RequestNotFound: No such request.
            CallerNotAllowed: It is one of Kubernetes.
            AlreadyDecided: It was denied already.
            AccessEnded: It was withdrawn or has expired.
        """
        with self._ledger.write() as tx:
            request = _decidable(tx, uid)
            if call.earlier(tx) is None:
                if request.approval is Approval.DENIED:
                    raise _decided(approval.denial(requests.decisions_of(tx, uid)))
                _check_open(request)
                call.keep(tx, uid)
                request = self._decide(tx, request, Approval.DENIED, call.caller, message=message)
            view = self._requests.view(tx, request)
        crash.point("ensure.committed")
        return view

    def _check_approvable(self, tx: Tx, request: Request, approver: str, *, digest: str) -> None:
        role, made = catalog.role_of(tx, request), requests.decisions_of(tx, request.uid)
        if request.approval is Approval.DENIED:
            raise _decided(approval.denial(made))
        _check_open(request)
        if role is None or role.gone:
            raise RoleNotReady(
                f"the role {request.role_name} is not in the catalogue, so nobody can know what is approved", role=request.role_name
            )
        mine = [decision for decision in made if decision.approver == approver]
        if request.approved or approval.granting(mine, digest=request.digest):
            raise _decided(approval.granting(mine, digest=request.digest) or approval.granting(made, digest=request.digest))
        if approver == request.requester and not role.self_approval:
            raise CallerNotAllowed("nobody approves a request of their own", service="ApproverService")
        if digest and digest != request.digest:
            raise DigestOutdated("something else would be granted now: look again", digest=request.digest)

    def _decide(self, tx: Tx, request: Request, kind: Approval, approver: str, *, message: str) -> Request:
        decision = Decision(
            kind=kind,
            approver=approver,
            proof=CLIENT_CERTIFICATE,
            reason="GrpcApprove" if kind is Approval.APPROVED else "GrpcDeny",
            message=message,
            decided_at=tx.now,
            sent_digest=request.digest,
            digest=request.digest,
            self_approved=approver == request.requester,
        )
        requests.decide(tx, request.uid, [decision])
        return granting.reassess(tx, request, catalog.role_of(tx, request))


def _decidable(tx: Tx, uid: str) -> Request:
    request = requests.find(tx, uid)
    if request is None:
        raise RequestNotFound("no such request", request=bounded(uid, 128))
    if request.origin is not Origin.GRPC:
        raise CallerNotAllowed("a request of Kubernetes is decided there: kubectl vault approve", service="ApproverService")
    return request


def _check_open(request: Request) -> None:
    if request.ended:
        raise AccessEnded("the request was withdrawn or has expired", request=request.uid)


def _decided(decision: Decision | None) -> AlreadyDecided:
    if decision is None:
        return AlreadyDecided("it was decided already")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(decision.decided_at))
    return AlreadyDecided(f"it was {decision.kind} by {decision.approver} at {when}", approver=decision.approver, time=when)
