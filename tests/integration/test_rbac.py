"""The rights of deploy/rbac on a real API server: enough for each process and person, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.eventually import eventually
from tests.integration.kube import WATCHER, Can, Json, Kube, Running, a_request, bind, new_namespace, refusal
from tests.integration.rbac_world import RBAC, RBAC_GROUP, enabled_namespace, fast_rbac, watcher_by_token
from watcher.delivery.manifests import role_binding_body, role_body, secret_name
from watcher.delivery.policy_audit import RESOURCES, differences, read_released

RULES = f"apis/{RBAC_GROUP}/v1/"
RULES_OF_A_ROLE: dict[str, tuple[Json, bool]] = {  # and whether the watcher has that right itself
    "pods": ({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, False),
    "all verbs": ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}, False),
    "everything": ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, False),
    "exec": ({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}, False),
    "approval": (
        {"apiGroups": ["engine.kubevault.com"], "resources": ["databaseaccessrequests/approval"], "verbs": ["update"]},
        False,
    ),
    "escalate": ({"apiGroups": [RBAC_GROUP], "resources": ["roles"], "verbs": ["escalate"]}, False),
    "all Secrets": ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, True),
    "tokens": ({"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}, False),
    "status": (
        {"apiGroups": ["engine.kubevault.com"], "resources": ["databaseaccessrequests/status"], "verbs": ["update"]},
        True,
    ),
}
CREDENTIALS = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["request-abc123"], "verbs": ["get"]}


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return enabled_namespace(cluster)


@pytest.fixture(scope="module")
def not_enabled(cluster: Running) -> str:
    return new_namespace(cluster)


@pytest.fixture(scope="module", params=["default", "fast"])
def setting(request: pytest.FixtureRequest, cluster: Running, namespace: str) -> Iterator[str]:
    """Without fast-rbac.yaml, and with it."""
    if request.param == "default":
        yield "default"
        return
    with fast_rbac(cluster, namespace):
        yield "fast"


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def watcher(cluster: Running, namespace: str) -> Kube:
    return watcher_by_token(cluster, namespace)


def a_secret(namespace: str, name: str = "request-abc123", **more: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": name, "namespace": namespace} | more,
    }


def a_reader(admin: Kube, namespace: str, rule: Json | None = None) -> Json:
    """The Role of a new request as the watcher makes it, perhaps with another rule."""
    role = role_body(admin.create(a_request(namespace)))
    return role | ({"rules": [rule]} if rule else {})


def a_binding(admin: Kube, namespace: str, cluster_role: str = "") -> Json:
    """The RoleBinding of a new request as the watcher makes it, perhaps of a ClusterRole."""
    binding = role_binding_body(admin.create(a_request(namespace)))
    return binding | (
        {"roleRef": binding["roleRef"] | {"kind": "ClusterRole", "name": cluster_role}} if cluster_role else {}
    )


class TestWatcher:
    def test_it_sees_the_four_kinds_everywhere(self, watcher: Kube) -> None:
        for kind in ("secretengines", "postgresroles", "databaseaccessrequests"):
            assert watcher.call("GET", f"apis/engine.kubevault.com/v1alpha1/{kind}?limit=1")["kind"].endswith("List")
        assert (
            watcher.call("GET", "apis/appcatalog.appscode.com/v1alpha1/appbindings?limit=1")["kind"] == "AppBindingList"
        )

    def test_it_gets_lists_and_watches(self, admin: Kube, namespace: str) -> None:
        can = Can(admin, user=WATCHER)
        engine, catalog = "engine.kubevault.com", "appcatalog.appscode.com"
        kinds = {
            "secretengines": engine,
            "postgresroles": engine,
            "databaseaccessrequests": engine,
            "appbindings": catalog,
            "secrets": "",
        }
        for resource, group in kinds.items():
            for verb in ("get", "list", "watch"):
                assert can(verb, resource, group=group, namespace=namespace), f"{verb} {resource}"

    def test_it_writes_status_without_enablement(self, admin: Kube, watcher: Kube, not_enabled: str) -> None:
        request = admin.create(a_request(not_enabled))
        finalizer = {"metadata": {"finalizers": ["leasegate.dev/finalizer"]}}
        assert refusal(watcher, "patch", request, finalizer).status == 422
        current = watcher.patch(request, {"status": {"phase": "WaitingForApproval"}}, status=True)
        current["status"]["observedGeneration"] = 1
        assert watcher.replace(current, status=True)["status"]["observedGeneration"] == 1
        binding = {"apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding"}
        made = admin.create(
            {**binding, "metadata": {"name": "vault", "namespace": not_enabled}, "spec": {"clientConfig": {}}}
        )
        made["status"] = {"observedGeneration": 1}
        assert watcher.replace(made, status=True)["status"] == {"observedGeneration": 1}

    def test_the_status_subresource_ignores_finalizers(self, admin: Kube, watcher: Kube, not_enabled: str) -> None:
        request = admin.create(a_request(not_enabled))
        change = {"metadata": {"finalizers": ["leasegate.dev/finalizer"]}, "status": {"phase": "WaitingForApproval"}}
        assert "finalizers" not in watcher.patch(request, change, status=True)["metadata"]

    @pytest.mark.usefixtures("setting")
    def test_it_issues_in_an_enabled_namespace(self, admin: Kube, watcher: Kube, namespace: str) -> None:
        subjects = [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": namespace}]
        request = admin.create(a_request(namespace, subjects=subjects))
        role, binding, name = role_body(request), role_binding_body(request), secret_name(request)
        owners = role["metadata"]["ownerReferences"]
        secret = watcher.create(
            a_secret(namespace, name, ownerReferences=owners) | {"stringData": {"username": "u", "password": "p"}}
        )
        watcher.patch(secret, {"stringData": {"password": "q"}})
        watcher.create(role)
        watcher.create(binding)
        subject = Can(admin, user=f"system:serviceaccount:{namespace}:demo-sa")
        eventually(
            lambda: subject("get", "secrets", group="", namespace=namespace, name=name), what="the subject's right"
        )
        assert not subject("get", "secrets", group="", namespace=namespace, name="postgres-user-cred")
        for thing in (role, binding):
            watcher.replace(thing)
        for kind, each in (
            ("RoleBinding", role["metadata"]["name"]),
            ("Role", role["metadata"]["name"]),
            ("Secret", name),
        ):
            watcher.get(kind, each, namespace)
            assert watcher.call("GET", _collection(kind, namespace))["items"]
            watcher.delete(kind, each, namespace)

    def test_it_writes_events_and_repeats_them(self, watcher: Kube, not_enabled: str) -> None:
        involved = {"kind": "SecretEngine", "name": "x", "namespace": not_enabled}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "x.1", "namespace": not_enabled},
            "involvedObject": involved,
        }
        assert watcher.patch(watcher.create(event), {"count": 2})["count"] == 2

    def test_it_reads_the_policies_and_they_are_those_of_this_release(self, cluster: Running, watcher: Kube) -> None:
        """M11: with what the API server adds to a manifest."""
        found: dict[tuple[str, str], Json | None] = {}
        for name in read_released():
            kind, _, short = name.partition("/")
            path = RESOURCES[kind].path(name=short).lstrip("/")
            found[kind, short] = watcher.call("GET", path)
            assert refusal(watcher, "call", "PATCH", path, {"spec": {}}).status == 403
        assert differences(found, user=WATCHER, released=read_released()) == []
        assert refusal(watcher, "call", "GET", RESOURCES["ValidatingAdmissionPolicy"].path().lstrip("/")).status == 403

    def test_it_reads_the_uid_of_kube_system(self, watcher: Kube) -> None:
        assert watcher.get("Namespace", "kube-system")["metadata"]["uid"]

    @pytest.mark.parametrize(
        "path",
        [
            "api/v1/secrets",
            "api/v1/namespaces",
            "api/v1/namespaces/default",
            "api/v1/namespaces/leasegate-system/secrets",
            "api/v1/namespaces/{not_enabled}/secrets",
            "api/v1/namespaces/{not_enabled}/secrets/x",
            "api/v1/namespaces/{namespace}/pods",
            "api/v1/namespaces/{namespace}/configmaps",
            "apis/rbac.authorization.k8s.io/v1/roles",
            "apis/rbac.authorization.k8s.io/v1/rolebindings",
            "apis/rbac.authorization.k8s.io/v1/clusterroles",
            "apis/rbac.authorization.k8s.io/v1/namespaces/{not_enabled}/roles",
            "apis/rbac.authorization.k8s.io/v1/namespaces/{not_enabled}/rolebindings",
            "apis/rbac.authorization.k8s.io/v1/namespaces/{not_enabled}/roles/reader",
        ],
    )
    def test_it_reads_nothing_else(self, watcher: Kube, namespace: str, not_enabled: str, path: str) -> None:
        assert refusal(watcher, "call", "GET", path.format(namespace=namespace, not_enabled=not_enabled)).status == 403

    def test_it_writes_nothing_in_a_namespace_that_is_not_enabled(
        self, admin: Kube, watcher: Kube, not_enabled: str
    ) -> None:
        for thing in (a_secret(not_enabled), a_reader(admin, not_enabled), a_binding(admin, not_enabled)):
            assert refusal(watcher, "create", thing).status == 403

    def test_it_creates_and_deletes_no_object_of_the_four_kinds(
        self, admin: Kube, watcher: Kube, namespace: str
    ) -> None:
        assert refusal(watcher, "create", a_request(namespace)).status == 403
        request = admin.create(a_request(namespace))
        assert refusal(watcher, "delete", "DatabaseAccessRequest", request["metadata"]["name"], namespace).status == 403
        assert refusal(watcher, "replace", request).status == 403

    @pytest.mark.parametrize("rule", RULES_OF_A_ROLE)
    def test_it_grants_nothing_but_the_reading_of_one_secret(
        self, admin: Kube, watcher: Kube, namespace: str, rule: str, setting: str
    ) -> None:
        greedy, held = RULES_OF_A_ROLE[rule]
        refused = refusal(watcher, "create", a_reader(admin, namespace, greedy))
        if held or setting == "fast":
            assert refused.status == 422
            assert "Leasegate's watcher grants get on one Secret and nothing else" in refused.message
        else:
            assert refused.status == 403
            assert "attempting to grant RBAC permissions not currently held" in refused.message

    @pytest.mark.usefixtures("setting")
    @pytest.mark.parametrize("role", ["admin", "edit", "cluster-admin", "leasegate-approver"])
    def test_it_binds_no_greater_role(self, admin: Kube, watcher: Kube, namespace: str, role: str) -> None:
        refused = refusal(watcher, "create", a_binding(admin, namespace, role))
        assert refused.status == 403
        assert "attempting to grant RBAC permissions not currently held" in refused.message

    @pytest.mark.usefixtures("setting")
    @pytest.mark.parametrize("role", ["leasegate-watcher", "system:discovery"])
    def test_it_binds_no_cluster_role_of_rights_that_it_has(
        self, admin: Kube, watcher: Kube, namespace: str, role: str
    ) -> None:
        refused = refusal(watcher, "create", a_binding(admin, namespace, role))
        assert refused.status == 422
        assert "Leasegate's watcher binds only the Role of the RoleBinding's own name" in refused.message

    def test_it_grants_nothing_cluster_wide(self, admin: Kube, watcher: Kube) -> None:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "greedy"},
            "rules": [CREDENTIALS],
        }
        assert refusal(watcher, "create", role).status == 403
        can = Can(admin, user=WATCHER)
        for resource in ("clusterroles", "clusterrolebindings"):
            for verb in ("create", "update", "patch", "escalate", "bind"):
                assert not can(verb, resource, group=RBAC_GROUP), f"{verb} {resource}"

    def test_escalate_and_bind_are_an_option_for_roles_of_enabled_namespaces(
        self, admin: Kube, namespace: str, not_enabled: str, setting: str
    ) -> None:
        can = Can(admin, user=WATCHER)
        for verb in ("escalate", "bind"):
            assert can(verb, "roles", group=RBAC_GROUP, namespace=namespace) == (setting == "fast")
            assert not can(verb, "clusterroles", group=RBAC_GROUP, namespace=namespace)
            for elsewhere in (not_enabled, ""):
                assert not can(verb, "roles", group=RBAC_GROUP, namespace=elsewhere)

    def test_it_works_where_there_are_no_policies(self, cluster: Running, admin: Kube, namespace: str) -> None:
        """Before Kubernetes 1.30, as docs/security/rbac.md has it; the policies do not look at this user."""
        rules = admin.get("ClusterRole", "leasegate-enabled-namespace-base")["rules"]
        meta = {"name": f"enabled-{namespace}"}
        admin.create({"apiVersion": f"{RBAC_GROUP}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules})
        right = {"verb": "create", "resource": "rolebindings", "group": RBAC_GROUP}
        bind(admin, namespace, role=meta["name"], subject={"kind": "User", "name": "older"}, until=right)
        older, request = Kube(cluster, act_as="older"), admin.create(a_request(namespace))
        assert older.create(role_body(request))
        assert older.create(role_binding_body(request))
        exec_rule = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}
        refused = refusal(older, "create", a_reader(admin, namespace, exec_rule))
        assert refused.status == 403
        assert "attempting to grant RBAC permissions not currently held" in refused.message
        admin.delete("ClusterRole", meta["name"])

    def test_the_other_processes_have_no_rights(self, cluster: Running, namespace: str) -> None:
        for account in ("leasegate-engine", "leasegate-roles", "leasegate-access", "vault-token-reviewer"):
            kube = Kube(cluster, act_as=f"system:serviceaccount:leasegate-system:{account}")
            for path in (
                f"api/v1/namespaces/{namespace}/secrets",
                "apis/engine.kubevault.com/v1alpha1/databaseaccessrequests",
            ):
                assert refusal(kube, "call", "GET", path).status == 403

    def test_vaults_token_reviewer_reviews_tokens(self, cluster: Running) -> None:
        can = Can(Kube(cluster), user="system:serviceaccount:leasegate-system:vault-token-reviewer")
        assert can("create", "tokenreviews", group="authentication.k8s.io")
        assert can("create", "subjectaccessreviews", group="authorization.k8s.io")
        assert not can("list", "secrets", group="")


IN_FORCE: dict[str, Json] = {
    "view": {"verb": "get", "resource": "databaseaccessrequests"},
    "edit": {"verb": "create", "resource": "postgresroles"},
    "admin": {"verb": "create", "resource": "postgresroles"},
    "leasegate-approver": {"verb": "update", "resource": "databaseaccessrequests", "subresource": "approval"},
    "leasegate-decider": {"verb": "patch", "resource": "databaseaccessrequests", "subresource": "status"},
    "leasegate-requester": {"verb": "create", "resource": "databaseaccessrequests"},
    "leasegate-team": {"verb": "create", "resource": "postgresroles"},
}


@pytest.fixture(scope="module", params=list(IN_FORCE))
def who(request: pytest.FixtureRequest, admin: Kube, not_enabled: str) -> tuple[str, Can]:
    """Somebody with one ClusterRole in one namespace."""
    role = str(request.param)
    name = f"only-{role}"
    bind(admin, not_enabled, role=role, subject={"kind": "User", "name": name}, until=IN_FORCE[role])
    return role, Can(admin, user=name, groups=("system:authenticated",))


class TestPeople:
    def test_who_creates_requests(self, who: tuple[str, Can], not_enabled: str) -> None:
        role, can = who
        for verb in ("create", "update", "patch", "delete", "deletecollection"):
            assert can(verb, "databaseaccessrequests", namespace=not_enabled) == (
                role in ("edit", "admin", "leasegate-requester")
            )
        for resource in ("databaseaccessrequests", "postgresroles"):
            for verb in ("get", "list", "watch"):
                looks = (role, resource) not in (
                    ("leasegate-team", "databaseaccessrequests"),
                    ("leasegate-decider", "postgresroles"),
                )
                assert can(verb, resource, namespace=not_enabled) == looks, f"{verb} {resource}"

    def test_who_reads_the_kinds(self, who: tuple[str, Can], not_enabled: str) -> None:
        role, can = who
        engine, catalog = "engine.kubevault.com", "appcatalog.appscode.com"
        for resource, group in (("secretengines", engine), ("appbindings", catalog)):
            for verb in ("get", "list", "watch"):
                looks = role in ("view", "edit", "admin", "leasegate-team") or (
                    role == "leasegate-approver" and resource == "secretengines"
                )
                assert can(verb, resource, group=group, namespace=not_enabled) == looks, f"{verb} {resource}"

    def test_who_sets_up_engines_and_roles(self, who: tuple[str, Can], not_enabled: str) -> None:
        role, can = who
        engine, catalog = "engine.kubevault.com", "appcatalog.appscode.com"
        for resource, group in (("secretengines", engine), ("postgresroles", engine), ("appbindings", catalog)):
            for verb in ("create", "update", "patch", "delete", "deletecollection"):
                allowed = can(verb, resource, group=group, namespace=not_enabled)
                assert allowed == (role in ("edit", "admin", "leasegate-team")), f"{verb} {resource}"

    def test_only_approvers_decide_and_not_their_own_requests(self, who: tuple[str, Can], not_enabled: str) -> None:
        role, can = who
        for verb, subresource in (("get", "status"), ("patch", "status"), ("update", "status"), ("update", "approval")):
            allowed = can(verb, "databaseaccessrequests", subresource=subresource, namespace=not_enabled)
            writes_status = role == "leasegate-decider" and subresource == "status"
            assert allowed == (role == "leasegate-approver" or writes_status), f"{verb} {subresource}"
        for subresource in ("ownapproval", "issuance"):
            assert not can("update", "databaseaccessrequests", subresource=subresource, namespace=not_enabled)
        for resource in ("secretengines", "postgresroles"):
            assert not can("update", resource, subresource="status", namespace=not_enabled)

    def test_rights_end_at_the_namespace(self, who: tuple[str, Can], namespace: str) -> None:
        _, can = who
        assert not can("get", "databaseaccessrequests", namespace=namespace)

    def test_an_approver_reads_no_secret(self, cluster: Running, not_enabled: str) -> None:
        can = Can(Kube(cluster), user="bob", groups=("approvers",))
        assert can("update", "databaseaccessrequests", subresource="approval", namespace=not_enabled)
        assert not can("get", "secrets", group="", namespace=not_enabled)

    def test_cluster_admin_alone_decides_own_requests(self, cluster: Running, not_enabled: str) -> None:
        can = Can(Kube(cluster), user="root", groups=("system:masters",))
        assert can("update", "databaseaccessrequests", subresource="ownapproval", namespace=not_enabled)


def _collection(kind: str, namespace: str) -> str:
    return f"{'api/v1/' if kind == 'Secret' else RULES}namespaces/{namespace}/{kind.lower()}s"


def _documents() -> list[tuple[str, Json]]:
    return [(file.name, doc) for file in sorted(RBAC.glob("*.yaml")) for doc in yaml.safe_load_all(file.read_text())]


def test_no_role_has_a_wildcard_and_the_option_alone_a_right_to_grant() -> None:
    rules = [(file, rule) for file, document in _documents() for rule in document.get("rules", [])]
    for file, rule in rules:
        assert "*" not in json.dumps(rule), file
    granting = [(file, rule) for file, rule in rules if {"escalate", "bind", "impersonate"} & set(rule["verbs"])]
    portal = ["get", "list", "watch", "create", "update", "patch", "delete", "impersonate"]
    assert granting == [
        ("fast-rbac.yaml", {"apiGroups": [RBAC_GROUP], "resources": ["roles"], "verbs": ["escalate", "bind"]}),
        # virtual on this kind: nobody becomes another user by it
        (
            "people.yaml",
            {"apiGroups": ["engine.kubevault.com"], "resources": ["databaseaccessrequests"], "verbs": portal},
        ),
    ]


def test_the_manifest_for_a_namespace_is_a_rolebinding_without_one() -> None:
    (document,) = [doc for file, doc in _documents() if file == "enabled-namespace.yaml"]
    assert (document["kind"], "namespace" in document["metadata"]) == ("RoleBinding", False)


def test_no_other_manifest_depends_on_the_context_of_kubectl() -> None:
    for file, document in _documents():
        if file != "enabled-namespace.yaml" and document["kind"] in ("ServiceAccount", "Role", "RoleBinding"):
            assert document["metadata"]["namespace"] == "leasegate-system", file


def test_no_cluster_wide_role_of_the_watcher_has_secrets(admin: Kube) -> None:
    bound = admin.call("GET", RULES + "clusterrolebindings")["items"]
    mine = [
        b["roleRef"]["name"]
        for b in bound
        for s in b.get("subjects", [])
        if s["name"] in ("leasegate-watcher", WATCHER)
    ]
    assert mine == ["leasegate-watcher"]
    rules = admin.get("ClusterRole", "leasegate-watcher")["rules"]
    assert not [
        rule for rule in rules if {"secrets", "serviceaccounts/token", "roles", "rolebindings"} & set(rule["resources"])
    ]
