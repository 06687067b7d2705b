"""What callers are shown of an access request."""

from __future__ import annotations

from typing import Any

import pytest

from services.access.domain.decide import LOOK_AGAIN_S, Claim, Remove, Wait, WaitReason
from services.access.domain.models import Approval, Attempt, AttemptState
from services.access.domain.request_view import AccessRequestView, AccessState
from tests.unit.access.access_builders import a_request, a_role, an_attempt

S = AttemptState


def view(*attempts: Attempt, **changes: Any) -> AccessRequestView:
    usual: dict[str, Any] = {
        "request": a_request(),
        "decisions": (),
        "db_role": a_role(),
        "engine_paused": False,
        "service_auth": True,
        "now": 100.0,
    }
    return AccessRequestView(attempts=tuple(attempts), **{**usual, **changes})


def conditions(shown: AccessRequestView) -> dict[str, str]:
    return {each.type: each.reason for each in shown.conditions()}


@pytest.mark.parametrize("approval", [Approval.DENIED, Approval.WITHDRAWN, Approval.EXPIRED])
def test_ended_access_is_revoking_until_every_user_is_dropped(approval: Approval) -> None:
    shown = view(an_attempt(S.REVOKING), request=a_request(approval=approval))
    assert (shown.next_step(1), shown.access, shown.active) == (Remove(), AccessState.REVOKING, None)
    assert view(request=a_request(approval=approval)).access is AccessState.CLOSED


def test_before_a_decision_there_is_no_access_and_no_condition() -> None:
    shown = view(an_attempt(S.TOKEN_READY), request=a_request(approval=Approval.PENDING))
    assert (shown.access, conditions(shown)) == (AccessState.NONE, {})


def test_the_next_step_is_decided_by_what_is_shown() -> None:
    assert view().next_step(0) == Claim()
    assert view(engine_paused=True).next_step(0) == Wait(WaitReason.SECRET_ENGINE_PAUSED)
    mismatch = view(engine_paused=True, known_ledger="another")
    assert mismatch.next_step(0) == Wait(WaitReason.LEDGER_MISMATCH, 100.0 + LOOK_AGAIN_S)


def test_a_failed_claim_is_a_condition() -> None:
    failed = a_request(error_reason="VAULT_SEALED", error_message="sealed", retry_at=107.0)
    assert conditions(view(request=failed)) == {"Available": "FailedToGetCredential"}


def test_a_role_that_does_not_exist_is_a_condition() -> None:
    for db_role, reason in (
        (None, {"RoleNotReady": "RoleNotFound"}),
        (a_role(deleted=True), {"RoleDeleted": "PostgresRoleDeleted"}),
    ):
        shown = view(an_attempt(S.ACTIVE), db_role=db_role)
        assert shown.digest == ""
        assert reason.items() <= conditions(shown).items()


def test_a_stale_approval_is_a_condition_while_access_goes_on() -> None:
    shown = view(an_attempt(S.ACTIVE), request=a_request(approval=Approval.PENDING, outdated=True))
    assert shown.access is AccessState.ACTIVE
    assert conditions(shown)["ApprovalStale"] == "GrantChanged"


def test_what_is_left_to_drop_is_said_with_its_reason() -> None:
    shown = view(an_attempt(S.RECOVERING, error="Vault is sealed"), request=a_request(approval=Approval.DENIED))
    (condition,) = shown.conditions()
    assert (condition.type, shown.open_count) == ("RevocationPending", 1)
    assert "Vault is sealed" in condition.message


def test_a_user_that_is_locked_out_is_said_to_be() -> None:
    denied, refused = a_request(approval=Approval.DENIED), "PostgreSQL refused with SQLSTATE 2BP01"
    locked = an_attempt(S.RECOVERING, error=refused, locked_out_at=1000.0)
    (condition,) = view(locked, request=denied).conditions()
    assert condition.reason == "LockedOut"
    assert condition.message == f"1 database user(s) locked out, not dropped yet, because {refused}"
    (condition,) = view(locked, an_attempt(S.RECOVERING, 2, error=refused), request=denied).conditions()
    assert condition.reason == "RevocationFailing"
    assert condition.message == f"2 database user(s) not locked out and not dropped yet: {refused}"


def test_what_is_not_proven_is_said() -> None:
    shown = view(an_attempt(), request=a_request(requester=""), service_auth=False, engine_paused=True)
    assert {"RequesterUnverified", "ApprovalNotEnforced", "IssuancePaused"} <= conditions(shown).keys()


def test_a_token_alone_has_no_database_user() -> None:
    assert view(an_attempt(S.PENDING), an_attempt(S.TOKEN_READY, 2), an_attempt(S.REVOKING_TOKEN, 3)).open_count == 0
    assert view(an_attempt(S.ISSUING), an_attempt(S.ACTIVE, 2)).open_count == 2
