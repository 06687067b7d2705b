"""The rules of attempts, pure: which transitions there are, when a new attempt is due, and what a claim has to do.

They are those of proofs/attempt_model.py (``ENDING``, ``pending``, ``due``, ``takes``, ``claimed``); the ledger commits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.access.records import Attempt, Request, Role, State

ENDING: Mapping[State, State] = {
    State.NEW: State.END_TOKEN,
    State.TOKEN: State.END_TOKEN,
    State.READING: State.END,
    State.ISSUED: State.END,
    State.ACTIVE: State.END,
    State.OLD: State.END,
    State.SUPERSEDED: State.END,
}
"""What the end of access makes of an attempt; what is not named is being ended already."""

LAPSING: Mapping[State, State] = {
    State.NEW: State.END_TOKEN,
    State.TOKEN: State.END_TOKEN,
    State.READING: State.END,
    State.ISSUED: State.END,
}
"""What becomes of an attempt when an approval counts no longer, but nothing was taken away: a credential in use runs to its end."""

ALLOWED: Mapping[State, frozenset[State]] = {
    State.NEW: frozenset({State.TOKEN, State.READING, State.END_TOKEN}),
    State.TOKEN: frozenset({State.TOKEN, State.READING, State.END_TOKEN}),
    State.READING: frozenset({State.ISSUED, State.END, State.END_TOKEN, State.UNDOING}),
    State.ISSUED: frozenset({State.ACTIVE, State.SUPERSEDED, State.END}),
    State.ACTIVE: frozenset({State.OLD, State.END}),
    State.OLD: frozenset({State.END}),
    State.SUPERSEDED: frozenset({State.OLD, State.END}),
    State.END_TOKEN: frozenset({State.CLOSED}),
    State.END: frozenset({State.UNDOING, State.END_TOKEN, State.CLOSED}),
    State.UNDOING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""Every transition. READING to END_TOKEN is the one that the paper model folds into END: Vault answered 4xx, so nothing was made.

END to END_TOKEN is the 2xx of the revoke by lease id: the login is gone, and nobody has to wait for the end of its token.
"""

PENDING = (State.NEW, State.TOKEN, State.READING, State.ISSUED)


def last(attempts: Sequence[Attempt], *states: State) -> Attempt | None:
    """The newest attempt in one of these states."""
    return max((a for a in attempts if a.state in states), key=lambda a: a.number, default=None)


def pending(attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that was begun and neither acknowledged nor ended."""
    return last(attempts, *PENDING)


def due(request: Request, attempts: Sequence[Attempt], *, held: int, role: Role | None, now: float) -> bool:
    """Whether a new attempt is due when none is pending.

    Args:
        request: The request.
        attempts: Its open attempts.
        held: Number of the attempt whose credential the caller holds; 0 for none.
        role: The role as it is now, None if it is gone.
        now: The time.
    """
    active = last(attempts, State.ACTIVE)
    return (
        active is None
        or request.due
        or held != active.number
        or active.over(now)
        or last(attempts, State.SUPERSEDED) is not None
        or active.grant != request.digest
        or (role is not None and active.target != role.target)
    )


def takes(request: Request, attempt: Attempt | None, *, now: float) -> bool:
    """Whether an acknowledge of ``attempt`` would be accepted."""
    return request.approved and attempt is not None and attempt.state is State.ISSUED and not attempt.over(now)


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

    replaced: tuple[tuple[Attempt, State], ...] = ()


Plan: TypeAlias = Nothing | GoOn | Begin


def plan(request: Request, attempts: Sequence[Attempt], *, held: int, role: Role, now: float) -> Plan:
    """What a claim of an approved request has to do."""
    current = pending(attempts)
    if current is None and not due(request, attempts, held=held, role=role, now=now):
        return Nothing("the caller holds the active credential already")
    if current is not None and held == current.number and takes(request, current, now=now):
        return Nothing("the caller holds the pending credential already: acknowledge it")
    if current is None:
        return Begin()
    if current.state not in (State.NEW, State.TOKEN):
        return Begin(((current, superseded(current.state)),))
    if fits(current, request=request, role=role) and current.number > held:  # it falls below only if the ledger was lost or restored
        return GoOn(current)
    return Begin(((current, State.END_TOKEN),))


def superseded(state: State) -> State:
    """What an attempt that has begun to read becomes when another is begun: one that was never answered is undone at once."""
    return State.END if state is State.READING else State.SUPERSEDED


def fits(attempt: Attempt, *, request: Request, role: Role) -> bool:
    """Whether an attempt was begun for what would be granted now."""
    return attempt.grant == request.digest and attempt.target == role.target and attempt.role_digest == role.digest
