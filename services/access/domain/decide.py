"""What is due next for an access request, pure: the one function that every entry of the service asks.

EnsureAccessRequest answers it to the watcher, ClaimCredential and the claim inside EnsureAccessRequest begin what it
says, and AcknowledgeCredential accepts what it says. The rules are those of the exhaustive model (docs/safety.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from services.access.domain.attempt_states import LIVE, PREPARED, last, pending
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole
from services.access.domain.subjects import why_forbidden

LOOK_AGAIN_S = 30.0
"""While the ledger does not match what the cluster knows, the watcher asks again after this time."""


class Pause(Enum):
    """Why nothing is issued although the access request is approved and its role exists."""

    SECRET_ENGINE = auto()
    LEDGER = auto()


class WaitReason(Enum):
    """Why there is nothing to do for now."""

    NOT_ALLOWED = "the owner of its role does not let its namespace ask for it"
    REQUESTER_UNVERIFIED = "it is not verified who is behind it"
    SUBJECTS_FORBIDDEN = "one of its subjects may not read a credential of its role"
    NOT_APPROVED = "nobody has approved what would be granted now"
    ACCESS_EXPIRED = "the time of its access is over"
    ROLE_MISSING = "its role is not in the catalog"
    SECRET_ENGINE_PAUSED = "its secret engine or connection is about to change"  # noqa: S105 - a reason
    ROLE_CHANGING = "its role is about to change"
    LEDGER_MISMATCH = "the watcher knows another ledger"
    ATTEMPT_UNKNOWN = "the Secret holds an attempt that the ledger does not know"
    BACKOFF = "the last claim failed a moment ago"
    UP_TO_DATE = "the Secret holds the active credential"


@dataclass(frozen=True, slots=True)
class Claim:
    """A credential is due.

    Attributes:
        prepared: The attempt to go on with: it has not read yet and was begun for what is granted now. None to begin
            another.
        replaced: The pending attempt in whose place another is begun; ``REPLACING`` says what becomes of it. None if
            there is none.
    """

    prepared: Attempt | None = None
    replaced: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The Secret holds the credential of this pending attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Remove:
    """Access has ended, or nothing is granted and nothing is left that works: the Secret goes."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due.

    Attributes:
        reason: Why.
        until: When to ask again at the latest, seconds since 1970; None if a change of the access request says so.
    """

    reason: WaitReason
    until: float | None = None


NextStep: TypeAlias = Claim | Acknowledge | Remove | Wait


def decide(
    request: AccessRequest,
    attempts: Sequence[Attempt],
    db_role: DbRole | None,
    *,
    paused: Pause | None,
    secret_attempt: int,
    now: float,
    verified_only: bool = False,
) -> NextStep:
    """Decide what is due next.

    Args:
        request: The access request.
        attempts: Its attempts that are not closed.
        db_role: Its db_role, deleted or not; None if the catalog never had it.
        paused: Why nothing is issued there now; None if something may be issued.
        secret_attempt: Sequence of the attempt whose credential the Secret (or the gRPC caller) holds unharmed; 0 for
            none.
        now: The time, seconds since 1970.
        verified_only: Whether nothing is issued while it is not known who is behind the access request.
    """
    if request.ended:
        return Remove()
    current = pending(attempts)
    if current and secret_attempt == current.sequence and acknowledgeable(request, current, now=now):
        return Acknowledge(current)
    if paused is Pause.LEDGER:  # what the Secret holds may be alive in Vault: it is neither replaced nor removed
        return Wait(WaitReason.LEDGER_MISMATCH, now + LOOK_AGAIN_S)
    if secret_attempt > request.last_sequence:
        return Wait(WaitReason.ATTEMPT_UNKNOWN, now + LOOK_AGAIN_S)
    if obstacle := _obstacle(request, db_role, paused=paused, now=now, verified_only=verified_only):
        if secret_attempt and last(attempts, *LIVE) is None:
            return Remove()
        return Wait(obstacle, _outdated_at(db_role, now=now) if obstacle is WaitReason.ROLE_CHANGING else None)
    if current is None and not replacement_due(request, attempts, db_role, secret_attempt=secret_attempt, now=now):
        return Wait(WaitReason.UP_TO_DATE)
    if request.retry_at is not None and request.retry_at > now:
        return Wait(WaitReason.BACKOFF, request.retry_at)
    if current and current.sequence > secret_attempt and _prepared_for(current, request, db_role):
        return Claim(prepared=current)  # its sequence is lower only if the ledger was lost or restored
    return Claim(replaced=current)


def acknowledgeable(request: AccessRequest, attempt: Attempt, *, now: float) -> bool:
    """Whether an acknowledge of this attempt is accepted."""
    return (
        request.approved
        and not request.expired(now)
        and attempt.state is AttemptState.ISSUED
        and not attempt.expired(now)
    )


def replacement_due(
    request: AccessRequest, attempts: Sequence[Attempt], db_role: DbRole | None, *, secret_attempt: int, now: float
) -> bool:
    """Whether a new attempt is due for an approved access request that has none pending."""
    active = last(attempts, AttemptState.ACTIVE)
    return (
        active is None
        or request.rotation_due
        or secret_attempt != active.sequence
        or active.expired(now)
        or last(attempts, AttemptState.REPLACED) is not None
        or active.grant != request.digest
        or (db_role is not None and active.target != db_role.target)
    )


def _obstacle(
    request: AccessRequest, db_role: DbRole | None, *, paused: Pause | None, now: float, verified_only: bool
) -> WaitReason | None:
    """Why no credential may be issued; None if one may."""
    if db_role is not None and not db_role.allows(request.namespace):
        return WaitReason.NOT_ALLOWED
    if why_forbidden(request, db_role):
        return WaitReason.SUBJECTS_FORBIDDEN
    if verified_only and not request.requester_verified:
        return WaitReason.REQUESTER_UNVERIFIED
    if not request.approved:
        return WaitReason.NOT_APPROVED
    if request.expired(now):
        return WaitReason.ACCESS_EXPIRED
    if db_role is None or db_role.deleted:
        return WaitReason.ROLE_MISSING
    if db_role.paused:
        return WaitReason.ROLE_CHANGING
    return WaitReason.SECRET_ENGINE_PAUSED if paused else None


def _outdated_at(db_role: DbRole | None, *, now: float) -> float | None:
    """When a paused db_role counts as outdated, which its access requests show from then on; None if it does so now."""
    at = db_role.outdated_at if db_role else None
    return at if at is not None and at > now else None


def _prepared_for(attempt: Attempt, request: AccessRequest, db_role: DbRole | None) -> bool:
    """Whether an attempt has not read yet and was begun for what would be granted now."""
    return (
        db_role is not None
        and attempt.state in PREPARED
        and attempt.grant == request.digest
        and attempt.target == db_role.target
        and attempt.role_digest == db_role.digest
    )
