"""The code's decisions against the protocol's, in every state of up to four attempts.

Both are asked for the same states: ``services.access.domain.decide`` and ``tests.model.protocol.model`` with all
of its rules. Where the code differs on purpose, the test says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from services.access.domain import decide as rules
from services.access.domain.attempt_states import REPLACING, pending
from services.access.domain.decide import NextStep, acknowledgeable, decide, replacement_due
from services.access.domain.models import Approval, Attempt, AttemptState
from tests.model.protocol.model import Claim, Decision, Model
from tests.model.protocol.scenarios import SCENARIOS, Rule
from tests.model.protocol.state import NONE, Request, State
from tests.model.protocol.state import Attempt as ProtocolAttempt
from tests.unit.access.access_builders import a_request, a_role, an_attempt

NOW = 100.0
PROTOCOL = Model(Rule, SCENARIOS["deny"])


class Kind(NamedTuple):
    """An attempt as far as a decision looks at it."""

    state: AttemptState
    expired: bool = False


KINDS = (
    Kind(AttemptState.PENDING),
    Kind(AttemptState.TOKEN_READY),
    Kind(AttemptState.ISSUING),
    Kind(AttemptState.RETIRING),
    Kind(AttemptState.REPLACED),
    Kind(AttemptState.REVOKING),
    *(Kind(state, expired) for state in (AttemptState.ISSUED, AttemptState.ACTIVE) for expired in (False, True)),
)
"""REVOKING stands for all that is revoked or closed: no decision tells them apart, which is tested below."""

ATTEMPTS = {
    (number, kind): an_attempt(kind.state, number, ends_at=NOW if kind.expired else NOW + 1)
    for number in range(1, 5)
    for kind in KINDS
}


def every_state(most: int) -> Iterator[tuple[Kind, ...]]:
    """Every sequence of up to so many attempts of which at most one is active (I4)."""
    for count in range(most + 1):
        for kinds in itertools.product(KINDS, repeat=count):
            if sum(kind.state is AttemptState.ACTIVE for kind in kinds) <= 1:
                yield kinds


def for_code(kinds: Sequence[Kind]) -> list[Attempt]:
    return [ATTEMPTS[number, kind] for number, kind in enumerate(kinds, 1)]


def for_protocol(kinds: Sequence[Kind], *, rotation_due: bool = False) -> State:
    attempts = tuple(ProtocolAttempt(state=kind.state, expired=kind.expired) for kind in kinds)
    return State(request=Request.APPROVED, rotation_due=rotation_due, attempts=attempts)


@pytest.mark.parametrize("most", [3, 4])
def test_pending_due_and_acknowledgeable_are_the_protocols(most: int) -> None:
    granted, withdrawn, rotating = a_request(), a_request(approval=Approval.PENDING), a_request(rotation_due=True)
    role = a_role()
    for kinds in every_state(most):
        state, found = for_protocol(kinds), for_code(kinds)
        current, expected = pending(found), PROTOCOL.pending(state)
        assert (current.sequence - 1 if current else NONE) == expected
        accepted = current is not None and acknowledgeable(granted, current, now=NOW)
        assert accepted is PROTOCOL.acknowledgeable(state, expected)
        assert current is None or not acknowledgeable(withdrawn, current, now=NOW)
        assert replacement_due(rotating, found, role, secret_attempt=0, now=NOW)
        for secret_attempt in range(len(kinds) + 1):
            due = replacement_due(granted, found, role, secret_attempt=secret_attempt, now=NOW)
            assert due is PROTOCOL.due(state, secret_attempt), (kinds, secret_attempt)


@pytest.mark.parametrize("rotation_due", [False, True])
def test_what_a_claim_does_is_the_protocols(rotation_due: bool) -> None:
    request, role = a_request(rotation_due=rotation_due, last_sequence=4), a_role()
    for kinds in every_state(4 if rotation_due else 3):
        state, found = for_protocol(kinds, rotation_due=rotation_due), for_code(kinds)
        for secret_attempt in range(len(kinds) + 1):
            expected = PROTOCOL.decide_claim(state, secret_attempt)
            step = decide(request, found, role, paused=None, secret_attempt=secret_attempt, now=NOW)
            if expected.claim is Claim.GO_ON and secret_attempt > expected.attempt:
                # Its number would not rise above the Secret's: only after the ledger was lost or restored, which the
                # protocol leaves out.
                assert step == rules.Claim(replaced=found[expected.attempt])
                assert REPLACING[found[expected.attempt].state] is AttemptState.REVOKING_TOKEN
            else:
                assert _decision(step) == expected, (kinds, secret_attempt)


def _decision(step: NextStep) -> Decision:
    if not isinstance(step, rules.Claim):
        return Decision(Claim.NOTHING)
    if step.prepared:
        return Decision(Claim.GO_ON, step.prepared.sequence - 1)
    if not step.replaced:
        return Decision(Claim.BEGIN)
    return Decision(Claim.BEGIN, step.replaced.sequence - 1, REPLACING[step.replaced.state])


@pytest.mark.parametrize(
    "state", [AttemptState.REVOKING, AttemptState.REVOKING_TOKEN, AttemptState.RECOVERING, AttemptState.CLOSED]
)
def test_what_is_revoked_or_closed_counts_for_nothing(state: AttemptState) -> None:
    rest = [an_attempt(AttemptState.ACTIVE, 1)]
    gone = [*rest, an_attempt(state, 2)]
    request, role = a_request(last_sequence=4), a_role()
    for secret_attempt in range(4):
        assert replacement_due(request, gone, role, secret_attempt=secret_attempt, now=0) is replacement_due(
            request, rest, role, secret_attempt=secret_attempt, now=0
        )
        assert decide(request, gone, role, paused=None, secret_attempt=secret_attempt, now=0) == decide(
            request, rest, role, paused=None, secret_attempt=secret_attempt, now=0
        )
    assert pending(gone) is None
