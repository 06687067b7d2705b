"""The states of an attempt, pure: its transitions, and what becomes of it when access ends or another is begun.

They are those of the exhaustive model (docs/safety.md); the ledger commits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.access.domain.models import Attempt, AttemptState

ENDING: Mapping[AttemptState, AttemptState] = {
    AttemptState.PENDING: AttemptState.REVOKING_TOKEN,
    AttemptState.TOKEN_READY: AttemptState.REVOKING_TOKEN,
    AttemptState.ISSUING: AttemptState.REVOKING,
    AttemptState.ISSUED: AttemptState.REVOKING,
    AttemptState.ACTIVE: AttemptState.REVOKING,
    AttemptState.RETIRING: AttemptState.REVOKING,
    AttemptState.REPLACED: AttemptState.REVOKING,
}
"""What becomes of an attempt when access ends; a state that is not named is being revoked already."""

LAPSING: Mapping[AttemptState, AttemptState] = {
    AttemptState.PENDING: AttemptState.REVOKING_TOKEN,
    AttemptState.TOKEN_READY: AttemptState.REVOKING_TOKEN,
    AttemptState.ISSUING: AttemptState.REVOKING,
    AttemptState.ISSUED: AttemptState.REVOKING,
}
"""What becomes of an attempt when its approval does not count any more: a credential in use runs to its end."""

REPLACING: Mapping[AttemptState, AttemptState] = {
    AttemptState.PENDING: AttemptState.REVOKING_TOKEN,
    AttemptState.TOKEN_READY: AttemptState.REVOKING_TOKEN,
    AttemptState.ISSUING: AttemptState.REVOKING,
    AttemptState.ISSUED: AttemptState.REPLACED,
}
"""What becomes of a pending attempt when another is begun.

A credential that was answered may be in a Secret already: it lives until the later one is acknowledged.
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
"""Every transition.

ISSUING to REVOKING_TOKEN: Vault refused the read before it made anything. The model folds that into REVOKING.
REVOKING to REVOKING_TOKEN: Vault revoked the lease, so the database user is dropped; only the token is left.
"""

PENDING = (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.ISSUING, AttemptState.ISSUED)
"""States of an attempt that was begun and is neither acknowledged nor ended."""

PREPARED = (AttemptState.PENDING, AttemptState.TOKEN_READY)
"""States of an attempt that has not read a credential yet: all that may exist is its token."""

LIVE = (AttemptState.ISSUED, AttemptState.ACTIVE, AttemptState.REPLACED, AttemptState.RETIRING)
"""States of an attempt whose credential works."""


def last(attempts: Sequence[Attempt], *states: AttemptState) -> Attempt | None:
    """The newest attempt in one of these states."""
    return max((a for a in attempts if a.state in states), key=lambda a: a.sequence, default=None)


def pending(attempts: Sequence[Attempt]) -> Attempt | None:
    """The newest attempt that was begun and is neither acknowledged nor ended."""
    return last(attempts, *PENDING)
