"""Whether an access request is approved, pure.

Decisions accumulate, none is withdrawn. One denial is final. An approval counts for the digest that it was made on, and
grants only that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from services.access.domain import names
from services.access.domain.models import AccessRequest, Approval, DbRole, Decision
from services.access.domain.subjects import is_permitted


def digest_of(request: AccessRequest, db_role: DbRole | None) -> str:
    """The digest of what would be granted now; where the db_role is not in the catalog, the last known one."""
    if db_role is None or db_role.deleted:
        return request.digest
    return names.grant_digest(
        role_digest=db_role.digest,
        subjects=request.subjects,
        ttl_s=request.ttl_s,
        reason=request.reason,
        ticket=request.ticket,
        uid=request.uid,
    )


def assess(
    request: AccessRequest, db_role: DbRole | None, decisions: Sequence[Decision], *, verified_only: bool
) -> AccessRequest:
    """The access request as its decisions and its db_role make it; one that has ended stays as it is.

    Whatever grants or shows anything asks this. What the ledger has of it is as of the last time that the access
    request was reassessed, and the db_role may have changed since (ADR 78).

    Args:
        request: As the ledger has it.
        db_role: Its db_role, deleted or not; None if the catalog never had it.
        decisions: All its decisions.
        verified_only: Whether no approval counts while it is not known who is behind the access request.
    """
    if request.ended:
        return request
    digest = digest_of(request, db_role)
    found = verdict(
        decisions,
        digest=digest,
        approvals=db_role.approvals if db_role else 1,
        approvers=db_role.approvers if db_role else (),
        allowed=is_permitted(request, db_role, verified_only=verified_only),
    )
    if (found.approval, found.outdated, digest) == (request.approval, request.outdated, request.digest):
        return request
    return replace(request, approval=found.approval, outdated=found.outdated, digest=digest, retry_at=None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the decisions on an access request amount to.

    Attributes:
        approval: Pending, approved or denied.
        outdated: Whether somebody approved something else than what would be granted now.
    """

    approval: Approval
    outdated: bool = False


def verdict(
    decisions: Sequence[Decision],
    *,
    digest: str,
    approvals: int = 1,
    approvers: Collection[str] = (),
    allowed: bool = True,
) -> Verdict:
    """What the decisions amount to for ``digest``.

    Args:
        decisions: All of them.
        digest: Digest of what would be granted now; empty if the db_role was never known.
        approvals: How many different approvers it takes.
        approvers: Whose approvals count; empty for everybody's. A denial counts whoever made it.
        allowed: Whether an approval may count at all (``services.access.domain.subjects.is_permitted``).
    """
    if any(d.kind is Approval.DENIED for d in decisions):
        return Verdict(Approval.DENIED)
    if not allowed:
        return Verdict(Approval.PENDING)
    approved = [d for d in decisions if d.kind is Approval.APPROVED and (not approvers or d.approver in approvers)]
    counting = {d.approver for d in approved if digest and d.digest == digest}
    if len(counting) >= max(approvals, 1):
        return Verdict(Approval.APPROVED)
    return Verdict(Approval.PENDING, outdated=any(d.digest != digest for d in approved))


def unseen(sent: Sequence[Decision], known: Sequence[Decision], *, status_digest: str) -> list[Decision]:
    """The new decisions, each with the digest that it counts for.

    A decision without a digest counts for the digest in the status that it was written over; without either it counts
    for nothing.
    """
    seen = {_identity(d) for d in known}
    return [replace(d, digest=d.sent_digest or status_digest) for d in sent if _identity(d) not in seen]


def granting(decisions: Sequence[Decision], *, digest: str) -> Decision | None:
    """The newest approval that counts for ``digest``."""
    return next((d for d in reversed(decisions) if d.kind is Approval.APPROVED and d.digest == digest), None)


def denial(decisions: Sequence[Decision]) -> Decision | None:
    """The first denial."""
    return next((d for d in decisions if d.kind is Approval.DENIED), None)


def _identity(decision: Decision) -> Decision:
    return replace(decision, digest="", self_approved=False)
