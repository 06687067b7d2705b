"""The admission policies on a real API server: the requester is known, and who decides what (docs/concepts.md).

alice (group dev, ClusterRole edit) requests, bob (group approvers, ClusterRole leasegate-approver) decides, carol has
no right, admin has all: the server itself refuses or allows each of them, whatever the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.eventually import eventually
from tests.integration.admission_world import (
    POLICIES,
    approved,
    decide,
    denied,
    named,
    policed_namespace,
    refused_decision,
    stamp_of,
)
from tests.integration.kube import (
    DIGEST,
    OTHER_DIGEST,
    STAMP,
    WATCHER,
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    an_app_binding,
    an_engine,
    bind,
    publish,
    refusal,
)

CRD = Path(__file__).parents[2] / "deploy/crds/databaseaccessrequests.yaml"


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def alice(cluster: Running) -> Kube:
    return Kube(cluster, "alice")


@pytest.fixture(scope="module")
def bob(cluster: Running) -> Kube:
    return Kube(cluster, "bob")


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


@pytest.fixture
def request_of_alice(alice: Kube, watcher: Kube, namespace: str) -> Json:
    return publish(watcher, alice.create(a_request(namespace)))


class TestStamp:
    def test_the_author_of_a_request_is_stamped(self, alice: Kube, namespace: str) -> None:
        assert stamp_of(alice.create(a_request(namespace))) == "alice"

    def test_nobody_requests_in_anothers_name(self, alice: Kube, namespace: str) -> None:
        forged = a_request(namespace) | {"metadata": named("forged", namespace, STAMP, "bob")}
        assert stamp_of(alice.create(forged, dry_run=True)) == "alice"

    def test_whoever_changes_the_spec_becomes_the_requester(self, alice: Kube, admin: Kube, namespace: str) -> None:
        request = alice.create(a_request(namespace))
        assert stamp_of(admin.patch(request, {"spec": {"ttl": "1h"}})) == "admin"
        assert stamp_of(alice.patch(request, {"spec": {"ttl": "2h"}})) == "alice"

    @pytest.mark.parametrize(
        "change",
        [{STAMP: "bob"}, {STAMP: ""}, {STAMP: None}, None],
        ids=["other", "empty", "without", "no-annotations"],
    )
    def test_the_stamp_is_neither_edited_nor_removed(
        self, alice: Kube, admin: Kube, namespace: str, change: Json | None
    ) -> None:
        request = alice.create(a_request(namespace))
        for kube in (alice, admin):
            assert stamp_of(kube.patch(request, {"metadata": {"annotations": change}})) == "alice"

    def test_a_change_of_the_spec_cannot_forge_the_stamp(self, alice: Kube, namespace: str) -> None:
        request = alice.create(a_request(namespace))
        assert (
            stamp_of(alice.patch(request, {"metadata": {"annotations": {STAMP: "bob"}}, "spec": {"ttl": "1h"}}))
            == "alice"
        )

    def test_labels_finalizers_and_status_leave_the_stamp_as_it_is(
        self, alice: Kube, watcher: Kube, admin: Kube, namespace: str
    ) -> None:
        request = alice.create(a_request(namespace))
        assert stamp_of(watcher.patch(request, {"metadata": {"finalizers": ["leasegate.dev/finalizer"]}})) == "alice"
        assert stamp_of(admin.patch(request, {"metadata": {"labels": {"a": "b"}}})) == "alice"
        assert stamp_of(publish(watcher, request)) == "alice"
        watcher.patch(request, {"metadata": {"finalizers": None}})


class TestStampWithoutTheMutatingPolicy:
    """An older cluster, or an object from before: the stamp may be missing, but is never another's."""

    @pytest.fixture(autouse=True)
    def _without_it(self, cluster: Running, alice: Kube, namespace: str) -> Any:
        file = str(POLICIES / "requester-stamp.yaml")
        cluster.kubectl("delete", "-f", file)
        eventually(lambda: not stamp_of(alice.create(a_request(namespace), dry_run=True)), what="no stamp any more")
        yield
        cluster.kubectl("apply", "-f", file)
        eventually(lambda: stamp_of(alice.create(a_request(namespace), dry_run=True)), what="a stamp again")

    def test_a_stamp_is_ones_own_or_missing(
        self, alice: Kube, bob: Kube, admin: Kube, watcher: Kube, namespace: str
    ) -> None:
        forged = a_request(namespace) | {"metadata": named("forged", namespace, STAMP, "bob")}
        says = "leasegate.dev/requested-by names who makes this request: leave the annotation out or set it to alice"
        assert says in refusal(alice, "create", forged).message
        own = alice.create(a_request(namespace) | {"metadata": named("honest", namespace, STAMP, "alice")})
        without = alice.create(a_request(namespace))
        assert (stamp_of(own), stamp_of(without)) == ("alice", "")
        self._no_edit(alice, own, without)
        says = "leave the annotation out or set it to admin"
        assert says in refusal(admin, "patch", own, {"spec": {"ttl": "1h"}}).message
        publish(watcher, without)
        assert decide(bob, without, approved("bob"))["status"]["conditions"][0]["approver"] == "bob"

    def test_m5_an_approval_names_its_digest(
        self, cluster: Running, alice: Kube, bob: Kube, watcher: Kube, namespace: str
    ) -> None:
        file, request = str(POLICIES / "approval-digest.yaml"), publish(watcher, alice.create(a_request(namespace)))
        bare = {"status": {"conditions": [approved("bob", digest="")]}}
        cluster.kubectl("delete", "-f", file)
        says = f"an approval names the digest that it is for: set digest to {DIGEST} in the condition"

        def is_refused() -> bool:
            return says in refusal(bob, "patch", request, bare, status=True, dry_run=True).message

        try:
            eventually(is_refused, what="no digest any more")
            assert decide(bob, request, approved("bob"))
        finally:
            cluster.kubectl("apply", "-f", file)

    def _no_edit(self, alice: Kube, own: Json, without: Json) -> None:
        says = "names who made this request and cannot be changed: leave the annotation as it was"
        for request, stamp in ((own, "bob"), (own, None), (without, "bob"), (without, "alice")):
            assert says in refusal(alice, "patch", request, {"metadata": {"annotations": {STAMP: stamp}}}).message


