"""Checks that every call on behalf of a requester begins with; each raises the error that the caller gets."""

from __future__ import annotations

from services.access.domain.decide import Acknowledge, Claim, NextStep, Wait, WaitReason
from services.access.domain.models import AccessRequest, Approval
from services.access.ledger import requests
from services.access.ledger.db.database import Tx
from services.access.ledger.guard import LedgerGuard
from services.common.errors import (
    AccessEndedError,
    AccessRequestNotFoundError,
    ApprovalDeniedError,
    ApprovalRequiredError,
    ConflictError,
    DbRoleNotReadyError,
    FieldViolation,
    SpecInvalidError,
)
from services.common.logs import bounded
from services.common.sharing import ALLOW_FROM, not_allowed


def owned(tx: Tx, uid: str, owner: str) -> AccessRequest:
    """The access request of this caller.

    Raises:
        AccessRequestNotFoundError: There is none; one of somebody else looks the same.
    """
    request = requests.find(tx, uid)
    if request is None or request.owner != owner:
        raise AccessRequestNotFoundError("no such access request", access_request=bounded(uid, 128))
    return request


def check_approved(request: AccessRequest, *, now: float) -> None:
    """Refuse unless access is granted.

    Raises:
        ApprovalRequiredError: It is not approved.
        ApprovalDeniedError: It is denied.
        AccessEndedError: It was withdrawn, or its time is over.
    """
    if request.approval is Approval.DENIED:
        raise ApprovalDeniedError("the access request was denied", access_request=request.uid)
    if request.ended or request.expired(now):
        raise AccessEndedError("access has ended", access_request=request.uid)
    if not request.approved:
        raise ApprovalRequiredError("nobody has approved what would be granted now", access_request=request.uid)


def check_claim(
    step: NextStep, request: AccessRequest, *, guard: LedgerGuard, secret_attempt: int, now: float
) -> Claim:
    """The claim that is due, for a caller that asks for a credential.

    Args:
        step: What ``decide`` says of the access request.
        request: The access request.
        guard: The ledger's guard, whose error names the ledgers.
        secret_attempt: Sequence of the attempt that the caller holds; 0 for none.
        now: The time.

    Raises:
        NotAllowedFromError: The db_role's owner does not let the access request name it.
        SpecInvalidError: A subject may not read a credential of the db_role.
        ApprovalRequiredError, ApprovalDeniedError, AccessEndedError: Access is not granted.
        LedgerMismatchError: The ledger does not match what the cluster or the caller knows.
        DbRoleNotReadyError: The db_role is not in the catalog, or nothing is issued there now.
        ConflictError: The caller needs no credential.
    """
    if isinstance(step, Claim):
        return step
    if isinstance(step, Wait) and step.reason is WaitReason.NOT_ALLOWED:
        raise not_allowed(
            "the role",
            request.role_label,
            owner=request.role_namespace,
            user=request.namespace,
            annotation=ALLOW_FROM,
            on="PostgresRole",
        )
    if isinstance(step, Wait) and step.reason is WaitReason.SUBJECTS_FORBIDDEN:
        why = "have one that may not read this credential; the condition SubjectsForbidden says which"
        raise SpecInvalidError.of(FieldViolation("subjects", why))
    if isinstance(step, Wait) and step.reason is WaitReason.REQUESTER_UNVERIFIED:
        raise ApprovalRequiredError(
            "no approval counts while it is not verified who is behind the access request; its condition"
            " RequesterUnverified says what to do",
            access_request=request.uid,
        )
    check_approved(request, now=now)
    guard.check_issuance(request, secret_attempt=secret_attempt)
    if isinstance(step, Acknowledge):
        raise ConflictError("the caller holds the pending credential already: acknowledge it", retry_after_s=1.0)
    if isinstance(step, Wait) and step.reason is WaitReason.ROLE_MISSING:
        raise DbRoleNotReadyError(f"the role {request.role_name} is not in the catalog", db_role=request.role_name)
    if isinstance(step, Wait) and step.reason is WaitReason.ROLE_CHANGING:
        raise DbRoleNotReadyError(
            f"nothing is issued for the role {request.role_name} now: it or its connection is about to change",
            db_role=request.role_name,
        )
    if isinstance(step, Wait) and step.reason is WaitReason.SECRET_ENGINE_PAUSED:
        raise DbRoleNotReadyError(
            f"nothing is issued for the role {request.role_name} now: its secret engine or connection is changing",
            db_role=request.role_name,
        )
    raise ConflictError("the caller holds the active credential already", retry_after_s=1.0)
