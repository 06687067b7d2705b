"""What is due next for an access request: one function for every entry."""

from __future__ import annotations

from typing import Any

import pytest

from services.access.domain.decide import (
    LOOK_AGAIN_S,
    Acknowledge,
    Claim,
    NextStep,
    Pause,
    Remove,
    Wait,
    WaitReason,
    acknowledgeable,
    decide,
    replacement_due,
)
from services.access.domain.models import AccessRequest, Approval, Attempt, AttemptState
from tests.unit.access.access_builders import a_request, a_role, an_attempt

S = AttemptState
NOW = 100.0


def step(
    *attempts: Attempt, request: AccessRequest | None = None, secret_attempt: int = 0, now: float = NOW, **changes: Any
) -> NextStep:
    found = request or a_request(last_sequence=9)
    usual: dict[str, Any] = {"role": a_role(), "paused": None, **changes}
    return decide(found, attempts, usual["role"], paused=usual["paused"], secret_attempt=secret_attempt, now=now)


@pytest.mark.parametrize(
    ("attempts", "secret_attempt", "expected"),
    [
        ([], 0, True),
        ([an_attempt(S.ACTIVE)], 1, False),
        ([an_attempt(S.ACTIVE)], 0, True),  # "lost": the Secret does not hold it
        ([an_attempt(S.ACTIVE, 2)], 1, True),
        ([an_attempt(S.REPLACED, 1), an_attempt(S.ACTIVE, 2)], 2, True),  # "due": one that may be in a Secret is left
        ([an_attempt(S.RETIRING, 1), an_attempt(S.ACTIVE, 2)], 2, False),
        ([an_attempt(S.ACTIVE, ends_at=100.0)], 1, True),  # "alive"
        ([an_attempt(S.ACTIVE, grant="b" * 64)], 1, True),  # granted under another digest
        ([an_attempt(S.ACTIVE, target=7)], 1, True),  # at another Vault
    ],
)
def test_when_a_new_attempt_is_due(attempts: list[Attempt], secret_attempt: int, expected: bool) -> None:
    assert replacement_due(a_request(), attempts, a_role(), secret_attempt=secret_attempt, now=200.0) is expected
    found = step(*attempts, secret_attempt=secret_attempt, now=200.0)
    assert found == (Claim() if expected else Wait(WaitReason.UP_TO_DATE))


def test_a_rotation_makes_one_due() -> None:
    assert replacement_due(a_request(rotation_due=True), [an_attempt()], a_role(), secret_attempt=1, now=0.0)
    assert step(an_attempt(), request=a_request(rotation_due=True, last_sequence=1), secret_attempt=1) == Claim()


@pytest.mark.parametrize("state", list(AttemptState))
def test_only_an_issued_attempt_is_acknowledged(state: AttemptState) -> None:
    assert acknowledgeable(a_request(), an_attempt(state), now=0.0) is (state is S.ISSUED)
    assert isinstance(step(an_attempt(state), secret_attempt=1), Acknowledge) is (state is S.ISSUED)


def test_nothing_is_acknowledged_past_its_end_or_without_approval() -> None:
    assert not acknowledgeable(a_request(), an_attempt(S.ISSUED), now=3600.0)
    assert not acknowledgeable(a_request(ends_at=50.0), an_attempt(S.ISSUED), now=50.0)
    for approval in Approval:
        approved = approval is Approval.APPROVED
        assert acknowledgeable(a_request(approval=approval), an_attempt(S.ISSUED), now=0.0) is approved


def test_a_claim_goes_on_with_a_prepared_attempt() -> None:
    for state in (S.TOKEN_READY, S.PENDING):
        assert step(an_attempt(state)) == Claim(prepared=an_attempt(state))


@pytest.mark.parametrize("change", [{"grant": "b" * 64}, {"role_digest": "r2"}, {"target": 2}])
def test_a_claim_does_not_use_a_token_made_for_something_else(change: dict[str, Any]) -> None:
    former = an_attempt(S.TOKEN_READY, **change)
    assert step(former) == Claim(replaced=former)


def test_a_claim_does_not_go_below_the_attempt_in_the_secret() -> None:
    former = an_attempt(S.TOKEN_READY, 3)
    assert step(former, secret_attempt=3) == Claim(replaced=former)


def test_a_claim_replaces_an_attempt_that_has_begun_to_read() -> None:
    for state in (S.ISSUED, S.ISSUING):
        assert step(an_attempt(state)) == Claim(replaced=an_attempt(state))