class TestDecision:
    def test_an_approver_approves_under_the_own_name(self, bob: Kube, request_of_alice: Json) -> None:
        status = decide(bob, request_of_alice, approved("bob"))["status"]
        assert status["conditions"] == [approved("bob")]

    def test_an_approver_denies(self, bob: Kube, request_of_alice: Json) -> None:
        assert decide(bob, request_of_alice, denied("bob"))["status"]["conditions"] == [denied("bob")]

    def test_m5_a_decision_as_in_2019_gets_the_digest_that_it_is_for(
        self, bob: Kube, watcher: Kube, request_of_alice: Json
    ) -> None:
        plain = {"type": "Approved", "approver": "bob"}
        for digest in (DIGEST, OTHER_DIGEST):
            publish(watcher, request_of_alice, digest=digest)
            forged = {"status": {"digest": "d3" * 32, "conditions": [plain]}}
            assert refusal(bob, "patch", request_of_alice, forged, status=True).status == 403
            assert decide(bob, request_of_alice, plain)["status"]["conditions"] == [plain | {"digest": digest}]

    def test_a_decision_may_be_a_replace_of_the_whole_status(self, bob: Kube, request_of_alice: Json) -> None:
        request_of_alice["status"]["conditions"] = [approved("bob")]
        assert bob.replace(request_of_alice, status=True)["status"]["conditions"] == [approved("bob")]

    def test_a_stale_resource_version_is_a_conflict(self, bob: Kube, watcher: Kube, request_of_alice: Json) -> None:
        publish(watcher, request_of_alice, digest=OTHER_DIGEST)
        stale = {
            "metadata": {"resourceVersion": request_of_alice["metadata"]["resourceVersion"]},
            "status": {"conditions": [approved("bob")]},
        }
        assert refusal(bob, "patch", request_of_alice, stale, status=True).status == 409

    def test_in_anothers_name_it_is_refused(self, bob: Kube, request_of_alice: Json) -> None:
        for condition in (approved("carol"), approved(""), {"type": "Approved"}, denied("alice")):
            assert "set approver to bob in the condition" in refused_decision(bob, request_of_alice, condition).message

    def test_without_the_right_it_is_refused(
        self, cluster: Running, admin: Kube, namespace: str, request_of_alice: Json
    ) -> None:
        name = f"status-only-{namespace}"
        rule = {"apiGroups": ["engine.kubevault.com"], "resources": ["databaseaccessrequests/status"], "verbs": ["*"]}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [rule],
        }
        admin.create(role)
        writes = {"verb": "patch", "resource": "databaseaccessrequests", "subresource": "status"}
        bind(admin, namespace, role=name, subject={"kind": "User", "name": "dave"}, until=writes)
        dave = Kube(cluster, act_as="dave")
        for condition in (approved("dave"), denied("dave")):
            refused = refused_decision(dave, request_of_alice, condition)
            assert refused.status == 403
            assert (
                f"dave may not approve or deny this request: ask an approver of namespace {namespace}"
                in refused.message
            )
        admin.delete("ClusterRole", name)

    @pytest.mark.parametrize("user", ["alice", "carol"])
    def test_a_requester_cannot_write_the_status(self, cluster: Running, request_of_alice: Json, user: str) -> None:
        refused = refused_decision(Kube(cluster, user), request_of_alice, approved(user))
        assert refused.status == 403
        assert 'cannot patch resource "databaseaccessrequests/status"' in refused.message

    def test_nobody_decides_an_own_request(self, cluster: Running, watcher: Kube, namespace: str) -> None:
        both = Kube(cluster, act_as="erin", groups=("dev", "approvers"))
        request = publish(watcher, both.create(a_request(namespace)))
        for condition in (approved("erin"), denied("erin")):
            refused = refused_decision(both, request, condition)
            assert refused.status == 403
            assert "erin made this request and may not decide it: ask another approver" in refused.message
        assert both.patch(request, {"status": {"conditions": []}}, status=True), "which decides nothing"

    def test_an_approver_who_edited_the_request_is_its_requester(
        self, cluster: Running, alice: Kube, watcher: Kube, namespace: str
    ) -> None:
        both = Kube(cluster, act_as="erin", groups=("dev", "approvers"))
        request = alice.create(a_request(namespace))
        both.patch(request, {"spec": {"ttl": "1h"}})
        publish(watcher, request)
        assert "erin made this request" in refused_decision(both, request, approved("erin")).message

    def test_a_cluster_admin_decides_an_own_request_and_it_shows(
        self, cluster: Running, watcher: Kube, namespace: str
    ) -> None:
        admin = Kube(cluster)
        request = publish(watcher, admin.create(a_request(namespace)))
        name = request["metadata"]["name"]
        patch = f'{{"status":{{"conditions":[{{"type":"Approved","approver":"admin","digest":"{DIGEST}"}}]}}}}'
        said = cluster.kubectl(
            "patch", "dar", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
        )
        assert "self-approved: admin made this request and decides it" in said.stderr
        stored = admin.get("DatabaseAccessRequest", name, namespace)
        assert stored["status"]["conditions"][0]["approver"] == stamp_of(stored) == "admin"

    def test_the_watcher_never_decides_not_even_as_cluster_admin(
        self, cluster: Running, request_of_alice: Json
    ) -> None:
        for groups in ((), ("system:masters",)):
            watcher = Kube(cluster, act_as=WATCHER, groups=groups)
            for condition in (approved(WATCHER), denied(WATCHER), approved("bob")):
                refused = refused_decision(watcher, request_of_alice, condition)
                assert refused.status == 403
                assert "Leasegate's watcher never decides" in refused.message

    def test_a_decision_is_true(self, bob: Kube, request_of_alice: Json) -> None:
        says = "a decision has the status True: to withdraw an approval add a condition Denied"
        assert says in refused_decision(bob, request_of_alice, approved("bob", status="False")).message

    def test_a_condition_without_a_type_is_named(self, bob: Kube, request_of_alice: Json) -> None:
        refused = refused_decision(bob, request_of_alice, {"status": "True", "approver": "bob"})
        assert "status.conditions[0].type: Required value" in refused.message

    def test_what_is_approved_is_what_the_status_shows(
        self, bob: Kube, watcher: Kube, alice: Kube, namespace: str, request_of_alice: Json
    ) -> None:
        refused = refused_decision(bob, request_of_alice, approved("bob", digest=OTHER_DIGEST))
        assert (
            f"another digest would be granted now ({DIGEST}): look at the request again and approve that"
            in refused.message
        )
        bare = alice.create(a_request(namespace))
        assert (
            "nothing can be approved yet: status.digest is missing"
            in refused_decision(bob, bare, approved("bob")).message
        )
        assert decide(bob, bare, denied("bob", digest=OTHER_DIGEST))["status"]["conditions"]


