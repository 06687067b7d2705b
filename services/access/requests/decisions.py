"""Decisions over gRPC, on access requests that were created over gRPC. Those of Kubernetes are decided there."""

from __future__ import annotations

import time

from services.access.domain import approval
from services.access.domain.models import AccessRequest, Approval, Decision, Origin
from services.access.domain.request_view import AccessRequestView
from services.access.ledger import catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.idempotency import IdempotentCall
from services.access.requests.requests import AccessRequests
from services.common import failpoints
from services.common.errors import (
    AccessEndedError,
    AccessRequestNotFoundError,
    AlreadyDecidedError,
    CallerNotAllowedError,
    DbRoleNotReadyError,
    DigestStaleError,
)
from services.common.logs import bounded

CLIENT_CERTIFICATE = 2
"""``leasegate.access.v1.ApproverProof.APPROVER_PROOF_CLIENT_CERTIFICATE``."""


class Decisions:
    """Approves and denies access requests."""

    def __init__(self, ledger: Ledger, access_requests: AccessRequests) -> None:
        self._ledger, self._requests = ledger, access_requests

    def approve_request(self, call: IdempotentCall, uid: str, *, digest: str, message: str) -> AccessRequestView:
        """Approve what would be granted now.

        Args:
            call: Who approves.
            uid: The access request.
            digest: What the approver saw; empty for what would be granted now.
            message: The approver's words.

        Raises:
            AccessRequestNotFoundError: There is no such access request.
            CallerNotAllowedError: It is the approver's own, one of Kubernetes, or its db_role has other approvers.
            AlreadyDecidedError: It is decided already.
            DigestStaleError: Something else would be granted now.
            DbRoleNotReadyError: Its db_role is not in the catalog.
            AccessEndedError: It was withdrawn or has expired.
        """
        with self._ledger.write() as tx:
            request = _decidable(tx, uid, call.caller)
            if call.find_earlier(tx) is None:
                self._check_approvable(tx, request, call.caller, digest=digest)
                call.remember_call(tx, uid)
                request = self._decide(tx, request, Approval.APPROVED, call.caller, message=message)
            view = self._requests.view(tx, request)
        failpoints.point("ensure.committed")
        return view

    def deny_request(self, call: IdempotentCall, uid: str, *, message: str) -> AccessRequestView:
        """Deny an access request for good; what was issued is revoked.

        Raises:
            AccessRequestNotFoundError: There is no such access request.
            CallerNotAllowedError: It is one of Kubernetes, or its db_role has other approvers.
            AlreadyDecidedError: It was denied already.
            AccessEndedError: It was withdrawn or has expired.
        """
        with self._ledger.write() as tx:
            request = _decidable(tx, uid, call.caller)
            if call.find_earlier(tx) is None:
                if request.approval is Approval.DENIED:
                    raise _decided(approval.denial(requests.decisions_of(tx, uid)))
                _check_open(request)
                call.remember_call(tx, uid)
                request = self._decide(tx, request, Approval.DENIED, call.caller, message=message)
            view = self._requests.view(tx, request)
        failpoints.point("ensure.committed")
        return view

    def _check_approvable(self, tx: Tx, request: AccessRequest, approver: str, *, digest: str) -> None:
        db_role, made = catalog.role_of(tx, request), requests.decisions_of(tx, request.uid)
        if request.approval is Approval.DENIED:
            raise _decided(approval.denial(made))
        _check_open(request)
        if db_role is None or db_role.deleted:
            raise DbRoleNotReadyError(
                f"the role {request.role_name} is not in the catalog, so nobody can know what is approved",
                db_role=request.role_name,
            )
        mine = [decision for decision in made if decision.approver == approver]
        if request.approved or approval.granting(mine, digest=request.digest):
            raise _decided(
                approval.granting(mine, digest=request.digest) or approval.granting(made, digest=request.digest)
            )
        if approver == request.requester and not db_role.self_approval:
            raise CallerNotAllowedError("nobody approves an access request of their own", service="ApproverService")
        if digest and digest != request.digest:
            raise DigestStaleError(
                "something else would be granted now: get the access request again", digest=request.digest
            )

    def _decide(self, tx: Tx, request: AccessRequest, kind: Approval, approver: str, *, message: str) -> AccessRequest:
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
        return reassess.reassess(tx, request, catalog.role_of(tx, request))


def _decidable(tx: Tx, uid: str, approver: str) -> AccessRequest:
    request = requests.find(tx, uid)
    if request is None:
        raise AccessRequestNotFoundError("no such access request", access_request=bounded(uid, 128))
    if request.origin is not Origin.GRPC:
        raise CallerNotAllowedError(
            "an access request of Kubernetes is decided there: kubectl vault approve", service="ApproverService"
        )
    db_role = catalog.role_of(tx, request)
    if db_role is not None and not db_role.may_decide(approver):
        raise CallerNotAllowedError(
            f"{approver} is no approver of the role {request.role_name}: ask one of its approvers, or have the "
            "operator name this one in the catalog file (approvers)",
            service="ApproverService",
        )
    return reassess.reassess(tx, request, db_role, prepares=False)


def _check_open(request: AccessRequest) -> None:
    if request.ended:
        raise AccessEndedError("the access request was withdrawn or has expired", access_request=request.uid)


def _decided(decision: Decision | None) -> AlreadyDecidedError:
    if decision is None:
        return AlreadyDecidedError("it was decided already")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(decision.decided_at))
    return AlreadyDecidedError(
        f"it was {decision.kind} by {decision.approver} at {when}", approver=decision.approver, time=when
    )