def test_a_secret_that_holds_the_newest_needs_no_claim() -> None:
    assert step(an_attempt(S.ACTIVE), secret_attempt=1) == Wait(WaitReason.UP_TO_DATE)
    assert step(an_attempt(S.ISSUED), secret_attempt=1) == Acknowledge(an_attempt(S.ISSUED))
    past_its_end = step(an_attempt(S.ISSUED), secret_attempt=1, now=3600.0)
    assert past_its_end == Claim(replaced=an_attempt(S.ISSUED))
    assert step() == Claim()


@pytest.mark.parametrize("approval", [Approval.DENIED, Approval.WITHDRAWN, Approval.EXPIRED])
def test_ended_access_removes_the_secret(approval: Approval) -> None:
    request = a_request(approval=approval)
    assert step(an_attempt(S.REVOKING), request=request) == Remove()
    assert step(an_attempt(S.REVOKING), request=request, secret_attempt=1) == Remove()


def test_nothing_is_due_before_a_decision() -> None:
    request = a_request(approval=Approval.PENDING)
    assert step(an_attempt(S.TOKEN_READY), request=request) == Wait(WaitReason.NOT_APPROVED)


def test_access_whose_time_is_over_is_neither_claimed_nor_acknowledged() -> None:
    """Until a worker has noted it, which takes a moment."""
    request = a_request(ends_at=50.0, last_sequence=1)
    assert step(request=request) == Wait(WaitReason.ACCESS_EXPIRED)
    assert step(an_attempt(S.ISSUED), request=request, secret_attempt=1) == Wait(WaitReason.ACCESS_EXPIRED)


def test_a_failed_claim_waits_for_its_pause() -> None:
    failed = a_request(error_reason="VAULT_SEALED", error_message="sealed", retry_at=107.0)
    assert step(request=failed) == Wait(WaitReason.BACKOFF, 107.0)
    assert step(request=failed, now=107.0) == Claim()


@pytest.mark.parametrize("role", [None, a_role(deleted=True)])
def test_without_a_role_nothing_is_issued_and_nothing_in_use_removed(role: Any) -> None:
    missing = Wait(WaitReason.ROLE_MISSING)
    assert step(an_attempt(S.ACTIVE), secret_attempt=1, role=role) == missing
    assert step(secret_attempt=1, role=role) == Remove()  # the credential in the Secret does not work any more
    assert step(role=role) == missing


def test_a_paused_secret_engine_issues_nothing() -> None:
    paused = Wait(WaitReason.SECRET_ENGINE_PAUSED)
    assert step(paused=Pause.SECRET_ENGINE) == paused
    assert step(an_attempt(S.ACTIVE), secret_attempt=1, paused=Pause.SECRET_ENGINE) == paused
    assert step(secret_attempt=1, paused=Pause.SECRET_ENGINE) == Remove()


def test_a_stale_approval_leaves_the_credential_in_use() -> None:
    pending = a_request(approval=Approval.PENDING, outdated=True, last_sequence=1)
    assert step(an_attempt(S.ACTIVE), request=pending, secret_attempt=1) == Wait(WaitReason.NOT_APPROVED)
    assert step(request=pending, secret_attempt=1) == Remove()


def test_a_ledger_that_does_not_match_replaces_and_removes_nothing() -> None:
    """What the Secret holds may be alive in Vault."""
    again = NOW + LOOK_AGAIN_S
    assert step(secret_attempt=1, paused=Pause.LEDGER) == Wait(WaitReason.LEDGER_MISMATCH, again)
    assert step(secret_attempt=1, paused=Pause.LEDGER, role=None) == Wait(WaitReason.LEDGER_MISMATCH, again)
    unknown = step(request=a_request(last_sequence=6), secret_attempt=7)
    assert unknown == Wait(WaitReason.ATTEMPT_UNKNOWN, again)
    acknowledged = step(an_attempt(S.ISSUED), secret_attempt=1, paused=Pause.LEDGER)
    assert acknowledged == Acknowledge(an_attempt(S.ISSUED))


@pytest.mark.parametrize(("allow_from", "expected"), [((), False), (("other",), False), (("other", "evil"), True)])
def test_a_role_of_another_namespace_needs_its_owners_word(allow_from: tuple[str, ...], expected: bool) -> None:
    request, role = a_request(namespace="evil", last_sequence=9), a_role(allow_from=allow_from)
    refused = Wait(WaitReason.NOT_ALLOWED)
    assert step(request=request, role=role) == (Claim() if expected else refused)
    held = step(an_attempt(), request=request, role=role, secret_attempt=1)
    assert held == (Wait(WaitReason.UP_TO_DATE) if expected else refused)
