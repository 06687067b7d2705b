"""The rules of attempts, as docs/safety.md states them."""

from __future__ import annotations

from typing import Any

import pytest

from services.access.domain import attempt_states as rules
from services.access.domain.attempt_states import (
    ALLOWED,
    ENDING,
    LAPSING,
    Begin,
    GoOn,
    Nothing,
    due,
    pending,
    plan,
    takes,
)
from services.access.domain.models import Approval, Attempt, AttemptState
from tests.unit.access.access_builders import a_request, a_role, an_attempt

S = AttemptState


def test_the_end_of_access_ends_every_attempt_that_is_not_being_ended() -> None:
    assert {state for state in AttemptState if state not in ENDING} == {
        S.REVOKING_TOKEN,
        S.REVOKING,
        S.RECOVERING,
        S.CLOSED,
    }
    assert {state for state, to in ENDING.items() if to is S.REVOKING_TOKEN} == {S.PENDING, S.TOKEN_READY}


def test_endings_are_transitions() -> None:
    for mapping in (ENDING, LAPSING):
        assert all(to in ALLOWED[state] for state, to in mapping.items())


def test_a_lapsed_approval_takes_nothing_that_is_in_use() -> None:
    assert not {S.ACTIVE, S.RETIRING, S.REPLACED} & LAPSING.keys()


def test_what_is_being_undone_only_closes_and_what_is_closed_stays() -> None:
    assert ALLOWED[S.RECOVERING] == {S.CLOSED}
    assert not ALLOWED[S.CLOSED]


def test_a_read_is_begun_once() -> None:
    assert {state for state, to in ALLOWED.items() if S.ISSUING in to} == {S.PENDING, S.TOKEN_READY}


def test_a_lease_is_committed_from_reading_alone_and_acknowledged_from_issued_alone() -> None:
    assert {state for state, to in ALLOWED.items() if S.ISSUED in to} == {S.ISSUING}
    assert {state for state, to in ALLOWED.items() if S.ACTIVE in to} == {S.ISSUED}


@pytest.mark.parametrize(
    ("attempts", "secret_attempt", "expected"),
    [
        ([], 0, True),
        ([an_attempt(S.ACTIVE)], 1, False),
        ([an_attempt(S.ACTIVE)], 0, True),  # "lost": the caller does not hold it
        ([an_attempt(S.ACTIVE, 2)], 1, True),
        ([an_attempt(S.REPLACED, 1), an_attempt(S.ACTIVE, 2)], 2, True),  # "due": one that may be in a Secret is left
        ([an_attempt(S.RETIRING, 1), an_attempt(S.ACTIVE, 2)], 2, False),
        ([an_attempt(S.ACTIVE, ends_at=100.0)], 1, True),  # "alive"
        ([an_attempt(S.ACTIVE, grant="b" * 64)], 1, True),  # granted under another digest
        ([an_attempt(S.ACTIVE, target=7)], 1, True),  # at another Vault
    ],
)
def test_when_a_new_attempt_is_due(attempts: list[Attempt], secret_attempt: int, expected: bool) -> None:
    assert due(a_request(), attempts, secret_attempt=secret_attempt, role=a_role(), now=200.0) is expected


def test_a_rotation_makes_one_due() -> None:
    assert due(a_request(rotation_due=True), [an_attempt()], secret_attempt=1, role=a_role(), now=0.0)


@pytest.mark.parametrize("state", list(AttemptState))
def test_only_an_issued_attempt_is_acknowledged(state: AttemptState) -> None:
    assert takes(a_request(), an_attempt(state), now=0.0) is (state is S.ISSUED)


def test_nothing_is_acknowledged_past_its_end_or_without_approval() -> None:
    assert not takes(a_request(), an_attempt(S.ISSUED), now=3600.0)
    assert not takes(a_request(), None, now=0.0)
    for approval in Approval:
        assert takes(a_request(approval=approval), an_attempt(S.ISSUED), now=0.0) is (approval is Approval.APPROVED)


def test_pending_is_the_newest_that_is_on_its_way() -> None:
    assert pending([an_attempt(S.TOKEN_READY, 1), an_attempt(S.ISSUING, 2), an_attempt(S.ACTIVE, 3)]) == an_attempt(
        S.ISSUING, 2
    )
    assert pending([an_attempt(S.ACTIVE), an_attempt(S.REVOKING, 2)]) is None


def _plan(*attempts: Attempt, secret_attempt: int = 0, now: float = 0.0) -> rules.Plan:
    return plan(a_request(), list(attempts), secret_attempt=secret_attempt, role=a_role(), now=now)


def test_a_claim_goes_on_with_what_was_made_beforehand() -> None:
    assert _plan(an_attempt(S.TOKEN_READY)) == GoOn(an_attempt(S.TOKEN_READY))
    assert _plan(an_attempt(S.PENDING)) == GoOn(an_attempt(S.PENDING))


@pytest.mark.parametrize("change", [{"grant": "b" * 64}, {"role_digest": "r2"}, {"target": 2}])
def test_a_claim_does_not_use_a_token_that_was_made_for_something_else(change: dict[str, Any]) -> None:
    former = an_attempt(S.TOKEN_READY, **change)
    assert _plan(former) == Begin(((former, S.REVOKING_TOKEN),))


def test_a_claim_does_not_go_below_the_number_that_is_held() -> None:
    former = an_attempt(S.TOKEN_READY, 3)
    assert _plan(former, secret_attempt=3) == Begin(((former, S.REVOKING_TOKEN),))


def test_a_claim_supersedes_what_was_answered_and_ends_what_was_not() -> None:
    answered, reading = an_attempt(S.ISSUED), an_attempt(S.ISSUING)
    assert _plan(answered) == Begin(((answered, S.REPLACED),))
    assert _plan(reading) == Begin(((reading, S.REVOKING),))


def test_a_claim_has_nothing_to_do_for_who_holds_it() -> None:
    assert isinstance(_plan(an_attempt(S.ACTIVE), secret_attempt=1), Nothing)
    assert isinstance(_plan(an_attempt(S.ISSUED), secret_attempt=1), Nothing)
    assert _plan(an_attempt(S.ISSUED), secret_attempt=1, now=3600.0) == Begin(
        ((an_attempt(S.ISSUED), S.REPLACED),)
    )  # past its end
    assert _plan() == Begin()
