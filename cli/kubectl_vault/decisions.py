"""The rules of approving and denying. Pure: an object in, its new conditions or a refusal out.

The admission policies (deploy/policies) enforce the same rules; here a person learns before anything is sent, in
plainer words.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from cli.kubectl_vault.errors import CommandError

Json = dict[str, Any]


class Verdict(Enum):
    """What is decided: type, reason and message of the condition as the guide prints them, and the word for people."""

    APPROVE = (
        "Approved",
        "KubectlApprove",
        "This was approved by kubectl vault approve databaseaccessrequest",
        "approved",
    )
    DENY = ("Denied", "KubectlDeny", "This was denied by kubectl vault deny databaseaccessrequest", "denied")

    def __init__(self, condition: str, reason: str, message: str, word: str) -> None:
        self.condition, self.reason, self.message, self.word = condition, reason, message, word


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision that is to be written.

    Attributes:
        verdict: What is decided.
        approver: The user's own name, as the API server knows it.
        comment: The user's words; empty for none.
    """

    verdict: Verdict
    approver: str
    comment: str = ""


def not_seen_yet(request: Json) -> bool:
    """Whether the watcher has still to process the current spec, so that waiting a little may help."""
    return bool(_status(request).get("observedGeneration") != request["metadata"].get("generation"))


def check(request: Json, verdict: Verdict) -> None:
    """Refuse a decision that is not allowed: a decision is final, except that a deny after an approval revokes.

    Raises:
        CommandError: Says who decided when, or what is missing.
    """
    if request["metadata"].get("deletionTimestamp"):
        raise CommandError("it is being deleted")
    if denied := find(request, "Denied"):
        raise CommandError(f"{who_and_when(denied, 'denied')}, which is final: delete it and create another one")
    if _status(request).get("phase") == "Expired":
        raise CommandError("its access has expired: delete it and create another one")
    if verdict is Verdict.APPROVE:
        _check_approval(request)


def _check_approval(request: Json) -> None:
    digest, approved = _status(request).get("digest"), find(request, "Approved")
    if approved and not _outdated(request, approved, digest):
        raise CommandError(f"{who_and_when(approved, 'approved')} already; to revoke the access, deny it")
    if not_seen_yet(request):
        raise CommandError(
            "Leasegate has not processed it yet: try again in a moment; if this persists, ask the operator whether the "
            "watcher runs"
        )
    if not digest:
        raise CommandError(f"it cannot be approved yet, since its role is not ready: {_why_not_ready(request)}")


def check_digest(request: Json, seen: str) -> str:
    """The digest that an approval is for; refuses another one than the approver has seen.

    Args:
        request: The access request.
        seen: The digest that the approver has seen; empty if none was shown yet.

    Raises:
        CommandError: Something else would be granted now.
    """
    digest = str(_status(request).get("digest") or "")
    if seen and seen != digest:
        raise CommandError(
            f"something else would be granted now (digest {digest}): look at it with kubectl vault describe, and "
            "approve it again"
        )
    return digest


def _outdated(request: Json, approved: Json, digest: str | None) -> bool:
    """Whether the grant has changed since the approval, so that a new approval may replace it."""
    named = approved.get("digest")
    outdated = find(request, "ApprovalStale")
    return bool(digest) and (bool(named and named != digest) or bool(outdated and outdated.get("status") == "True"))


def _why_not_ready(request: Json) -> str:
    role = request["spec"].get("roleRef", {})
    for condition in reversed(conditions_of(request)):
        if condition.get("message") and condition.get("type") not in ("Approved", "Denied"):
            return str(condition["message"])
    return f"see kubectl describe postgresrole {role.get('name')} -n {role.get('namespace')}"


def who_and_when(condition: Json, word: str) -> str:
    """Say who decided when, as far as the condition says it."""
    when = condition.get("lastUpdateTime") or condition.get("lastTransitionTime")
    return f"{condition.get('approver') or 'somebody'} {word} it" + (f" at {when}" if when else "")


def decided(request: Json, decision: Decision, now: datetime) -> list[Json]:
    """Add the decision to the conditions: an older one of its type is replaced, all others stay as they are."""
    verdict, time = decision.verdict, now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition: Json = {
        "type": verdict.condition,
        "status": "True",
        "reason": verdict.reason,
        "message": verdict.message + (f": {decision.comment}" if decision.comment else ""),
        "lastUpdateTime": time,
        "lastTransitionTime": time,
        "observedGeneration": request["metadata"].get("generation", 0),
        "approver": decision.approver,
    }
    if digest := _status(request).get("digest"):
        condition["digest"] = digest
    return [c for c in conditions_of(request) if c.get("type") != verdict.condition] + [condition]


def conditions_of(request: Json) -> list[Json]:
    """The conditions in the order of the status."""
    return list(_status(request).get("conditions") or [])


def find(request: Json, kind: str) -> Json | None:
    """The condition of one type, with any status: the guide's decisions have none."""
    return next((c for c in conditions_of(request) if c.get("type") == kind), None)


def _status(request: Json) -> Json:
    return request.get("status") or {}