class TestDecisionsAccumulate:
    @pytest.fixture
    def after_approval(self, bob: Kube, request_of_alice: Json) -> Json:
        return decide(bob, request_of_alice, approved("bob"))

    @pytest.fixture
    def after_denial(self, bob: Kube, after_approval: Json) -> Json:
        return decide(bob, after_approval, approved("bob"), denied("bob"))

    @pytest.mark.parametrize(
        "conditions",
        [
            [],
            [approved("bob", message="other")],
            [denied("bob")],
            [denied("bob", digest=OTHER_DIGEST)],
            [approved("admin")],
        ],
        ids=["removed", "edited", "replaced by a denial", "by one of another digest", "made one's own"],
    )
    def test_an_approval_is_neither_removed_nor_edited(
        self, bob: Kube, admin: Kube, after_approval: Json, conditions: list[Json]
    ) -> None:
        for kube in (bob, admin):
            assert "a decision is final" in refused_decision(kube, after_approval, *conditions).message

    def test_the_digest_of_an_approval_stays(self, bob: Kube, after_approval: Json) -> None:
        bare = approved("bob", digest="")
        assert decide(bob, after_approval, bare)["status"]["conditions"] == [approved("bob")]

    def test_an_approval_may_be_followed_by_a_denial(self, cluster: Running, after_approval: Json) -> None:
        frank = Kube(cluster, act_as="frank", groups=("approvers",))
        assert (
            decide(frank, after_approval, approved("bob"), denied("frank"))["status"]["conditions"][1]["approver"]
            == "frank"
        )

    def test_an_approval_may_be_replaced_by_one_of_another_digest(
        self, bob: Kube, watcher: Kube, after_approval: Json
    ) -> None:
        publish(watcher, after_approval, digest=OTHER_DIGEST)
        assert decide(bob, after_approval, approved("bob", digest=OTHER_DIGEST))["status"]["conditions"] == [
            approved("bob", digest=OTHER_DIGEST)
        ]

    def test_a_denied_request_is_not_decided_again(
        self, bob: Kube, admin: Kube, watcher: Kube, after_denial: Json
    ) -> None:
        publish(watcher, after_denial, digest=OTHER_DIGEST)
        for kube in (bob, admin):
            for conditions in (
                [approved("bob", digest=OTHER_DIGEST), denied("bob")],
                [approved("bob")],
                [],
                [approved("bob"), denied("bob", message="other")],
            ):
                refused = refused_decision(kube, after_denial, *conditions)
                assert "a denied request cannot be decided again: delete it and create another one" in refused.message

    def test_the_watcher_writes_the_status_beside_decisions(self, watcher: Kube, after_denial: Json) -> None:
        facts = [{"type": "Available", "status": "False"}, denied("bob"), approved("bob")]
        assert publish(watcher, after_denial, phase="Denied", conditions=facts)["status"]["conditions"] == facts

    def test_the_watcher_removes_no_decision(self, watcher: Kube, after_denial: Json) -> None:
        assert "Leasegate's watcher never decides" in refused_decision(watcher, after_denial).message
        assert "Leasegate's watcher never decides" in refused_decision(watcher, after_denial, approved("bob")).message


