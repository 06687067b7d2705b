"""What the policies say of an object that names another namespace (C2, C3, M4, M6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deploy.render import render
from tests.eventually import eventually
from tests.integration.admission_world import POLICIES, policed_namespace, stamp_of
from tests.integration.kube import (
    WATCHER,
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    an_app_binding,
    an_engine,
    bind,
    new_namespace,
    refusal,
    with_value,
)
from tests.integration.rbac_world import RBAC

SUBJECTS_FROM = "leasegate.dev/allow-subjects-from"


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
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


def a_subject(kind: str, name: str, namespace: str = "") -> Json:
    return {"kind": kind, "name": name} | ({"namespace": namespace} if namespace else {})


class TestSubjects:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("Group", "system:masters"),
            ("Group", "system:authenticated"),
            ("Group", "system:unauthenticated"),
            ("Group", "system:serviceaccounts"),
            ("Group", "system:serviceaccounts:kube-system"),
            ("Group", "system:nodes"),
            ("User", "system:serviceaccount:kube-system:default"),
            ("User", "system:admin"),
            ("User", "system:anonymous"),
            ("User", "system:"),
        ],
    )
    def test_m4_kubernetes_own_users_and_groups(self, alice: Kube, namespace: str, kind: str, name: str) -> None:
        subjects = [a_subject("User", "carol"), a_subject(kind, name)]
        refused = refusal(alice, "create", a_request(namespace, subjects=subjects))
        assert refused.status == 422
        assert "users and groups that begin with system: are Kubernetes' own" in refused.message
        request = alice.create(a_request(namespace))
        assert "are Kubernetes' own" in refusal(alice, "patch", request, {"spec": {"subjects": subjects}}).message

    @pytest.mark.parametrize("elsewhere", ["kube-system", "leasegate-system", "evil", "default"])
    def test_m4_service_accounts_of_other_namespaces(self, alice: Kube, namespace: str, elsewhere: str) -> None:
        subjects = [a_subject("ServiceAccount", "demo-sa"), a_subject("ServiceAccount", "default", elsewhere)]
        says = f"subjects: ServiceAccount default is of namespace {elsewhere}: name one of namespace {namespace}, or"
        assert says in refusal(alice, "create", a_request(namespace, subjects=subjects)).message
        request = alice.create(a_request(namespace))
        assert says in refusal(alice, "patch", request, {"spec": {"subjects": subjects}}).message

    def test_m4_of_the_own_namespace_the_roles_or_one_that_is_named_twice(self, alice: Kube, namespace: str) -> None:
        role = {"kind": "PostgresRole", "name": "r", "namespace": "databases"}
        subjects = [
            a_subject("ServiceAccount", "a"),
            a_subject("ServiceAccount", "b", namespace),
            a_subject("ServiceAccount", "c", "databases"),
        ]
        assert alice.create(a_request(namespace, roleRef=role, subjects=subjects))
        further = [*subjects, a_subject("ServiceAccount", "d", "ci"), a_subject("ServiceAccount", "e", "ci-2")]
        request = a_request(namespace, roleRef=role, subjects=further)
        for annotation in ("ci", "ci,ci-22", "ci,*"):
            named = with_value(request, "metadata.annotations", {SUBJECTS_FROM: annotation})
            assert refusal(alice, "create", named).status == 422
        named = with_value(request, "metadata.annotations", {SUBJECTS_FROM: "ci, ci-2"})
        assert stamp_of(alice.create(named)) == "alice"

    def test_m4_what_is_unchanged_is_not_looked_at(self, alice: Kube, watcher: Kube, namespace: str) -> None:
        """So that an object of before gets its finalizer, and says in its status what is wrong with it."""
        request = a_request(namespace, subjects=[a_subject("ServiceAccount", "d", "ci")])
        made = alice.create(with_value(request, "metadata.annotations", {SUBJECTS_FROM: "ci"}))
        assert alice.patch(made, {"metadata": {"annotations": {SUBJECTS_FROM: None}}})
        assert watcher.patch(made, {"metadata": {"finalizers": [FINALIZER]}})
        assert watcher.patch(made, {"metadata": {"finalizers": None}})
        assert "is of namespace ci" in refusal(alice, "patch", made, {"spec": {"ttl": "1h"}}).message

    def test_m4_64_subjects_of_32_namespaces_are_compared(self, alice: Kube, namespace: str) -> None:
        wide = [f"{'n' * 61}{number:02}" for number in range(32)]
        subjects = [a_subject("ServiceAccount", f"{'s' * 200}{number:02}", wide[number % 32]) for number in range(64)]
        request = a_request(namespace, subjects=subjects)
        assert alice.create(with_value(request, "metadata.annotations", {SUBJECTS_FROM: ",".join(wide)}))
        last = with_value(request, "metadata.annotations", {SUBJECTS_FROM: ",".join(wide[:-1])})
        assert f"is of namespace {wide[-1]}" in refusal(alice, "create", last).message


class TestWarnings:
    """C2, C3: what needs another namespace's word says so when it is applied."""

    @pytest.fixture
    def applied(self, cluster: Running) -> Callable[[Json], str]:
        def apply(thing: Json) -> str:
            return str(cluster.kubectl("create", "-f", "-", input=json.dumps(thing), context="alice").stderr)

        return apply

    @pytest.mark.parametrize("maker", [an_engine, a_role])
    def test_c2_a_foreign_database(
        self, applied: Callable[[Json], str], namespace: str, maker: Callable[..., Json]
    ) -> None:
        reference = {"name": "postgres-app", "namespace": "demo"}
        spec: dict[str, Any] = {"databaseRef": reference}
        if maker is an_engine:
            spec = {"postgres": spec}
        said = applied(maker(namespace, **spec))
        assert "databaseRef: AppBinding demo/postgres-app can be used here only if it has the annotation" in said
        assert f"kubectl annotate appbinding postgres-app -n demo leasegate.dev/allow-from={namespace}" in said
        assert "Warning" not in applied(maker(namespace))

    def test_c3_a_foreign_role(self, applied: Callable[[Json], str], namespace: str) -> None:
        role = {"kind": "PostgresRole", "name": "psql-role", "namespace": "demo"}
        said = applied(a_request(namespace, roleRef=role))
        assert "roleRef: PostgresRole demo/psql-role can be requested from here only if it has the annotation" in said
        assert f"kubectl annotate postgresrole psql-role -n demo leasegate.dev/allow-from={namespace}" in said
        assert "approvers of namespace demo decide" in said
        assert "Warning" not in applied(a_request(namespace))


