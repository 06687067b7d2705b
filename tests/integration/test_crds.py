"""The CustomResourceDefinitions on a real API server: the guide's YAML applies as printed, and the text of a refusal says what is right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.kube import (
    EXAMPLES,
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    an_app_binding,
    an_engine,
    new_namespace,
    publish,
    refusal,
    with_value,
)

CRDS = sorted((Path(__file__).parents[2] / "deploy/crds").glob("*.yaml"))
MAKERS = {"AppBinding": an_app_binding, "SecretEngine": an_engine, "PostgresRole": a_role, "DatabaseAccessRequest": a_request}
LONG = "x" * 70000
DURATION = "write it like 1h, 90m, 1h30m or 3600 (seconds)"

# Refused at once, by kind: field, a wrong value, what the server says.
REFUSED: dict[str, list[tuple[str, Any, str]]] = {
    "AppBinding": [
        ("spec", ..., "spec: Required value"),
        ("spec.clientConfig", ..., "spec.clientConfig: Required value"),
        ("spec.clientConfig", "https://x", "must be of type object"),
        ("spec.clientConfig.url", 7, "must be of type string"),
        ("spec.clientConfig.url", "x" * 2049, "may not be more than 2048"),
        ("spec.clientConfig.service", {"port": 5432}, "spec.clientConfig.service.name: Required value"),
        ("spec.clientConfig.service", {"name": "postgres"}, "spec.clientConfig.service.port: Required value"),
        ("spec.clientConfig.service", {"name": "", "port": 5432}, "should be at least 1 chars long"),
        ("spec.clientConfig.service", {"name": "postgres", "port": "5432"}, "must be of type integer"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 0}, "greater than or equal to 1"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 65536}, "less than or equal to 65535"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 1, "scheme": 1}, "must be of type string"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 1, "path": 1}, "must be of type string"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 1, "query": 1}, "must be of type string"),
        ("spec.clientConfig.service", {"name": "postgres", "port": 1, "nope": 1}, 'unknown field "spec.clientConfig.service.nope"'),
        ("spec.clientConfig.caBundle", "not base64!", "spec.clientConfig.caBundle in body must be of type byte"),
        ("spec.clientConfig.insecureSkipTLSVerify", "yes", "must be of type boolean"),
        ("spec.clientConfig.serverName", 1, "must be of type string"),
        ("spec.secret", "postgres-user-cred", "must be of type object"),
        ("spec.secret.name", 1, "must be of type string"),
        ("spec.type", 1, "must be of type string"),
        ("spec.version", 1, "must be of type string"),
        ("spec.secretTransforms", {}, "must be of type array"),
        ("spec.secretTransforms", [{"renameKey": {"from": "a"}}], "renameKey.to: Required value"),
        ("spec.secretTransforms", [{"addKey": {"key": "a", "value": "!"}}], "must be of type byte"),
        ("spec.parameters", "x", "must be of type object"),
        ("spec.parameters", {"vaultRole": "r"}, "spec.parameters.apiVersion: Required value"),
        ("spec.parameters", {"apiVersion": "a/v1", "kind": "K", "vaultRole": 1}, "must be of type string"),
        ("spec.parameters", {"apiVersion": "a/v1", "kind": "K", "usePodServiceAccountForCsiDriver": "yes"}, "must be of type boolean"),
        ("spec.parameters", {"apiVersion": "a/v1", "kind": "K", "kubernetes": "x"}, "must be of type object"),
        ("spec.nope", 1, 'unknown field "spec.nope"'),
    ],
    "SecretEngine": [
        ("spec", ..., "spec: Required value"),
        ("spec.vaultRef", ..., "spec.vaultRef: Required value"),
        ("spec.vaultRef", "vault", "must be of type object"),
        ("spec.vaultRef.name", ..., "spec.vaultRef.name: Required value"),
        ("spec.vaultRef.name", "", "should be at least 1 chars long"),
        ("spec.vaultRef.name", "No Name", "should match"),
        ("spec.path", "", "should be at least 1 chars long"),
        ("spec.path", "/x", "single slashes between them, none at the ends"),
        ("spec.path", "x/", "single slashes between them, none at the ends"),
        ("spec.path", "a//b", "single slashes between them, none at the ends"),
        ("spec.path", "a/../b", "single slashes between them, none at the ends"),
        ("spec.path", "a b", "letters, digits, - _ ."),
        ("spec.path", "x*", "letters, digits, - _ ."),
        ("spec.path", "sys", "Vault keeps sys, auth, identity and cubbyhole for itself"),
        ("spec.path", "auth/kubernetes", "Vault keeps sys, auth, identity and cubbyhole for itself"),
        ("spec.path", "x" * 257, "may not be more than 256"),
        ("spec.path", 7, "must be of type string"),
        ("spec.postgres", ..., "postgres is required: it names the database"),
        ("spec.postgres", {}, "spec.postgres.databaseRef: Required value"),
        ("spec.postgres.databaseRef.name", ..., "databaseRef.name: Required value"),
        ("spec.postgres.databaseRef.name", "UPPER", "should match"),
        ("spec.postgres.databaseRef.namespace", ..., "databaseRef.namespace: Required value"),
        ("spec.postgres.databaseRef.namespace", "", "should be at least 1 chars long"),
        ("spec.postgres.databaseRef.namespace", "a.b", "should match"),
        ("spec.postgres.pluginName", "", "should be at least 1 chars long"),
        ("spec.postgres.pluginName", "no plugin", "should match"),
        ("spec.postgres.allowedRoles", "*", "must be of type array"),
        ("spec.postgres.allowedRoles", [""], "should be at least 1 chars long"),
        ("spec.postgres.allowedRoles", [1], "must be of type string"),
        ("spec.postgres.allowedRoles", ["r"] * 257, "must have at most 256 items"),
        ("spec.postgres.maxOpenConnections", "2", "must be of type integer"),
        ("spec.postgres.maxOpenConnections", -2, "greater than or equal to -1"),
        ("spec.postgres.maxIdleConnections", 100001, "less than or equal to 100000"),
        ("spec.postgres.maxConnectionLifetime", "soon", DURATION),
        ("spec.postgres.maxConnectionLifetime", -1, "greater than or equal to 0"),
        ("spec.mysql", {}, "only postgres is supported yet"),
        ("spec.aws", {"region": "x"}, "only postgres is supported yet"),
        ("spec.kv", {}, "only postgres is supported yet"),
        ("spec.namespace", "tenant", "namespace, defaultLeaseTTL and maxLeaseTTL are not supported yet"),
        ("spec.maxLeaseTTL", "1h", "namespace, defaultLeaseTTL and maxLeaseTTL are not supported yet"),
        ("spec.defaultLeaseTTL", 3600, "namespace, defaultLeaseTTL and maxLeaseTTL are not supported yet"),
        ("spec.nope", 1, 'unknown field "spec.nope"'),
    ],
    "PostgresRole": [
        ("spec", ..., "spec: Required value"),
        ("spec.vaultRef", ..., "spec.vaultRef: Required value"),
        ("spec.path", "x/", "single slashes between them, none at the ends"),
        ("spec.databaseRef", ..., "databaseRef or databaseName is required"),
        ("spec.databaseRef.name", "", "should be at least 1 chars long"),
        ("spec.databaseRef.namespace", "", "should be at least 1 chars long"),
        ("spec.databaseName", "no name", "should match"),
        ("spec.creationStatements", ..., "spec.creationStatements: Required value"),
        ("spec.creationStatements", [], "should have at least 1 items"),
        ("spec.creationStatements", "CREATE ROLE x", "must be of type array"),
        ("spec.creationStatements", [""], "should be at least 1 chars long"),
        ("spec.creationStatements", [LONG], "may not be more than 65536"),
        ("spec.creationStatements", ["x"] * 65, "must have at most 64 items"),
        ("spec.revocationStatements", "x", "must be of type array"),
        ("spec.rollbackStatements", [1], "must be of type string"),
        ("spec.renewStatements", [""], "should be at least 1 chars long"),
        ("spec.defaultTTL", "soon", DURATION),
        ("spec.defaultTTL", "1 h", DURATION),
        ("spec.defaultTTL", "-1h", DURATION),
        ("spec.defaultTTL", -1, "greater than or equal to 0"),
        ("spec.defaultTTL", 1.5, "spec.defaultTTL"),
        ("spec.maxTTL", "1y", DURATION),
        ("spec.maxTTL", True, "spec.maxTTL"),
        ("spec.maxTTL", 3155760001, "less than or equal to 3155760000"),
        ("spec.secretEngineRef", {"name": "x"}, 'unknown field "spec.secretEngineRef"'),
    ],
    "DatabaseAccessRequest": [
        ("spec", ..., "spec: Required value"),
        ("metadata.name", "x" * 247, "metadata.name has at most 246 characters"),
        ("spec.roleRef", ..., "spec.roleRef: Required value"),
        ("spec.roleRef.kind", ..., "spec.roleRef.kind: Required value"),
        ("spec.roleRef.kind", "", "kind: only PostgresRole is supported yet"),
        ("spec.roleRef.kind", "MySQLRole", "kind: only PostgresRole is supported yet"),
        ("spec.roleRef.apiGroup", "other", "apiGroup: engine.kubevault.com, or leave it out"),
        ("spec.roleRef.name", ..., "spec.roleRef.name: Required value"),
        ("spec.roleRef.name", "a/../b", "should match"),
        ("spec.roleRef.namespace", ..., "spec.roleRef.namespace: Required value"),
        ("spec.roleRef.namespace", "a.b", "should match"),
        ("spec.subjects", ..., "spec.subjects: Required value"),
        ("spec.subjects", [], "should have at least 1 items"),
        ("spec.subjects", [{"kind": "User", "name": "u"}] * 65, "must have at most 64 items"),
        ("spec.subjects.0.kind", ..., "spec.subjects[0].kind: Required value"),
        ("spec.subjects.0.kind", "Robot", "kind: ServiceAccount, User or Group"),
        ("spec.subjects.0.name", ..., "spec.subjects[0].name: Required value"),
        ("spec.subjects.0.name", "No Name", "name: no ServiceAccount can have this name"),
        ("spec.subjects.0.name", "", "should be at least 1 chars long"),
        ("spec.subjects.0.namespace", "a b", "should match"),
        ("spec.subjects.0.apiGroup", "rbac.authorization.k8s.io", "apiGroup: rbac.authorization.k8s.io for a User or Group, none for"),
        ("spec.ttl", "soon", DURATION),
        ("spec.ttl", "0h", "longer than 0"),
        ("spec.ttl", 0, "greater than or equal to 1"),
        ("spec.ttl", [], "spec.ttl"),
        ("spec.nope", 1, 'unknown field "spec.nope"'),
    ],
}

# Applied, by kind: right values out of the ordinary, and wrong ones of which only the watcher or a service can tell.
ACCEPTED: dict[str, list[tuple[str, Any]]] = {
    "AppBinding": [
        ("spec.clientConfig", {}),
        ("spec.clientConfig.url", "no url at all"),
        ("spec.clientConfig.url", "postgresql://user:pass@db/app"),
        ("spec.clientConfig.service", {"name": "p", "port": 5432}),
        (
            "spec.clientConfig.service",
            {"name": "p", "port": 5432, "scheme": "HTTPS", "namespace": "other", "path": "/", "query": "sslmode=disable"},
        ),
        ("spec.clientConfig.caBundle", "bm90IGEgY2VydGlmaWNhdGU="),
        ("spec.secret", {"apiGroup": "", "kind": "Secret", "name": "none-such"}),
        ("spec.tlsSecret.name", "tls"),
        ("spec.appRef", {"apiGroup": "kubedb.com", "kind": "Postgres", "name": "x", "namespace": "y"}),
        (
            "spec.secretTransforms",
            [{"renameKey": {"from": "a", "to": "b"}}, {"addKey": {"key": "c", "stringValue": "d"}}, {"removeKey": {"key": "e"}}],
        ),
        ("spec.secretTransforms", [{"addKeysFrom": {"secretRef": {"name": "x", "namespace": "y"}}}]),
        ("spec.parameters", {"apiVersion": "other/v1", "kind": "Other", "of": {"their": ["own"]}}),
    ],
    "SecretEngine": [
        ("spec.path", "my-postgres-se"),
        ("spec.path", "team-a/Postgres_1.x"),
        ("spec.path", "somebody-elses-mount"),
        ("spec.vaultRef.name", "none-such"),
        ("spec.vaultRef.namespace", "other"),
        ("spec.postgres.databaseRef.name", "none-such"),
        ("spec.postgres.databaseRef.parameters", {"any": {"thing": 1}}),
        ("spec.postgres.pluginName", "no-such-plugin"),
        ("spec.postgres.allowedRoles", []),
        ("spec.postgres.allowedRoles", ["readonly", "k8s.-.demo.*"]),
        ("spec.postgres.maxOpenConnections", 0),
        ("spec.postgres.maxIdleConnections", -1),
        ("spec.postgres.maxConnectionLifetime", "5m"),
        ("spec.postgres.maxConnectionLifetime", 300),
    ],
    "PostgresRole": [
        ("spec.databaseName", "k8s.-.demo.postgres-app"),
        ("spec.databaseName", ""),
        ("spec.creationStatements", ["this is no SQL"]),
        ("spec.revocationStatements", []),
        ("spec.defaultTTL", "1h"),
        ("spec.defaultTTL", "1h0m0s"),
        ("spec.defaultTTL", 3600),
        ("spec.defaultTTL", "300"),
        ("spec.defaultTTL", ""),
        ("spec.defaultTTL", 0),
        ("spec.defaultTTL", "1000h"),
        ("spec.maxTTL", "1.5h"),
        ("spec.maxTTL", "30d"),
    ],
    "DatabaseAccessRequest": [
        ("spec.roleRef.apiGroup", "engine.kubevault.com"),
        ("spec.roleRef.name", "none-such"),
        ("spec.roleRef.namespace", "none-such"),
        ("spec.ttl", "8h"),
        ("spec.ttl", 28800),
        ("spec.ttl", "300"),
        ("spec.ttl", ""),
        ("spec.subjects.0.namespace", ...),
        ("spec.subjects.0.namespace", "none-such"),
        (
            "spec.subjects",
            [{"kind": "User", "name": "alice@example.com", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "Group", "name": "a:b"}],
        ),
    ],
}


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return new_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


def _cases(table: Mapping[str, Sequence[tuple[Any, ...]]]) -> list[Any]:
    return [pytest.param(kind, *case, id=f"{kind}-{case[0]}-{str(case[1])[:20]}") for kind, cases in table.items() for case in cases]


@pytest.mark.parametrize(("kind", "field", "value", "says"), _cases(REFUSED))
def test_a_wrong_field_is_refused_with_a_text_that_helps(admin: Kube, namespace: str, kind: str, field: str, value: Any, says: str) -> None:
    refused = refusal(admin, "create", with_value(MAKERS[kind](namespace), field, value), dry_run=True)
    assert refused.status in (400, 422)
    assert says in refused.message


@pytest.mark.parametrize(("kind", "field", "value"), _cases(ACCEPTED))
def test_what_only_the_services_can_judge_applies(admin: Kube, namespace: str, kind: str, field: str, value: Any) -> None:
    wanted = with_value(MAKERS[kind](namespace), field, value)
    assert admin.create(wanted, dry_run=True)["spec"] == wanted["spec"]


def test_a_role_by_database_name_alone_applies(admin: Kube, namespace: str) -> None:
    by_name = with_value(a_role(namespace, databaseName="k8s.-.demo.postgres-app"), "spec.databaseRef", ...)
    assert admin.create(by_name, dry_run=True)


def test_the_guides_yaml_applies_as_printed(cluster: Running) -> None:
    if cluster.kubectl("get", "ns", "demo", check=False).returncode:
        cluster.kubectl("create", "ns", "demo")
    files = ("postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest")
    said = [cluster.kubectl("apply", "-f", str(EXAMPLES / f"{file}.yaml")).stdout for file in files]
    try:
        assert said == [
            "appbinding.appcatalog.appscode.com/postgres-app created\nsecret/postgres-user-cred created\n",
            "secretengine.engine.kubevault.com/postgresql-engine created\n",
            "postgresrole.engine.kubevault.com/psql-role created\n",
            "databaseaccessrequest.engine.kubevault.com/postgres-cred-rqst created\n",
        ]
        for file in files:
            printed = next(yaml.safe_load_all((EXAMPLES / f"{file}.yaml").read_text()))
            stored = json.loads(cluster.kubectl("get", printed["kind"], printed["metadata"]["name"], "-n", "demo", "-o", "json").stdout)
            assert stored["spec"] == printed["spec"]
    finally:
        for file in files:
            cluster.kubectl("delete", "--ignore-not-found", "-f", str(EXAMPLES / f"{file}.yaml"))


FLAT = {
    "apiVersion": "config.kubevault.com/v1alpha1",
    "kind": "VaultServerConfiguration",
    "authMethodControllerRole": "k8s.-.demo.vault-auth-method-controller",
    "path": "kubernetes",
    "vaultRole": "vault-policy-controller",
    "serviceAccountName": "vault",
    "tokenReviewerServiceAccountName": "vault-k8s-token-reviewer",
    "usePodServiceAccountForCsiDriver": True,
}
NESTED = {
    "apiVersion": "config.kubevault.com/v1alpha1",
    "kind": "VaultServerConfiguration",
    "path": "kubernetes",
    "vaultRole": "vault-policy-controller",
    "kubernetes": {"serviceAccountName": "vault", "usePodServiceAccountForCSIDriver": True, "more": {"of": "it"}},
    "unsealer": {"secretShares": 4},
}


@pytest.mark.parametrize("parameters", [FLAT, NESTED, FLAT | {"policyControllerRole": "old"}], ids=["flat", "nested", "older"])
def test_both_shapes_of_vaults_parameters_are_kept_whole(admin: Kube, namespace: str, parameters: Json) -> None:
    config = {"service": {"name": "vault", "port": 8200, "scheme": "HTTPS"}, "caBundle": "LS0t"}
    stored = admin.create(an_app_binding(namespace, clientConfig=config, parameters=parameters))
    assert stored["spec"] == {"clientConfig": config, "parameters": parameters}


def test_an_app_binding_has_no_status(admin: Kube, namespace: str) -> None:
    stored = admin.create(an_app_binding(namespace))
    assert refusal(admin, "patch", stored, {"status": {"phase": "x"}}, status=True).status == 404


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("appbindings", ["NAME", "TYPE", "VERSION", "AGE"]),
        ("secretengines", ["NAME", "STATUS", "AGE"]),
        ("postgresroles", ["NAME", "STATUS", "AGE"]),
        ("databaseaccessrequests", ["NAME", "STATUS", "EXPIRES", "AGE"]),
    ],
)
def test_columns(cluster: Running, admin: Kube, namespace: str, kind: str, columns: list[str]) -> None:
    admin.create(next(maker(namespace) for name, maker in MAKERS.items() if f"{name.lower()}s" == kind))
    assert cluster.kubectl("get", kind, "-n", namespace).stdout.splitlines()[0].split() == columns


def test_the_lease_shows_in_its_column(cluster: Running, admin: Kube, namespace: str) -> None:
    request = admin.create(a_request(namespace))
    lease = {"id": "m/creds/r/x", "duration": "1h0m0s", "renewable": True, "expireTime": "2026-11-24T07:00:00Z"}
    publish(admin, request, phase="Approved", lease=lease, secret={"name": "s"}, attempt=1)
    row = cluster.kubectl("get", "dar", request["metadata"]["name"], "-n", namespace, "--no-headers").stdout.split()
    assert row[1:3] == ["Approved", "2026-11-24T07:00:00Z"]


@pytest.mark.parametrize("name", ["dar", "sengine", "pgrole", "vault", "appscode", "catalog"])
def test_short_names_and_categories(cluster: Running, namespace: str, name: str) -> None:
    assert cluster.kubectl("get", name, "-n", namespace).returncode == 0


def _fields(schema: Json, way: str = "") -> Iterator[tuple[str, Json]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{way}.{name}", field
        yield from _fields(field, f"{way}.{name}")
    if "items" in schema:
        yield from _fields(schema["items"], f"{way}[]")


@pytest.mark.parametrize("file", CRDS, ids=lambda file: file.stem)
def test_every_field_is_explained_and_every_text_and_list_has_an_end(file: Path) -> None:
    (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    for way, field in _fields(schema):
        if way in (".metadata", ".apiVersion", ".kind"):
            continue
        assert field.get("description"), f"{way} is not explained"
        if field.get("type") == "string" and "enum" not in field and field.get("format") != "date-time":
            assert "maxLength" in field, f"{way} has no longest text"
        if field.get("type") == "array":
            assert "maxItems" in field, f"{way} has no longest list"


def test_kubectl_explains_a_field(cluster: Running) -> None:
    assert "How long access lasts in all" in cluster.kubectl("explain", "databaseaccessrequest.spec.ttl").stdout


@pytest.mark.parametrize("change", [{"path": "other"}, {"path": None}])
def test_the_path_of_an_engine_stays(admin: Kube, namespace: str, change: Json) -> None:
    engine = admin.create(an_engine(namespace, path="my-postgres-se"))
    assert "path can not be changed, added or removed" in refusal(admin, "patch", engine, {"spec": change}).message


def test_a_path_is_not_added_later_but_all_else_may_change(admin: Kube, namespace: str) -> None:
    engine = admin.create(an_engine(namespace))
    assert "path can not be changed" in refusal(admin, "patch", engine, {"spec": {"path": "database"}}).message
    assert admin.patch(engine, {"spec": {"postgres": {"maxOpenConnections": 5}}})["spec"]["postgres"]["maxOpenConnections"] == 5


FREEZING = [{"type": "Approved", "approver": "admin", "status": "True"}, {"type": "Denied", "approver": "admin"}]


@pytest.mark.parametrize("decision", FREEZING, ids=["Approved", "Denied"])
@pytest.mark.parametrize(
    "change",
    [
        {"roleRef": {"name": "other"}},
        {"subjects": [{"kind": "User", "name": "mallory"}]},
        {"ttl": "9h"},
        {"ttl": None},
    ],
    ids=["roleRef", "subjects", "ttl", "no-ttl"],
)
def test_a_decision_freezes_the_spec(admin: Kube, namespace: str, decision: Json, change: Json) -> None:
    request = admin.create(a_request(namespace, ttl="1h"))
    admin.patch(request, {"spec": {"ttl": "2h"}})
    admin.patch(request, {"status": {"conditions": [decision]}}, status=True)
    refused = refusal(admin, "patch", request, {"spec": change})
    assert refused.status == 422
    assert "once a request is approved or denied, its spec can not be changed" in refused.message
    marked = admin.patch(request, {"metadata": {"labels": {"still": "possible"}, "finalizers": ["leasegate.dev/finalizer"]}})
    assert marked["metadata"]["labels"] == {"still": "possible"}
    admin.patch(request, {"metadata": {"finalizers": None}})


def test_other_conditions_do_not_freeze(admin: Kube, namespace: str) -> None:
    request = admin.create(a_request(namespace))
    publish(admin, request, conditions=[{"type": "RoleReady", "status": "False", "reason": "RoleMissing", "message": "no such role"}])
    assert admin.patch(request, {"spec": {"ttl": "2h"}})["metadata"]["generation"] == 2


def test_two_conditions_of_one_type_are_refused(admin: Kube, namespace: str) -> None:
    request = admin.create(a_request(namespace))
    twice = [{"type": "RoleReady", "status": "False"}, {"type": "RoleReady", "status": "True"}]
    assert "Duplicate value" in refusal(admin, "patch", request, {"status": {"conditions": twice}}, status=True).message


STAMPED = {
    "reason": "R",
    "message": "m",
    "lastUpdateTime": "2026-11-24T07:00:00Z",
    "lastTransitionTime": "2026-11-24T07:00:00Z",
    "observedGeneration": 1,
}
TARGET = {
    "cluster": "-",
    "namespace": "demo",
    "name": "vault",
    "digest": "d",
    "address": "https://v",
    "vaultNamespace": "",
    "authMount": "kubernetes",
}
STATUSES: dict[str, Json] = {
    "SecretEngine": {"path": "p", "connection": "c", "mount": {"ownership": "Owned", "more": 1}, "target": TARGET | {"caBundle": "LS0t"}},
    "PostgresRole": {"path": "p", "connection": "c", "role": "r", "digest": "d", "target": TARGET},
    "DatabaseAccessRequest": {
        "digest": "d",
        "attempt": 2,
        "secret": {"name": "s"},
        "lease": {"id": "i", "duration": "1h0m0s", "renewable": True, "expireTime": "2026-11-24T07:00:00Z"},
    },
}


@pytest.mark.parametrize("kind", list(STATUSES))
def test_a_whole_status_is_kept(admin: Kube, namespace: str, kind: str) -> None:
    stored = admin.create(MAKERS[kind](namespace))
    phase = "Approved" if kind == "DatabaseAccessRequest" else "Success"
    status = STATUSES[kind] | {"phase": phase, "observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"} | STAMPED]}
    assert admin.patch(stored, {"status": status}, status=True)["status"] == status


@pytest.mark.parametrize(
    ("kind", "phases"),
    [
        ("SecretEngine", ["Processing", "Success", "Failed"]),
        ("PostgresRole", ["Processing", "Success", "Failed"]),
        ("DatabaseAccessRequest", ["WaitingForApproval", "Approved", "Denied", "Expired"]),
    ],
)
def test_phases(admin: Kube, namespace: str, kind: str, phases: list[str]) -> None:
    stored = admin.create(MAKERS[kind](namespace))
    for phase in phases:
        admin.patch(stored, {"status": {"phase": phase}}, status=True)
    assert "supported values" in refusal(admin, "patch", stored, {"status": {"phase": "Odd"}}, status=True).message
