"""What is asked of kubectl, and what is made of its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.kubectl_vault.cluster import Cluster
from cli.kubectl_vault.errors import CommandError, ConflictError
from cli.kubectl_vault.kubectl import KubectlError
from cli.kubectl_vault.resource import Named

NAMED = Named("r", "demo")
WHAT = 'databaseaccessrequest "r" in namespace "demo"'


class Recorded:
    """A kubectl that gives each answer in turn and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[str, ...]]()

    def run(self, *args: str) -> str:
        self.asked.append(args)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)


def refused(text: str, reason: str = "") -> CommandError:
    with pytest.raises(CommandError) as error:
        Cluster(Recorded(KubectlError(text, reason=reason))).get_request(NAMED)
    return error.value


def test_an_answer_is_the_object() -> None:
    kubectl = Recorded({"kind": "x"})
    assert Cluster(kubectl).get_request(NAMED) == {"kind": "x"}
    path = "/apis/engine.kubevault.com/v1alpha1/namespaces/demo/databaseaccessrequests/r"
    assert kubectl.asked == [("get", f"--raw={path}")]


def test_a_list_is_read_page_by_page() -> None:
    kubectl = Recorded(
        {"items": [{"n": 1}], "metadata": {"continue": "a b"}}, {"items": [{"n": 2}], "metadata": {"continue": ""}}
    )
    assert Cluster(kubectl).list_requests("") == [{"n": 1}, {"n": 2}]
    assert kubectl.asked[1][1].endswith("/v1alpha1/databaseaccessrequests?limit=500&continue=a+b")


def test_the_user_name_is_that_of_whoami() -> None:
    assert Cluster(Recorded({"status": {"userInfo": {"username": "bob"}}})).get_user_name() == "bob"


def test_a_decision_is_a_patch_of_the_version_that_was_read() -> None:
    kubectl = Recorded("patched")
    Cluster(kubectl).write_conditions(NAMED, {"metadata": {"resourceVersion": "17"}}, [{"type": "Denied"}])
    (args,) = kubectl.asked
    assert args[:3] == ("patch", "databaseaccessrequests.v1alpha1.engine.kubevault.com/r", "--namespace=demo")
    assert {"--type=merge", "--subresource=status"} <= set(args)
    patch = next(arg.partition("=")[2] for arg in args if arg.startswith("--patch="))
    assert json.loads(patch) == {
        "metadata": {"resourceVersion": "17"},
        "status": {"conditions": [{"type": "Denied"}]},
    }


def test_the_namespace_is_that_of_the_context() -> None:
    assert Cluster(Recorded("demo")).default_namespace() == "demo"
    assert Cluster(Recorded("")).default_namespace() == "default"


def test_without_a_kubeconfig_the_namespace_is_default() -> None:
    error = KubectlError("current-context must exist in order to minify")
    assert Cluster(Recorded(error)).default_namespace() == "default"


def test_a_missing_context_is_an_error() -> None:
    with pytest.raises(CommandError, match="the kubeconfig cannot be used: cannot locate context nope"):
        Cluster(Recorded(KubectlError("cannot locate context nope"))).default_namespace()


def test_a_missing_object_and_a_missing_kind_differ() -> None:
    found = 'databaseaccessrequests.engine.kubevault.com "r" not found'
    assert str(refused(found, "NotFound")) == f"there is no {WHAT}"
    for text, reason in (
        ("the server could not find the requested resource", "NotFound"),
        ('the server doesn\'t have a resource type "databaseaccessrequests"', ""),
    ):
        assert "Are Leasegate's CustomResourceDefinitions (deploy/crds) installed" in str(refused(text, reason))


def test_a_policys_own_words_stand_alone() -> None:
    said = (
        'databaseaccessrequests.engine.kubevault.com "r" is forbidden: ValidatingAdmissionPolicy '
        "'leasegate-decision' with binding 'leasegate-decision' denied request: "
        "alice made this request and may not decide it: ask another"
    )
    expected = f"{WHAT}: alice made this request and may not decide it: ask another"
    assert str(refused(said, "Forbidden")) == expected
    assert str(refused(said, "Invalid")) == expected


def test_a_missing_right_names_the_cluster_role() -> None:
    assert "ClusterRole leasegate-approver" in str(refused('User "carol" cannot patch resource', "Forbidden"))


def test_an_unknown_user_is_asked_to_log_in() -> None:
    for text, reason in (
        ("You must be logged in to the server (Unauthorized)", ""),
        ("Unauthorized", "Unauthorized"),
    ):
        assert "the cluster does not know you: log in again" in str(refused(text, reason))


def test_a_conflict_is_an_error_of_its_own() -> None:
    assert isinstance(refused("the object has been modified", "Conflict"), ConflictError)


def test_an_unreachable_cluster_asks_for_the_context() -> None:
    said = "dial tcp 127.0.0.1:1: connect: connection refused"
    assert str(refused(said)) == f"cannot reach the cluster: {said}. Is it up, and is this the right --context?"


def test_other_refusals_say_what_kubectl_says() -> None:
    assert str(refused("spec: wrong", "Invalid")) == f"the cluster refused {WHAT}: spec: wrong"


def test_an_error_of_kubectl_itself_stands_alone() -> None:
    assert str(refused('context "nope" does not exist')) == 'context "nope" does not exist'


@pytest.mark.parametrize("output", ["", "<html>bad gateway</html>", "[1]"])
def test_an_answer_that_is_no_object_is_an_error(output: str) -> None:
    with pytest.raises(CommandError, match="with no object"):
        Cluster(Recorded(output)).get_request(NAMED)