KINDS: dict[str, Callable[..., Json]] = {
    "AppBinding": an_app_binding,
    "SecretEngine": an_engine,
    "PostgresRole": a_role,
    "DatabaseAccessRequest": a_request,
}
FINALIZER = "leasegate.dev/finalizer"


@pytest.mark.parametrize("kind", KINDS)
class TestWatcher:
    """M6 and F11: the watcher's finalizer, where it belongs, and nothing else."""

    @pytest.fixture
    def thing(self, admin: Kube, namespace: str, kind: str) -> Json:
        bare = KINDS[kind](namespace)
        more = {"annotations": {"a": "b"}, "labels": {"a": "b"}, "finalizers": ["example.com/of-others"]}
        return admin.create(bare | {"metadata": bare["metadata"] | more})

    @pytest.mark.parametrize(
        "change",
        [
            {"annotations": {"leasegate.dev/allow-from": "evil"}},
            {"annotations": {"leasegate.dev/shared-with": "evil"}},
            {"annotations": {"leasegate.dev/same-database-moved": "db:5432/app"}},
            {"annotations": {"a": None}},
            {"labels": {"a": "c"}},
            {"labels": None},
            {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}]},
            {"finalizers": [FINALIZER]},
            {"finalizers": ["example.com/of-others", "example.com/mine", FINALIZER]},
            {"finalizers": None},
        ],
        ids=str,
    )
    def test_it_changes_nothing_else(self, cluster: Running, thing: Json, change: Json) -> None:
        """With every right, so that nothing but the policy on the watcher refuses."""
        almighty = Kube(cluster, act_as=WATCHER, groups=("system:masters",))
        refused = refusal(almighty, "patch", thing, {"metadata": change})
        assert refused.status == 403
        assert "Leasegate's watcher" in refused.message

    def test_m6_it_adds_its_finalizer_in_enabled_namespaces_alone(
        self, cluster: Running, admin: Kube, watcher: Kube, thing: Json, kind: str
    ) -> None:
        both = {"metadata": {"finalizers": ["example.com/of-others", FINALIZER]}}
        assert watcher.patch(thing, both)
        assert watcher.patch(thing, {"metadata": {"finalizers": ["example.com/of-others"]}})
        elsewhere = new_namespace(cluster)
        other = admin.create(KINDS[kind](elsewhere))
        refused = refusal(watcher, "patch", other, {"metadata": {"finalizers": [FINALIZER]}})
        assert refused.status == 422
        assert f"namespace {elsewhere} is not enabled, so Leasegate's watcher adds no finalizer" in refused.message
        admin.patch(other, {"metadata": {"finalizers": [FINALIZER]}})
        assert not watcher.patch(other, {"metadata": {"finalizers": None}})["metadata"].get("finalizers")

    def test_the_largest_objects_are_reconciled(self, admin: Kube, watcher: Kube, namespace: str, kind: str) -> None:
        largest: dict[str, Json] = {
            "AppBinding": {"clientConfig": {"url": "postgresql://db:5432/app", "caBundle": "QUFB" * 8000}},
            "PostgresRole": {"creationStatements": ["x" * 32_000]},
            "DatabaseAccessRequest": {"subjects": [a_subject("User", f"{'u' * 1000}{n:02}") for n in range(64)]},
        }
        bare = KINDS[kind](namespace, **largest.get(kind, {}))
        more = {"annotations": {"a": "b" * 200_000}, "finalizers": [f"example.com/{n}" for n in range(50)]}
        thing = admin.create(bare | {"metadata": bare["metadata"] | more})
        assert watcher.patch(thing, {"metadata": {"finalizers": [*more["finalizers"], FINALIZER]}})


