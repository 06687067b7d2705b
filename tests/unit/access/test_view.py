"""What is shown of a request, and what the watcher is told to do next."""

from __future__ import annotations

from typing import Any

import pytest

from services.access.domain.models import Approval, Attempt, AttemptState
from services.access.domain.request_view import AccessRequestView, AccessState, NextStep
from tests.unit.access.access_builders import a_request, a_role, an_attempt

S = AttemptState


def view(*attempts: Attempt, **changes: Any) -> AccessRequestView:
    usual: dict[str, Any] = {
        "request": a_request(),
        "decisions": (),
        "role": a_role(),
        "quiesced": False,
        "service_auth": True,
        "now": 100.0,
    }
    return AccessRequestView(attempts=tuple(attempts), **{**usual, **changes})


def step(shown: AccessRequestView, secret_attempt: int = 0) -> NextStep:
    return shown.next_step(secret_attempt)[0]


def conditions(shown: AccessRequestView) -> dict[str, str]:
    return {each.type: each.reason for each in shown.conditions()}


@pytest.mark.parametrize("approval", [Approval.DENIED, Approval.WITHDRAWN, Approval.EXPIRED])
def test_whatever_ends_access_removes(approval: Approval) -> None:
    shown = view(an_attempt(S.REVOKING), request=a_request(approval=approval))
    assert step(shown) is step(shown, 1) is NextStep.REMOVE
    assert (shown.access, shown.active) == (AccessState.ENDING, None)
    assert view(request=a_request(approval=approval)).access is AccessState.ENDED


def test_nothing_is_to_be_done_before_a_decision() -> None:
    shown = view(an_attempt(S.TOKEN_READY), request=a_request(approval=Approval.PENDING))
    assert (step(shown), shown.access, conditions(shown)) == (NextStep.NONE, AccessState.NONE, {})


def test_an_approved_request_is_claimed_kept_and_then_left_alone() -> None:
    assert step(view(an_attempt(S.TOKEN_READY))) is NextStep.CLAIM
    assert step(view(an_attempt(S.ISSUED)), 1) is NextStep.ACKNOWLEDGE
    assert step(view(an_attempt(S.ISSUED)), 0) is NextStep.CLAIM
    assert step(view(an_attempt(S.ACTIVE)), 1) is NextStep.NONE
    assert step(view(an_attempt(S.ACTIVE)), 0) is NextStep.CLAIM


def test_a_failed_claim_waits_for_its_pause() -> None:
    failed = a_request(error_reason="VAULT_SEALED", error_message="sealed", retry_at=107.0)
    assert view(request=failed).next_step(0) == (NextStep.NONE, 7.0)
    assert view(request=failed, now=107.0).next_step(0) == (NextStep.CLAIM, None)
    assert conditions(view(request=failed)) == {"Available": "FailedToGetCredential"}


def test_a_role_that_is_not_there_issues_nothing_and_takes_nothing() -> None:
    for role, reason in (
        (None, {"RoleNotReady": "RoleNotFound"}),
        (a_role(deleted=True), {"RoleDeleted": "PostgresRoleDeleted"}),
    ):
        shown = view(an_attempt(S.ACTIVE), role=role)
        assert (step(shown, 1), shown.digest) == (NextStep.NONE, "")
        assert reason.items() <= conditions(shown).items()
        assert step(view(role=role), 1) is NextStep.REMOVE  # what the Secret holds works no more
        assert step(view(role=role), 0) is NextStep.NONE


def test_an_outdated_approval_leaves_what_is_in_use() -> None:
    pending = a_request(approval=Approval.PENDING, outdated=True)
    shown = view(an_attempt(S.ACTIVE), request=pending)
    assert (step(shown, 1), shown.access) == (NextStep.NONE, AccessState.ACTIVE)
    assert conditions(shown)["ApprovalStale"] == "GrantChanged"
    assert step(view(request=pending), 1) is NextStep.REMOVE


def test_what_is_left_to_drop_is_said_with_its_reason() -> None:
    shown = view(an_attempt(S.RECOVERING, error="Vault is sealed"), request=a_request(approval=Approval.DENIED))
    (condition,) = shown.conditions()
    assert (condition.type, shown.open_count) == ("RevocationPending", 1)
    assert "Vault is sealed" in condition.message


def test_what_is_not_proven_is_said() -> None:
    shown = view(an_attempt(), request=a_request(requester=""), service_auth=False, quiesced=True)
    assert {"RequesterUnverified", "ApprovalNotEnforced", "IssuancePaused"} <= conditions(shown).keys()


def test_tokens_alone_are_no_logins() -> None:
    assert view(an_attempt(S.PENDING), an_attempt(S.TOKEN_READY, 2), an_attempt(S.REVOKING_TOKEN, 3)).open_count == 0
    assert view(an_attempt(S.ISSUING), an_attempt(S.ACTIVE, 2)).open_count == 2


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ((), False),
        ((an_attempt(S.REVOKING_TOKEN),), False),  # its login is gone: nobody waits for its token's end
        ((an_attempt(S.REVOKING),), True),
        ((an_attempt(S.REVOKING), an_attempt(S.REVOKING_TOKEN, 2)), True),
        ((an_attempt(S.REVOKING, failures=1),), False),  # it failed: that may take long
        ((an_attempt(S.REVOKING, lease_id=""),), False),  # it has to be undone first
        ((an_attempt(S.REVOKING), an_attempt(S.RECOVERING, 2)), False),
    ],
)
def test_an_end_is_waited_for_where_a_drop_is_all_that_is_left(attempts: tuple[Attempt, ...], expected: bool) -> None:
    assert view(*attempts).dropping is expected