class TestIssuance:
    """The rest of the status is the watcher's."""

    @pytest.mark.parametrize(
        "change",
        [
            {"digest": "forged"},
            {"grant": {"creationStatements": ["GRANT SELECT only, promise"]}},
            {"phase": "Approved"},
            {"observedGeneration": 7},
            {"attempt": 9},
            {"secret": {"name": "of-others"}},
            {"lease": {"id": "my-postgres-se/creds/of-others/x"}},
            {"digest": None},
            {"conditions": [{"type": "Available", "status": "True"}]},
            {"conditions": [approved("bob"), {"type": "Available", "status": "True"}]},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_an_approver_writes_decisions_alone(self, bob: Kube, request_of_alice: Json, change: Json) -> None:
        refused = refusal(bob, "patch", request_of_alice, {"status": change}, status=True)
        assert refused.status == 403
        assert "bob may change nothing in the status but the conditions Approved and Denied" in refused.message

    def test_an_approver_cannot_remove_the_status(self, bob: Kube, request_of_alice: Json) -> None:
        assert refusal(bob, "patch", request_of_alice, {"status": None}, status=True).status == 403

    def test_the_watcher_and_cluster_admins_write_all_of_it(
        self, watcher: Kube, admin: Kube, request_of_alice: Json
    ) -> None:
        for kube in (watcher, admin):
            lease = {"id": "m/creds/r/x", "renewable": True}
            assert (
                publish(kube, request_of_alice, phase="Approved", lease=lease, secret={"name": "s"}, attempt=1)[
                    "status"
                ]["lease"]
                == lease
            )

    def test_the_policy_knows_every_field_of_the_status(self) -> None:
        (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
        fields = set(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]) - {"conditions"}
        policy = (POLICIES / "issuance.yaml").read_text().split("\n---\n")[0]
        assert set(re.findall(r" object\.\?status\.\?(\w+) ==", policy)) == fields


SPEC_CHANGES: list[tuple[Callable[[str], Json], Json]] = [
    (an_app_binding, {"clientConfig": {"url": "https://elsewhere"}}),
    (an_engine, {"vaultRef": {"name": "other"}}),
    (a_role, {"path": "other"}),
    (a_request, {"ttl": "1h"}),
]


@pytest.mark.parametrize(("maker", "change"), SPEC_CHANGES, ids=[maker.__name__ for maker, _ in SPEC_CHANGES])
def test_the_watcher_sets_finalizers_but_no_spec(
    admin: Kube, watcher: Kube, namespace: str, maker: Callable[[str], Json], change: Json
) -> None:
    thing = admin.create(maker(namespace))
    assert watcher.patch(thing, {"metadata": {"finalizers": ["leasegate.dev/finalizer"]}})["metadata"]["finalizers"]
    refused = refusal(watcher, "patch", thing, {"spec": change})
    assert refused.status == 403
    assert "Leasegate's watcher changes no spec" in refused.message
    assert admin.patch(thing, {"metadata": {"finalizers": None}, "spec": change})


@pytest.mark.parametrize("file", sorted(POLICIES.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_policy_is_bound_fails_closed_and_says_what_to_do(file: Path) -> None:
    documents = list(yaml.safe_load_all(file.read_text()))
    policies = {doc["metadata"]["name"]: doc["spec"] for doc in documents if doc["kind"].endswith("Policy")}
    assert {doc["spec"]["policyName"] for doc in documents if doc["kind"].endswith("Binding")} == set(policies)
    for spec in policies.values():
        assert spec["failurePolicy"] == "Fail"
        for validation in spec.get("validations", []):
            text = validation.get("message") or validation["messageExpression"]
            assert ":" in text
            assert not {"message", "messageExpression"} <= set(validation)
