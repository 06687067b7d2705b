"""The rules of approving and denying, as docs/concepts.md states them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from cli.kubectl_vault.decisions import Decision, Verdict, check, decided, find, not_seen_yet
from cli.kubectl_vault.errors import CommandError

NOW = datetime(2026, 11, 24, 7, 0, 0, tzinfo=UTC)


def a_request(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "r", "namespace": "demo", "generation": 3, "resourceVersion": "17"},
        "spec": {"roleRef": {"kind": "PostgresRole", "name": "psql-role", "namespace": "demo"}, "subjects": []},
        "status": {"observedGeneration": 3, "phase": "WaitingForApproval", "digest": "d1"} | status,
    }


def a_decision(kind: str, **members: str) -> dict[str, Any]:
    return {"type": kind, "approver": "bob", "lastUpdateTime": "2026-11-24T06:00:00Z"} | members


def test_an_approval_looks_as_in_the_guide() -> None:
    (condition,) = decided(a_request(), Decision(Verdict.APPROVE, "bob"), NOW)
    assert condition == {
        "type": "Approved",
        "status": "True",
        "reason": "KubectlApprove",
        "message": "This was approved by kubectl vault approve databaseaccessrequest",
        "lastUpdateTime": "2026-11-24T07:00:00Z",
        "lastTransitionTime": "2026-11-24T07:00:00Z",
        "observedGeneration": 3,
        "approver": "bob",
        "digest": "d1",
    }


def test_a_denial_looks_as_in_the_guide_with_the_reason_after_it() -> None:
    (condition,) = decided(a_request(), Decision(Verdict.DENY, "bob", "left the team"), NOW)
    assert (condition["type"], condition["reason"]) == ("Denied", "KubectlDeny")
    assert condition["message"] == "This was denied by kubectl vault deny databaseaccessrequest: left the team"


def test_times_are_utc_whatever_the_clock_says() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    assert decided(a_request(), Decision(Verdict.DENY, "bob"), elsewhere)[0]["lastUpdateTime"] == "2026-11-24T07:00:00Z"


def test_other_conditions_stay_as_they_are_and_in_order() -> None:
    others = [
        {"type": "RoleReady", "status": "True"},
        a_decision("Approved", digest="d1"),
        {"type": "Available", "status": "True"},
    ]
    conditions = decided(a_request(conditions=others), Decision(Verdict.DENY, "carol"), NOW)
    assert conditions[:3] == others
    assert [c["type"] for c in conditions[3:]] == ["Denied"]


def test_a_renewed_approval_takes_the_place_of_the_old_one() -> None:
    conditions = decided(
        a_request(conditions=[a_decision("Approved", digest="d0")]), Decision(Verdict.APPROVE, "carol"), NOW
    )
    assert [(c["type"], c["approver"], c["digest"]) for c in conditions] == [("Approved", "carol", "d1")]


def test_a_denial_needs_no_digest() -> None:
    request = a_request(digest=None, observedGeneration=2)
    check(request, Verdict.DENY)
    assert "digest" not in decided(request, Decision(Verdict.DENY, "bob"), NOW)[0]


def test_a_request_without_a_status_can_be_denied_but_not_approved() -> None:
    request = {key: value for key, value in a_request().items() if key != "status"}
    check(request, Verdict.DENY)
    with pytest.raises(CommandError, match="has not processed it yet"):
        check(request, Verdict.APPROVE)


@pytest.mark.parametrize(
    ("status", "verdict", "says"),
    [
        (
            {"conditions": [a_decision("Approved", digest="d1")]},
            Verdict.APPROVE,
            "bob approved it at 2026-11-24T06:00:00Z already",
        ),
        ({"conditions": [a_decision("Approved")]}, Verdict.APPROVE, "bob approved it"),
        (
            {"conditions": [a_decision("Denied")]},
            Verdict.APPROVE,
            "bob denied it at 2026-11-24T06:00:00Z, which is final",
        ),
        ({"conditions": [a_decision("Denied")]}, Verdict.DENY, "bob denied it at 2026-11-24T06:00:00Z, which is final"),
        ({"conditions": [a_decision("Approved"), a_decision("Denied")]}, Verdict.DENY, "bob denied it"),
        ({"conditions": [{"type": "Approved"}]}, Verdict.APPROVE, "somebody approved it already"),
        ({"phase": "Expired"}, Verdict.APPROVE, "expired"),
        ({"phase": "Expired"}, Verdict.DENY, "expired"),
        ({"observedGeneration": 2}, Verdict.APPROVE, "has not processed it yet"),
        ({"digest": ""}, Verdict.APPROVE, "role is not ready: see kubectl describe postgresrole psql-role -n demo"),
        (
            {"digest": "", "conditions": [{"type": "RoleReady", "message": "no such role"}]},
            Verdict.APPROVE,
            "not ready: no such role",
        ),
    ],
)
def test_what_may_not_be_decided_is_refused_and_says_why(status: dict[str, Any], verdict: Verdict, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        check(a_request(**status), verdict)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ({}, Verdict.APPROVE),
        ({}, Verdict.DENY),
        ({"conditions": [a_decision("Approved", digest="d1")]}, Verdict.DENY),
        ({"conditions": [a_decision("Approved", digest="d0")]}, Verdict.APPROVE),
        ({"conditions": [a_decision("Approved"), {"type": "ApprovalStale", "status": "True"}]}, Verdict.APPROVE),
    ],
)
def test_what_may_be_decided(status: dict[str, Any], verdict: Verdict) -> None:
    check(a_request(**status), verdict)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_request_that_is_being_deleted_is_not_decided(verdict: Verdict) -> None:
    request = a_request()
    request["metadata"]["deletionTimestamp"] = "2026-11-24T06:59:00Z"
    with pytest.raises(CommandError, match="being deleted"):
        check(request, verdict)


def test_seen_means_that_the_status_speaks_of_the_present_spec() -> None:
    assert not not_seen_yet(a_request())
    assert not_seen_yet(a_request(observedGeneration=2))
    assert not_seen_yet({"metadata": {"generation": 1}, "spec": {}})


def test_a_condition_counts_whatever_its_status_says() -> None:
    assert find(a_request(conditions=[{"type": "Denied", "status": "False"}]), "Denied")
    assert find(a_request(conditions=None), "Denied") is None