def test_m11_rendered_policies_fence_a_watcher_of_another_name(cluster: Running, admin: Kube, namespace: str) -> None:
    text = render((POLICIES / "watcher-limits.yaml").read_text(), namespace="db-access", account="watch")
    manifest = text.replace("leasegate-watcher-limits", f"limits-{namespace}")  # beside the one in force
    other = Kube(cluster, act_as="system:serviceaccount:db-access:watch", groups=("system:masters",))
    change = {"metadata": {"annotations": {"leasegate.dev/allow-from": "evil"}}}
    role = admin.create(a_role(namespace))
    assert other.patch(role, change, dry_run=True)
    cluster.kubectl("apply", "-f", "-", input=manifest)
    try:
        says = "Leasegate's watcher changes no annotation"
        eventually(lambda: says in refusal(other, "patch", role, change, dry_run=True).message, what="the policy")
        assert admin.patch(role, change)
    finally:
        cluster.kubectl("delete", "-f", "-", input=manifest)


def test_a_namespaces_admin_does_not_enable_it(cluster: Running, admin: Kube) -> None:
    """Has all rights that this gives to the watcher, so that RBAC alone would let them."""
    namespace = new_namespace(cluster)
    until = {"verb": "create", "resource": "postgresroles"}
    bind(admin, namespace, role="admin", subject={"kind": "User", "name": "nora"}, until=until)
    nora = Kube(cluster, act_as="nora")
    body: Json = yaml.safe_load((RBAC / "enabled-namespace.yaml").read_text())
    enabling = body | {"metadata": body["metadata"] | {"namespace": namespace}}
    refused = refusal(nora, "create", enabling)
    assert refused.status == 403
    assert f"nora may not enable namespace {namespace}: ask a cluster administrator to do it" in refused.message
    enabled = admin.create(enabling)
    assert nora.patch(enabled, {"metadata": {"labels": {"a": "b"}}})
    assert admin.patch(enabled, {"subjects": []})
    refused = refusal(nora, "patch", enabled, {"subjects": enabling["subjects"]})
    assert f"nora may not enable namespace {namespace}" in refused.message
    assert nora.delete("RoleBinding", enabled["metadata"]["name"], namespace)
