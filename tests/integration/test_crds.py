"""The CustomResourceDefinitions on a real API server: the guide's YAML applies as printed, and refusals are clear."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.durations import parse_seconds
from tests.integration.crd_fields import ACCEPTED, MAKERS, REFUSED
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


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return new_namespace(cluster)


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


def _cases(table: Mapping[str, Sequence[tuple[Any, ...]]]) -> list[Any]:
    return [
        pytest.param(kind, *case, id=f"{kind}-{case[0]}-{str(case[1])[:20]}")
        for kind, cases in table.items()
        for case in cases
    ]


@pytest.mark.parametrize(("kind", "field", "value", "says"), _cases(REFUSED))
def test_a_wrong_field_is_refused_with_a_text_that_helps(
    admin: Kube, namespace: str, kind: str, field: str, value: Any, says: str
) -> None:
    refused = refusal(admin, "create", with_value(MAKERS[kind](namespace), field, value), dry_run=True)
    assert refused.status in (400, 422)
    assert says in refused.message


@pytest.mark.parametrize(("kind", "field", "value"), _cases(ACCEPTED))
def test_what_only_the_services_can_judge_applies(
    admin: Kube, namespace: str, kind: str, field: str, value: Any
) -> None:
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
            stored = json.loads(
                cluster.kubectl("get", printed["kind"], printed["metadata"]["name"], "-n", "demo", "-o", "json").stdout
            )
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


@pytest.mark.parametrize(
    "parameters", [FLAT, NESTED, FLAT | {"policyControllerRole": "old"}], ids=["flat", "nested", "older"]
)
def test_both_shapes_of_vaults_parameters_are_kept_whole(admin: Kube, namespace: str, parameters: Json) -> None:
    config = {"service": {"name": "vault", "port": 8200, "scheme": "HTTPS"}, "caBundle": "LS0t"}
    stored = admin.create(an_app_binding(namespace, clientConfig=config, parameters=parameters))
    assert stored["spec"] == {"clientConfig": config, "parameters": parameters}


def test_an_app_bindings_status_is_kept_and_no_part_of_the_object(admin: Kube, namespace: str) -> None:
    stored = admin.create(an_app_binding(namespace) | {"status": {"observedGeneration": 7}})
    assert "status" not in stored
    status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True", "reason": "Registered"}]}
    assert admin.patch(stored, {"status": {**status, "phase": "of another operator"}}, status=True)["status"] == {
        **status,
        "phase": "of another operator",
    }


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("appbindings", ["NAME", "TYPE", "VERSION", "READY", "AGE"]),
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


SPANS = [
    "1h",
    "90m",
    "1h30m",
    "1h0m0s",
    "3600",
    "1.5h",
    "30d",
    "1d12h",
    "250ms",
    "0",
    "soon",
    "1 h",
    "-1h",
    "1y",
    "1",
    "h",
    "1h1",
    "1.h",
    ".5h",
    "1e3",
]


@pytest.mark.parametrize("text", SPANS)
def test_the_schemas_and_the_services_agree_on_spans(text: str) -> None:
    rules = [rule for file in CRDS for rule in re.findall(r"self\.matches\('(\^\(\[0-9\]\+.*?)'\)", file.read_text())]
    assert len(rules) == 4
    try:
        parse_seconds(text)
    except ValueError:
        assert not any(re.match(rule, text) for rule in rules)
    else:
        assert all(re.match(rule, text) for rule in rules)


def test_kubectl_explains_a_field(cluster: Running) -> None:
    assert "How long access lasts in all" in cluster.kubectl("explain", "databaseaccessrequest.spec.ttl").stdout


@pytest.mark.parametrize("change", [{"path": "other"}, {"path": None}])
def test_the_path_of_an_engine_stays(admin: Kube, namespace: str, change: Json) -> None:
    engine = admin.create(an_engine(namespace, path="my-postgres-se"))
    assert "path can not be changed, added or removed" in refusal(admin, "patch", engine, {"spec": change}).message


def test_a_path_is_not_added_later_but_all_else_may_change(admin: Kube, namespace: str) -> None:
    engine = admin.create(an_engine(namespace))
    assert "path can not be changed" in refusal(admin, "patch", engine, {"spec": {"path": "database"}}).message
    assert (
        admin.patch(engine, {"spec": {"postgres": {"maxOpenConnections": 5}}})["spec"]["postgres"]["maxOpenConnections"]
        == 5
    )


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
    publish(admin, admin.patch(request, {"spec": {"ttl": "2h"}}))
    admin.patch(request, {"status": {"conditions": [decision]}}, status=True)
    refused = refusal(admin, "patch", request, {"spec": change})
    assert refused.status == 422
    assert "once a request is approved or denied, its spec can not be changed" in refused.message
    marked = admin.patch(
        request, {"metadata": {"labels": {"still": "possible"}, "finalizers": ["leasegate.dev/finalizer"]}}
    )
    assert marked["metadata"]["labels"] == {"still": "possible"}
    admin.patch(request, {"metadata": {"finalizers": None}})


def test_other_conditions_do_not_freeze(admin: Kube, namespace: str) -> None:
    request = admin.create(a_request(namespace))
    publish(
        admin,
        request,
        conditions=[{"type": "RoleReady", "status": "False", "reason": "RoleMissing", "message": "no such role"}],
    )
    assert admin.patch(request, {"spec": {"ttl": "2h"}})["metadata"]["generation"] == 2


@pytest.mark.parametrize("kind", ["Approved", "Denied"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": "0" * 65},
        {"digest": "d"},
        {"digest": "F" * 64},
        {"lastUpdateTime": "0001-01-01T00:00:00+05:00"},
        {"lastTransitionTime": "1999-12-31T23:59:59Z"},
        {"lastTransitionTime": "3000-01-01T00:00:00Z"},
    ],
    ids=lambda wrong: "-".join(*wrong.items())[:30],
)
def test_a_malformed_decision_is_refused_and_the_next_one_counts(
    admin: Kube, namespace: str, kind: str, wrong: Json
) -> None:
    """M1: nothing malformed stands in the way of the next decision."""
    request = admin.create(a_request(namespace))
    right = {"type": kind, "approver": "admin", "digest": "2:" + "0f" * 32, "lastUpdateTime": "2026-11-24T07:00:00Z"}
    publish(admin, request, digest=right["digest"])
    refused = refusal(admin, "patch", request, {"status": {"conditions": [right | wrong]}}, status=True)
    assert refused.status == 422
    assert next(iter(wrong)) in refused.message
    assert "is invalid" in refused.message  # by the CRD, and not by a policy
    kept = admin.patch(request, {"status": {"conditions": [right]}}, status=True)
    assert kept["status"]["conditions"][0]["digest"] == right["digest"]


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
    "SecretEngine": {
        "path": "p",
        "connection": "c",
        "database": "h:1/d",
        "databaseIdentity": "h:1/d",
        "plugin": "p",
        "mount": {"ownership": "Owned", "more": 1},
        "target": TARGET | {"caBundle": "LS0t"},
    },
    "PostgresRole": {"path": "p", "connection": "c", "role": "r", "digest": "d", "target": TARGET},
    "DatabaseAccessRequest": {
        "digest": "d",
        "grant": {
            "vault": "v",
            "mount": "m",
            "role": "r",
            "connection": "c",
            "database": "h:1/d",
            "plugin": "p",
            "creationStatements": ["s"],
            "revocationStatements": ["s"],
            "rollbackStatements": ["s"],
            "renewStatements": ["s"],
            "defaultTTL": "1h0m0s",
            "maxTTL": "24h0m0s",
            "subjects": ["Group g"],
            "ttl": "8h0m0s",
            "reason": "why",
            "ticket": "T-1",
            "omittedCharacters": 1,
        },
        "attempt": 2,
        "secret": {"name": "s"},
        "lease": {"id": "i", "duration": "1h0m0s", "renewable": True, "expireTime": "2026-11-24T07:00:00Z"},
    },
}


@pytest.mark.parametrize("kind", list(STATUSES))
def test_a_whole_status_is_kept(admin: Kube, namespace: str, kind: str) -> None:
    stored = admin.create(MAKERS[kind](namespace))
    phase = "Approved" if kind == "DatabaseAccessRequest" else "Success"
    status = STATUSES[kind] | {
        "phase": phase,
        "observedGeneration": 1,
        "conditions": [{"type": "Available", "status": "True"} | STAMPED],
    }
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
