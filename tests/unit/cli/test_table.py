"""How access requests are printed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from cli.kubectl_vault.table import as_table, as_text, span, state

NOW = datetime(2026, 11, 24, 7, 0, 0, tzinfo=UTC)


def a_request(name: str = "r", *, requester: str = "alice", **status: Any) -> dict[str, Any]:
    annotations = {"leasegate.dev/requested-by": requester} if requester else {}
    metadata = {
        "name": name,
        "namespace": "demo",
        "creationTimestamp": "2026-11-24T06:58:30Z",
        "annotations": annotations,
    }
    return {
        "apiVersion": "engine.kubevault.com/v1alpha1",
        "kind": "DatabaseAccessRequest",
        "metadata": metadata,
        "spec": {},
        "status": status,
    }


def test_the_table_says_who_asked_who_decided_and_when_it_ends() -> None:
    lease = {"expireTime": "2026-11-24T07:59:00Z"}
    approved = a_request("one", phase="Approved", lease=lease, conditions=[{"type": "Approved", "approver": "bob"}])
    pending = a_request("other-one", requester="")
    assert as_table([approved, pending], now=NOW, with_namespace=False).splitlines() == [
        "NAME        STATUS               REQUESTER      APPROVER   LEASE EXPIRES                   AGE",
        "one         Approved             alice          bob        2026-11-24T07:59:00Z (in 59m)   90s",
        "other-one   WaitingForApproval   <unverified>   <none>     <none>                          90s",
    ]


def test_of_all_namespaces_the_namespace_comes_first() -> None:
    header, row = as_table([a_request()], now=NOW, with_namespace=True).splitlines()
    assert header.startswith("NAMESPACE   NAME ")
    assert row.startswith("demo        r ")


def test_own_approvals_and_expired_leases_are_marked() -> None:
    own = a_request(
        phase="Approved",
        lease={"expireTime": "2026-11-24T06:59:00Z"},
        conditions=[{"type": "Approved", "approver": "alice"}],
    )
    table = as_table([own], now=NOW, with_namespace=False)
    assert "alice (own request)" in table
    assert "2026-11-24T06:59:00Z (expired)" in table


def test_a_decision_without_an_approver_is_unverified() -> None:
    assert "<unverified>" in as_table([a_request(conditions=[{"type": "Denied"}])], now=NOW, with_namespace=False)


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ({}, "WaitingForApproval"),
        ({"phase": "Expired", "conditions": [{"type": "Denied"}]}, "Expired"),
        ({"phase": "Approved", "conditions": [{"type": "Approved"}, {"type": "Denied"}]}, "Denied"),
        ({"phase": "WaitingForApproval", "conditions": [{"type": "Approved"}]}, "WaitingForApproval"),
        ({"conditions": [{"type": "Approved"}]}, "Approved"),
    ],
)
def test_the_state_is_the_phase_but_a_denial_shows_at_once(status: dict[str, Any], shown: str) -> None:
    assert state(a_request(**status)) == shown


def test_what_is_being_deleted_says_so() -> None:
    request = a_request(phase="Approved")
    request["metadata"]["deletionTimestamp"] = "2026-11-24T06:59:00Z"
    assert state(request) == "Terminating"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (395, "6m35s"),
        (3599, "59m"),
        (7200, "2h"),
        (9000, "2h30m"),
        (40000, "11h"),
        (200000, "2d"),
    ],
)
def test_spans_read_as_in_kubectl(seconds: int, shown: str) -> None:
    assert span(timedelta(seconds=seconds)) == shown


def test_one_named_object_stands_by_itself_and_several_in_a_list() -> None:
    requests = [a_request("a"), a_request("b")]
    requests[0]["metadata"]["managedFields"] = [{"manager": "x"}]
    one = json.loads(as_text(requests[:1], form="json", single=True))
    assert one["metadata"]["name"] == "a"
    assert "managedFields" not in one["metadata"]
    both = yaml.safe_load(as_text(requests, form="yaml", single=False))
    assert (both["kind"], [item["metadata"]["name"] for item in both["items"]]) == ("List", ["a", "b"])
