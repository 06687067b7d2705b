"""The rules of attempts, pure: which transitions there are, when a new attempt is due, and what a claim has to do.

They are those of proofs/attempt_model.py (``ENDING``, ``pending``, ``due``, ``takes``, ``claimed``); the ledger commits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole

ENDING: Mapping[AttemptState, AttemptState] = {
    AttemptState.PENDING: AttemptState.REVOKING_TOKEN,
    AttemptState.TOKEN_READY: AttemptState.REVOKING_TOKEN,
    AttemptState.ISSUING: AttemptState.REVOKING,
    AttemptState.ISSUED: AttemptState.REVOKING,
    AttemptState.ACTIVE: AttemptState.REVOKING,
    AttemptState.RETIRING: AttemptState.REVOKING,
    AttemptState.REPLACED: AttemptState.REVOKING,
}
"""What the end of access makes of an attempt; what is not named is being ended already."""

LAPSING: Mapping[AttemptState, AttemptState] = {
    AttemptState.PENDING: AttemptState.REVOKING_TOKEN,
    AttemptState.TOKEN_READY: AttemptState.REVOKING_TOKEN,
    AttemptState.ISSUING: AttemptState.REVOKING,
    AttemptState.ISSUED: AttemptState.REVOKING,
}
"""What becomes of an attempt when an approval counts no longer, but nothing was taken away: a credential in use runs to
its end.
"""

ALLOWED: Mapping[AttemptState, frozenset[AttemptState]] = {
    AttemptState.PENDING: frozenset({AttemptState.TOKEN_READY, AttemptState.ISSUING, AttemptState.REVOKING_TOKEN}),
    AttemptState.TOKEN_READY: frozenset({AttemptState.TOKEN_READY, AttemptState.ISSUING, AttemptState.REVOKING_TOKEN}),
    AttemptState.ISSUING: frozenset(
        {AttemptState.ISSUED, AttemptState.REVOKING, AttemptState.REVOKING_TOKEN, AttemptState.RECOVERING}
    ),
    AttemptState.ISSUED: frozenset({AttemptState.ACTIVE, AttemptState.REPLACED, AttemptState.REVOKING}),
    AttemptState.ACTIVE: frozenset({AttemptState.RETIRING, AttemptState.REVOKING}),
    AttemptState.RETIRING: frozenset({AttemptState.REVOKING}),
    AttemptState.REPLACED: frozenset({AttemptState.RETIRING, AttemptState.REVOKING}),
    AttemptState.REVOKING_TOKEN: frozenset({AttemptState.CLOSED}),
    AttemptState.REVOKING: frozenset({AttemptState.RECOVERING, AttemptState.REVOKING_TOKEN, AttemptState.CLOSED}),
    AttemptState.RECOVERING: frozenset({AttemptState.CLOSED}),
    AttemptState.CLOSED: frozenset(),
}
"""Every transition. READING to END_TOKEN is the one that the paper model folds into END: Vault answered 4xx, so nothing
was made.

END to END_TOKEN is the 2xx of the revoke by lease id: the login is gone, and nobody has to wait for the end of its
token.
"""

PENDING = (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.ISSUING, AttemptState.ISSUED)


def last(attempts: Sequence[Attempt], *states: AttemptState) -> Attempt | None:
    """The newest attempt in one of these states."""
    return max((a for a in attempts if a.state in states), key=lambda a: a.sequence, default=None)


def pending(attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that was begun and neither acknowledged nor ended."""
    return last(attempts, *PENDING)


def due(
    request: AccessRequest, attempts: Sequence[Attempt], *, secret_attempt: int, role: DbRole | None, now: float
) -> bool:
    """Whether a new attempt is due when none is pending.

    Args:
        request: The request.
        attempts: Its open attempts.
        secret_attempt: Number of the attempt whose credential the caller holds; 0 for none.
        role: The role as it is now, None if it is gone.
        now: The time.
    """
    active = last(attempts, AttemptState.ACTIVE)
    return (
        active is None
        or request.rotation_due
        or secret_attempt != active.sequence
        or active.expired(now)
        or last(attempts, AttemptState.REPLACED) is not None
        or active.grant != request.digest
        or (role is not None and active.target != role.target)
    )


def takes(request: AccessRequest, attempt: Attempt | None, *, now: float) -> bool:
    """Whether an acknowledge of ``attempt`` would be accepted."""
    return (
        request.approved and attempt is not None and attempt.state is AttemptState.ISSUED and not attempt.expired(now)
    )


@dataclass(frozen=True, slots=True)
class Nothing:
    """A claim has nothing to do: the caller holds what there is, or has to acknowledge it."""

    why: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """A claim goes on with an attempt that has not read yet."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Begin:
    """A claim begins a new attempt; ``replaced`` ones leave their state first, each to the state given."""

    replaced: tuple[tuple[Attempt, AttemptState], ...] = ()


Plan: TypeAlias = Nothing | GoOn | Begin


def plan(request: AccessRequest, attempts: Sequence[Attempt], *, secret_attempt: int, role: DbRole, now: float) -> Plan:
    """What a claim of an approved request has to do."""
    current = pending(attempts)
    if current is None and not due(request, attempts, secret_attempt=secret_attempt, role=role, now=now):
        return Nothing("the caller holds the active credential already")
    if current is not None and secret_attempt == current.sequence and takes(request, current, now=now):
        return Nothing("the caller holds the pending credential already: acknowledge it")
    if current is None:
        return Begin()
    if current.state not in (AttemptState.PENDING, AttemptState.TOKEN_READY):
        return Begin(((current, superseded(current.state)),))
    if (
        fits(current, request=request, role=role) and current.sequence > secret_attempt
    ):  # it falls below only if the ledger was lost or restored
        return GoOn(current)
    return Begin(((current, AttemptState.REVOKING_TOKEN),))


def superseded(state: AttemptState) -> AttemptState:
    """What an attempt that has begun to read becomes when another is begun: one that was never answered is undone at
    once.
    """
    return AttemptState.REVOKING if state is AttemptState.ISSUING else AttemptState.REPLACED


def fits(attempt: Attempt, *, request: AccessRequest, role: DbRole) -> bool:
    """Whether an attempt was begun for what would be granted now."""
    return attempt.grant == request.digest and attempt.target == role.target and attempt.role_digest == role.digest
