"""The states of an attempt: which transitions exist, and what ends or replaces one."""

from __future__ import annotations

from services.access.domain.attempt_states import ALLOWED, ENDING, LAPSING, REPLACING, pending
from services.access.domain.models import AttemptState
from tests.unit.access.access_builders import an_attempt

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
    for mapping in (ENDING, LAPSING, REPLACING):
        assert all(to in ALLOWED[state] for state, to in mapping.items())


def test_a_lapsed_approval_revokes_nothing_that_is_in_use() -> None:
    assert not {S.ACTIVE, S.RETIRING, S.REPLACED} & LAPSING.keys()


def test_recovering_only_closes_and_closed_is_final() -> None:
    assert ALLOWED[S.RECOVERING] == {S.CLOSED}
    assert not ALLOWED[S.CLOSED]


def test_a_read_is_begun_once() -> None:
    assert {state for state, to in ALLOWED.items() if S.ISSUING in to} == {S.PENDING, S.TOKEN_READY}


def test_only_issuing_becomes_issued_and_only_issued_becomes_active() -> None:
    assert {state for state, to in ALLOWED.items() if S.ISSUED in to} == {S.ISSUING}
    assert {state for state, to in ALLOWED.items() if S.ACTIVE in to} == {S.ISSUED}


def test_pending_is_the_newest_that_is_on_its_way() -> None:
    assert pending([an_attempt(S.TOKEN_READY, 1), an_attempt(S.ISSUING, 2), an_attempt(S.ACTIVE, 3)]) == an_attempt(
        S.ISSUING, 2
    )
    assert pending([an_attempt(S.ACTIVE), an_attempt(S.REVOKING, 2)]) is None


def test_a_claim_replaces_what_was_answered_and_ends_what_was_not() -> None:
    assert REPLACING[S.ISSUED] is S.REPLACED
    assert REPLACING[S.ISSUING] is S.REVOKING
    assert REPLACING[S.PENDING] is REPLACING[S.TOKEN_READY] is S.REVOKING_TOKEN
