"""What is made of the API server's answers. Nothing is connected to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes.client import Configuration

from cli.kubectl_vault import api
from cli.kubectl_vault.kubeconfig import Access
from cli.kubectl_vault.problem import CommandError, ConflictError

WHAT = 'databaseaccessrequest "r" in namespace "demo"'


def refused(status: int, **answer: Any) -> CommandError:
    with pytest.raises(CommandError) as problem:
        api._decode(status, json.dumps(answer).encode(), what=WHAT)
    assert "\n" not in str(problem.value)
    return problem.value


def test_an_answer_is_what_it_says() -> None:
    assert api._decode(200, b'{"kind": "x"}', what=WHAT) == {"kind": "x"}


def test_a_missing_object_and_a_missing_kind_are_told_apart() -> None:
    assert str(refused(404, message="x not found", details={"name": "r"})) == f"there is no {WHAT}"
    assert "Are Leasegate's CustomResourceDefinitions (deploy/crds) installed" in str(
        refused(404, message="page not found")
    )
    with pytest.raises(CommandError, match="404 page not found"):
        api._decode(404, b"404 page not found\n", what=WHAT)


def test_a_policys_own_words_stand_alone() -> None:
    said = (
        "databaseaccessrequests.engine.kubevault.com \"r\" is forbidden: ValidatingAdmissionPolicy 'leasegate-decision' with binding "
        "'leasegate-decision' denied request: alice made this request and may not decide it: ask another approver"
    )
    expected = f"{WHAT}: alice made this request and may not decide it: ask another approver"
    assert str(refused(403, message=said)) == expected
    assert str(refused(422, message=said)) == expected


def test_a_missing_right_names_the_role() -> None:
    assert "ClusterRole leasegate-approver" in str(refused(403, message='User "carol" cannot patch resource'))


def test_other_refusals() -> None:
    assert "the cluster does not know you" in str(refused(401, message="Unauthorized"))
    assert isinstance(refused(409, message="the object has been modified"), ConflictError)
    assert str(refused(422, message="spec:\n wrong")) == f"the cluster refused {WHAT}: spec: wrong"
    assert str(refused(500)) == f"the cluster refused {WHAT}: HTTP 500"


@pytest.mark.parametrize("content", [b"", b"<html>bad gateway</html>", b"\xff", b"[1]"])
def test_an_answer_that_is_no_object_is_a_problem_too(content: bytes) -> None:
    with pytest.raises(CommandError, match="the cluster refused"):
        api._decode(200, content, what=WHAT)


def test_warnings_lose_what_kubernetes_puts_around_them() -> None:
    header = "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': self-approved: admin says \\\"yes\\\"\""
    assert api._warning_text(header) == 'self-approved: admin says "yes"'
    assert api._warning_text("odd") == "odd"


def test_every_group_is_a_header_of_its_own() -> None:
    access = Access(
        Configuration(), (("Impersonate-User", "bob"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")), "demo"
    )
    headers = api.Api(access, timeout_s=1, warn=print)._headers("PATCH")
    assert headers.getlist("Impersonate-Group") == ["a", "b"]
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert "Authorization" not in headers
