"""The policies about Roles and RoleBindings on a real API server: what the watcher may grant, and who may be bound.

Each refused object is a dry run of one that is right but for one thing, so that no other rule refuses it, and the
message shows which rule did. Fast RBAC is on, so that the API server's own comparison refuses nothing before a policy
does; tests/integration/test_rbac.py has the default.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import yaml

from tests.eventually import eventually
from tests.integration.kube import WATCHER, Json, Kube, RefusedError, Running, a_request, bind, refusal, with_value
from tests.integration.rbac_world import RBAC, RBAC_GROUP, enabled_namespace, fast_rbac, watcher_by_token
from watcher.delivery.manifests import role_binding_body, role_body

OWNED = "writes only what a DatabaseAccessRequest alone owns and controls"
NAMED = "writes only DatabaseAccessRequest-NAMESPACE-OWNER-credential-reader"
ONE = "grants get on one Secret and nothing else"
OWN_SECRET = "grants only the Secret of the Role's owner"
OWN_ROLE = "binds only the Role of the RoleBinding's own name"
WATCHERS_ALONE = "is for Leasegate's watcher alone"
ENABLED_ROLE = "leasegate-enabled-namespace"
BODIES = {"Role": role_body, "RoleBinding": role_binding_body}
THE_WATCHER = {"kind": "ServiceAccount", "name": "leasegate-watcher", "namespace": "leasegate-system"}
MALLORY = {"kind": "User", "apiGroup": RBAC_GROUP, "name": "mallory"}
LONG = "d" * 188 + "." + "e" * 57  # its dot is where reader_role_name cuts


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return enabled_namespace(cluster)


@pytest.fixture(scope="module")
def watcher(cluster: Running, namespace: str) -> Iterator[Kube]:
    """The watcher with fast RBAC."""
    kube = watcher_by_token(cluster, namespace)
    with fast_rbac(cluster, namespace):
        yield kube


@pytest.fixture(scope="module")
def mighty(cluster: Running) -> Kube:
    """The watcher with all rights, so that of ClusterRoles, too, nothing but a policy refuses it any."""
    return Kube(cluster, act_as=WATCHER, groups=("system:masters",))


@pytest.fixture(scope="module")
def team(cluster: Running, admin: Kube, namespace: str) -> Kube:
    """Somebody with the stock ClusterRole admin in the namespace."""
    bind(
        admin,
        namespace,
        role="admin",
        subject={"kind": "User", "name": "gina"},
        until={"verb": "create", "resource": "postgresroles"},
    )
    return Kube(cluster, act_as="gina")


@pytest.fixture(scope="module")
def kept(admin: Kube, watcher: Kube, namespace: str) -> dict[str, Json]:
    """A Role and a RoleBinding that the watcher wrote."""
    request = asked(admin, namespace, "kept", dry_run=False)
    return {kind: watcher.create(body(request)) for kind, body in BODIES.items()}


@pytest.fixture(scope="module", autouse=True)
def orphans(admin: Kube, watcher: Kube, namespace: str) -> dict[str, Json]:
    """The same of a request that does not exist: created before all tests, as Kubernetes takes its time to notice."""
    request = asked(admin, namespace, "orphan")
    return {kind: watcher.create(body(request)) for kind, body in BODIES.items()}


def asked(admin: Kube, namespace: str, name: str = "asked", *, dry_run: bool = True) -> Json:
    """A request as the API server answers it."""
    return admin.create(with_value(a_request(namespace), "metadata.name", name), dry_run=dry_run)


def changed(body: Json, changes: Json) -> Json:
    return reduce(lambda thing, change: with_value(thing, *change), changes.items(), body)


def named(body: Json, name: str) -> Json:
    """Under another name; a RoleBinding with its Role."""
    return changed(body, {"metadata.name": name} | ({"roleRef.name": name} if "roleRef" in body else {}))


def is_invalid(refused: RefusedError, message: str) -> None:
    assert message in refused.message
    assert refused.status == 422, "the watcher takes Forbidden for a namespace that is not enabled"


@pytest.mark.parametrize(
    "name",
    [
        "request",
        "team.a.request-1",
        "s" * 202,  # in a namespace of ten letters a reader's name has 253 characters
        "t" * 203,
        "c" * 246,
        "a" * 188 + "." + "b" * 57,
        "a" * 180 + "-" * 20 + "b" * 46,
        "a." * 122 + "ab",
    ],
    ids=["short", "dots", "longest whole", "shortest cut", "longest", "cut before a dot", "cut in dashes", "all dots"],
)
def test_the_watcher_makes_a_requests_readers_and_restores_them(
    admin: Kube, watcher: Kube, namespace: str, name: str
) -> None:
    request = asked(admin, namespace, name, dry_run=False)
    role, binding = role_body(request), role_binding_body(request)
    assert watcher.create(role)["rules"] == role["rules"]
    assert watcher.create(binding)["subjects"] == binding["subjects"]
    admin.replace(changed(role, {"rules": []}))
    assert watcher.replace(role)["rules"] == role["rules"]
    other = role_binding_body(with_value(request, "spec.subjects", [MALLORY]))
    assert watcher.replace(other)["subjects"] == [MALLORY]


def _rule(group: str, resource: str, verb: str) -> Json:
    return {"rules": [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]}


SECOND = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["kept-abc123"], "verbs": ["get"]}
ROLES: dict[str, tuple[Json, str]] = {
    "another verb": ({"rules.0.verbs": ["list"]}, ONE),
    "another writing verb": ({"rules.0.verbs": ["update"]}, ONE),
    "an added verb": ({"rules.0.verbs": ["get", "list"]}, ONE),
    "all verbs": ({"rules.0.verbs": ["*"]}, ONE),
    "another resource": ({"rules.0.resources": ["configmaps"]}, ONE),
    "an added resource": ({"rules.0.resources": ["secrets", "configmaps"]}, ONE),
    "all resources": ({"rules.0.resources": ["*"]}, ONE),
    "another group": ({"rules.0.apiGroups": ["apps"]}, ONE),
    "an added group": ({"rules.0.apiGroups": ["", "apps"]}, ONE),
    "all groups": ({"rules.0.apiGroups": ["*"]}, ONE),
    "two rules": ({"rules": [SECOND, SECOND]}, ONE),
    "no rule": ({"rules": []}, ONE),
    "two names": ({"rules.0.resourceNames": ["kept-abc123", "kept-abc124"]}, ONE),
    "an empty list of names": ({"rules.0.resourceNames": []}, ONE),
    "all Secrets": ({"rules.0.resourceNames": ...}, ONE),
    "pods/exec": (_rule("", "pods/exec", "create"), ONE),
    "approval": (_rule("engine.kubevault.com", "databaseaccessrequests/approval", "update"), ONE),
    "own approval": (_rule("engine.kubevault.com", "databaseaccessrequests/ownapproval", "update"), ONE),
    "its own rights to grant": (_rule(RBAC_GROUP, "roles", "escalate"), ONE),
    "its own right to tokens": (_rule("", "serviceaccounts/token", "create"), ONE),
    "a foreign Secret": ({"rules.0.resourceNames": ["postgres-user-cred"]}, OWN_SECRET),
    "a Secret without letters": ({"rules.0.resourceNames": ["kept"]}, OWN_SECRET),
    "a Secret that begins likewise": ({"rules.0.resourceNames": ["kept-2-abc123"]}, OWN_SECRET),
    "a Secret of five letters": ({"rules.0.resourceNames": ["kept-abc12"]}, OWN_SECRET),
    "a Secret of seven letters": ({"rules.0.resourceNames": ["kept-abc1234"]}, OWN_SECRET),
    "a Secret of other letters": ({"rules.0.resourceNames": ["kept-ABC123"]}, OWN_SECRET),
    "a Secret that ends likewise": ({"rules.0.resourceNames": ["not-kept-abc123"]}, OWN_SECRET),
    # Else right for the policy about rules:
    "no owner": ({"metadata.ownerReferences": [], "rules.0.resourceNames": ["-abc123"]}, OWNED),
    "no owner at all": ({"metadata.ownerReferences": ..., "rules.0.resourceNames": ["-abc123"]}, OWNED),
    "another request as owner": (
        {"metadata.ownerReferences.0.name": "other", "rules.0.resourceNames": ["other-abc123"]},
        NAMED,
    ),
}
OWNER = {
    "apiVersion": "engine.kubevault.com/v1alpha1",
    "kind": "DatabaseAccessRequest",
    "name": "kept",
    "uid": "a2b8",
    "controller": True,
}
BESIDE = {"apiVersion": "v1", "kind": "ConfigMap", "name": "kept", "uid": "a2b9"}
OWNERS: dict[str, Json] = {
    "two owners": {"metadata.ownerReferences": [OWNER, BESIDE]},
    "another kind": {"metadata.ownerReferences.0.kind": "PostgresRole"},
    "another group": {"metadata.ownerReferences.0.apiVersion": "apps/v1"},
    "a group that begins likewise": {"metadata.ownerReferences.0.apiVersion": "engine.kubevault.com.example/v1"},
    "an owner that is no controller": {"metadata.ownerReferences.0.controller": False},
    "an owner that says nothing of it": {"metadata.ownerReferences.0.controller": ...},
}
BINDINGS: dict[str, tuple[Json, str]] = {
    "no owner": ({"metadata.ownerReferences": []}, OWNED),
    "no owner at all": ({"metadata.ownerReferences": ...}, OWNED),
    "another request as owner": ({"metadata.ownerReferences.0.name": "other"}, NAMED),
}
CASES = [
    *(pytest.param("Role", *case, id=f"Role: {what}") for what, case in ROLES.items()),
    *(pytest.param("RoleBinding", *case, id=f"RoleBinding: {what}") for what, case in BINDINGS.items()),
    *(pytest.param(kind, case, OWNED, id=f"{kind}: {what}") for kind in BODIES for what, case in OWNERS.items()),
]


@pytest.fixture(scope="module", params=["create", "replace"])
def written(
    request: pytest.FixtureRequest, cluster: Running, admin: Kube, watcher: Kube, namespace: str, kept: dict[str, Json]
) -> tuple[str, dict[str, Json]]:
    """An action, and what the watcher may do it with."""
    if request.param == "replace":
        return "replace", kept
    elsewhere = enabled_namespace(cluster)
    watcher_by_token(cluster, elsewhere)
    request_there = asked(admin, elsewhere, "kept")
    return "create", {kind: body(request_there) for kind, body in BODIES.items()}


@pytest.mark.parametrize(("kind", "changes", "message"), CASES)
def test_anything_else_is_refused(
    watcher: Kube, written: tuple[str, dict[str, Json]], kind: str, changes: Json, message: str
) -> None:
    action, bodies = written
    is_invalid(refusal(watcher, action, changed(bodies[kind], changes), dry_run=True), message)


def test_the_watcher_does_that_with_nothing_changed(watcher: Kube, written: tuple[str, dict[str, Json]]) -> None:
    action, bodies = written
    for body in bodies.values():
        assert getattr(watcher, action)(body, dry_run=True)


NAMES = {
    "short": [
        "short",
        "DatabaseAccessRequest-{ns}-short",
        "DatabaseAccessRequest-{ns}-other-credential-reader",
        "DatabaseAccessRequest-other-short-credential-reader",
        "DatabaseAccessRequest-{ns}-short-credential-reader-2",
        "my-DatabaseAccessRequest-{ns}-short-credential-reader",
        "DatabaseAccessRequest-{ns}-short-0123456789ab-credential-reader",
    ],
    LONG: [
        "{cut}-0123456789a-credential-reader",
        "{cut}-0123456789abc-credential-reader",
        "{cut}-0123456789AB-credential-reader",
        "{cut}-credential-reader",
        "{cut}.-0123456789ab-credential-reader",
        "{cut}-0123456789ab-credential-reader-2",
        "{shorter}-0123456789ab-credential-reader",
        "DatabaseAccessRequest-{ns}-other-0123456789ab-credential-reader",
    ],
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize(
    ("owner", "name"), [pytest.param(owner, name, id=name) for owner in NAMES for name in NAMES[owner]]
)
def test_another_name_is_refused(admin: Kube, watcher: Kube, namespace: str, kind: str, owner: str, name: str) -> None:
    body, cut = BODIES[kind](asked(admin, namespace, owner)), f"DatabaseAccessRequest-{namespace}-{'d' * 188}"
    other = named(body, name.format(ns=namespace, cut=cut, shorter=cut[:-1]))
    is_invalid(refusal(watcher, "create", other, dry_run=True), NAMED)


@pytest.mark.parametrize("kind", BODIES)
def test_the_watcher_changes_nobody_elses(admin: Kube, watcher: Kube, namespace: str, kind: str) -> None:
    body = named(BODIES[kind](asked(admin, namespace)), "of-a-team")
    theirs = admin.create(with_value(body, "metadata.ownerReferences", ...))
    is_invalid(refusal(watcher, "replace", body, dry_run=True), NAMED)
    extra = {"metadata.labels": {"a": "b"}} | ({"rules.0.resourceNames": ["-abc123"]} if kind == "Role" else {})
    is_invalid(refusal(watcher, "replace", changed(theirs, extra), dry_run=True), OWNED)


@pytest.mark.parametrize(
    "changes",
    [
        {"roleRef.kind": "ClusterRole", "roleRef.name": "cluster-admin"},
        {"roleRef.kind": "ClusterRole", "roleRef.name": "admin"},
        {"roleRef.kind": "ClusterRole", "roleRef.name": "leasegate-approver"},
        {"roleRef.kind": "ClusterRole", "roleRef.name": "system:discovery"},
        {"roleRef.kind": "ClusterRole", "roleRef.name": ENABLED_ROLE, "subjects": [THE_WATCHER]},
        {"roleRef.kind": "ClusterRole"},
        {"roleRef.name": "of-a-team"},
    ],
    ids=lambda changes: changes.get("roleRef.name", "a ClusterRole of its name"),
)
def test_the_watcher_binds_nothing_else(
    admin: Kube, watcher: Kube, mighty: Kube, namespace: str, changes: Json
) -> None:
    body = changed(role_binding_body(asked(admin, namespace)), changes)
    kube = mighty if "roleRef.kind" in changes else watcher
    is_invalid(refusal(kube, "create", body, dry_run=True), OWN_ROLE)


@pytest.fixture(
    scope="module", params=["cluster admin", "namespace's admin", "account of the watcher's name elsewhere"]
)
def other(request: pytest.FixtureRequest, cluster: Running, admin: Kube, team: Kube) -> Kube:
    namesake = Kube(cluster, act_as="system:serviceaccount:default:leasegate-watcher", groups=("system:masters",))
    return {"cluster admin": admin, "namespace's admin": team}.get(str(request.param), namesake)


class TestOthers:
    @pytest.mark.parametrize("name", ["mine", "DatabaseAccessRequest-x-y-credential-reader"])
    def test_they_make_what_they_like(self, other: Kube, namespace: str, name: str) -> None:
        meta, rbac = {"name": name, "namespace": namespace}, f"{RBAC_GROUP}/v1"
        role = {"apiVersion": rbac, "kind": "Role", "metadata": meta} | _rule("", "pods/exec", "create")
        assert other.create(role, dry_run=True)
        for of in ("view", "admin"):
            ref = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": of}
            binding = {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": ref,
                "subjects": [MALLORY],
            }
            assert other.create(binding, dry_run=True)

    def test_they_change_what_the_watcher_made(self, other: Kube, kept: dict[str, Json]) -> None:
        assert other.replace(changed(kept["Role"], _rule("", "secrets", "list")), dry_run=True)
        disowned = {"metadata.ownerReferences": ..., "subjects": [MALLORY]}
        assert other.replace(changed(kept["RoleBinding"], disowned), dry_run=True)


FOREIGN: dict[str, list[Json]] = {
    "a user": [MALLORY],
    "a group": [MALLORY | {"kind": "Group", "name": "system:masters"}],
    "another account": [THE_WATCHER | {"name": "leasegate-access"}],
    "an account of that name elsewhere": [THE_WATCHER | {"namespace": "default"}],
    "a user of that name": [MALLORY | {"name": "leasegate-watcher"}],
    "the watcher and a user": [THE_WATCHER, MALLORY],
    "a user and the watcher": [MALLORY, THE_WATCHER],
    "the watcher twice": [THE_WATCHER, THE_WATCHER],
}
KINDS = ["RoleBinding", "ClusterRoleBinding"]


def enabling(namespace: str, kind: str = "RoleBinding", **members: Any) -> Json:
    """enabled-namespace.yaml under another name, or the same cluster-wide."""
    body: Json = yaml.safe_load((RBAC / "enabled-namespace.yaml").read_text()) | {"kind": kind} | members
    return body | {"metadata": {"name": "another-of-it"} | ({"namespace": namespace} if kind == "RoleBinding" else {})}


class TestEnabledNamespace:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("subjects", FOREIGN.values(), ids=FOREIGN)
    def test_only_the_watcher_has_it(self, admin: Kube, namespace: str, kind: str, subjects: list[Json]) -> None:
        is_invalid(refusal(admin, "create", enabling(namespace, kind, subjects=subjects), dry_run=True), WATCHERS_ALONE)

    @pytest.mark.parametrize("subjects", FOREIGN.values(), ids=FOREIGN)
    def test_nobody_joins_it(self, admin: Kube, namespace: str, subjects: list[Json]) -> None:
        bound = admin.get("RoleBinding", ENABLED_ROLE, namespace)
        is_invalid(refusal(admin, "replace", bound | {"subjects": subjects}, dry_run=True), WATCHERS_ALONE)

    @pytest.mark.parametrize("part", ["base", "fast-rbac"])
    def test_only_the_watcher_has_its_parts(self, admin: Kube, namespace: str, part: str) -> None:
        ref = {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": f"{ENABLED_ROLE}-{part}"}
        is_invalid(
            refusal(admin, "create", enabling(namespace, subjects=[MALLORY], roleRef=ref), dry_run=True), WATCHERS_ALONE
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_watcher_has_it(self, admin: Kube, namespace: str, kind: str) -> None:
        assert admin.create(enabling(namespace, kind), dry_run=True)
        assert admin.create(enabling(namespace, kind, subjects=[]), dry_run=True)

    @pytest.mark.parametrize(
        ("of", "name"), [("ClusterRole", "view"), ("ClusterRole", "leasegate-approver"), ("Role", ENABLED_ROLE)]
    )
    def test_other_bindings_are_not_looked_at(self, admin: Kube, namespace: str, of: str, name: str) -> None:
        body = enabling(namespace, subjects=[MALLORY], roleRef={"apiGroup": RBAC_GROUP, "kind": of, "name": name})
        assert admin.create(body, dry_run=True)


@pytest.fixture
def enablers(cluster: Running, admin: Kube) -> Iterator[str]:
    """The ClusterRole of docs/security/rbac.md for those who may enable their own namespaces."""
    name, role = "leasegate-enables", ENABLED_ROLE
    cluster.kubectl("create", "clusterrole", name, "--verb=bind", "--resource=clusterroles", f"--resource-name={role}")
    yield name
    admin.delete("ClusterRole", name)


def test_a_namespaces_admin_with_bind_enables_it_for_the_watcher_alone(
    admin: Kube, team: Kube, namespace: str, enablers: str
) -> None:
    refused = refusal(team, "create", enabling(namespace), dry_run=True)
    assert refused.status == 403
    assert "attempting to grant RBAC permissions not currently held" in refused.message
    right = {"verb": "bind", "resource": "clusterroles", "group": RBAC_GROUP, "name": ENABLED_ROLE}
    bind(admin, namespace, role=enablers, subject={"kind": "User", "name": "gina"}, until=right)
    assert team.create(enabling(namespace), dry_run=True)
    is_invalid(refusal(team, "create", enabling(namespace, subjects=[MALLORY]), dry_run=True), WATCHERS_ALONE)


def test_what_names_an_owner_that_is_not_there_is_removed(
    admin: Kube, namespace: str, orphans: dict[str, Json], kept: dict[str, Json]
) -> None:
    names = [(kind, made["metadata"]["name"]) for kind, made in orphans.items()]
    eventually(
        lambda: all(refusal(admin, "get", *each, namespace).status == 404 for each in names),
        timeout_s=90,
        what="both gone",
    )
    for kind, body in kept.items():
        assert admin.get(kind, body["metadata"]["name"], namespace), "that one's owner is there"
