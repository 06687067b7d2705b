"""Objects as the services take them: every field where it belongs, and every wrong one named."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from leasegate.access.v1 import approval_pb2
from services.common.errors import SpecInvalidError
from watcher.kube.resources import Body
from watcher.specs.access_request import binding_subjects, decisions, ensure_access_request
from watcher.specs.cluster import Cluster
from watcher.specs.db_role import db_role_spec
from watcher.specs.engine import engine_spec
from watcher.specs.fields import Fields

CLUSTER = Cluster("prod", "uid-of-kube-system")
META = {"namespace": "demo", "name": "thing", "uid": "uid-1", "generation": 4}
ENGINE: Body = {
    "metadata": META,
    "spec": {
        "vaultRef": {"name": "vault"},
        "path": "my-postgres-se",
        "postgres": {
            "databaseRef": {"name": "postgres-app", "namespace": "other"},
            "pluginName": "postgresql-database-plugin",
            "allowedRoles": ["*"],
            "maxOpenConnections": 4,
            "maxIdleConnections": -1,
            "maxConnectionLifetime": "90m",
        },
    },
}
ROLE: Body = {
    "metadata": META,
    "spec": {
        "vaultRef": {"name": "vault"},
        "path": "my-postgres-se",
        "databaseRef": {"name": "postgres-app", "namespace": "demo"},
        "creationStatements": ["CREATE", "GRANT"],
        "revocationStatements": ["DROP"],
        "rollbackStatements": ["ROLL"],
        "renewStatements": ["RENEW"],
        "defaultTTL": "1h",
        "maxTTL": 86400,
    },
}
REQUEST: Body = {
    "metadata": META | {"annotations": {"leasegate.dev/requested-by": "alice"}},
    "spec": {
        "roleRef": {"kind": "PostgresRole", "name": "psql-role", "namespace": "other"},
        "subjects": [
            {"kind": "ServiceAccount", "name": "demo-sa", "namespace": "demo"},
            {"kind": "User", "name": "bob"},
        ],
        "ttl": "8h",
    },
    "status": {"digest": "abc"},
}
GONE = object()


def changed(base: Body, path: str, value: Any) -> Body:
    obj = copy.deepcopy(base)
    *parents, last = path.split(".")
    place: Any = obj
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is GONE:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return obj


def read(base: Body, obj: Body) -> None:
    """Read an object as the kind that ``base`` is of."""
    if base is ENGINE:
        engine_spec(obj, CLUSTER)
    elif base is ROLE:
        db_role_spec(obj, CLUSTER)
    else:
        ensure_access_request(obj, CLUSTER, secret_attempt=0)


def test_an_engine_is_read_whole() -> None:
    spec = engine_spec(ENGINE, CLUSTER)
    assert (spec.vault, spec.path, spec.database) == (("demo", "vault"), "my-postgres-se", ("other", "postgres-app"))
    connection = spec.connection
    assert connection.name == "k8s.prod.other.postgres-app"
    assert (connection.plugin_name, list(connection.allowed_roles)) == ("postgresql-database-plugin", ["*"])
    assert (connection.max_open_connections, connection.max_idle_connections) == (4, -1)
    assert connection.max_connection_lifetime.seconds == 5400


def test_what_an_engine_leaves_out_is_absent() -> None:
    spec = engine_spec(
        {"metadata": META, "spec": {"vaultRef": {"name": "v"}, "postgres": {"databaseRef": {"name": "d"}}}}, CLUSTER
    )
    assert (spec.path, spec.database) == ("database", ("demo", "d"))
    assert not spec.connection.HasField("max_open_connections")
    assert not spec.connection.HasField("max_idle_connections")
    assert not spec.connection.HasField("max_connection_lifetime")
    assert not spec.connection.allowed_roles


def test_annotations_let_an_owner_adopt_a_mount_and_move_a_database() -> None:
    assert not engine_spec(ENGINE, CLUSTER).adopt_mount
    notes = {"leasegate.dev/adopt-mount": "true", "leasegate.dev/same-database-moved": "db-2:5432/app"}
    spec = engine_spec(changed(ENGINE, "metadata", META | {"annotations": notes}), CLUSTER)
    assert spec.adopt_mount
    assert spec.same_database_moved == "db-2:5432/app"


def test_a_cluster_without_a_name_is_a_dash_in_vault() -> None:
    assert engine_spec(ENGINE, Cluster("", "u")).connection.name == "k8s.-.other.postgres-app"


def test_a_role_is_read_whole() -> None:
    spec = db_role_spec(ROLE, CLUSTER)
    definition = spec.definition
    assert (spec.vault, spec.mount, spec.database) == (("demo", "vault"), "my-postgres-se", ("demo", "postgres-app"))
    assert definition.db_name == "k8s.prod.demo.postgres-app"
    assert [list(x) for x in (definition.creation_statements, definition.revocation_statements)] == [
        ["CREATE", "GRANT"],
        ["DROP"],
    ]
    assert [list(x) for x in (definition.rollback_statements, definition.renew_statements)] == [["ROLL"], ["RENEW"]]
    assert (definition.default_ttl.seconds, definition.max_ttl.seconds) == (3600, 86400)


@pytest.mark.parametrize(
    ("given", "seconds"), [("1h", 3600), ("90m", 5400), ("1h30m", 5400), ("3600", 3600), (3600, 3600), ("300", 300)]
)
def test_spans_as_people_write_them(given: object, seconds: int) -> None:
    assert db_role_spec(changed(ROLE, "spec.defaultTTL", given), CLUSTER).definition.default_ttl.seconds == seconds


@pytest.mark.parametrize("given", ["", 0, "0", None])
def test_no_ttl_is_absent(given: object) -> None:
    assert not db_role_spec(changed(ROLE, "spec.defaultTTL", given), CLUSTER).definition.HasField("default_ttl")


def test_a_list_that_is_taken_out_is_empty() -> None:
    assert not db_role_spec(changed(ROLE, "spec.revocationStatements", GONE), CLUSTER).definition.revocation_statements


def test_a_connection_may_be_named_directly_and_database_ref_wins() -> None:
    named = changed(changed(ROLE, "spec.databaseRef", GONE), "spec.databaseName", "by-hand")
    assert (db_role_spec(named, CLUSTER).database, db_role_spec(named, CLUSTER).definition.db_name) == (None, "by-hand")
    both = changed(ROLE, "spec.databaseName", "by-hand")
    assert db_role_spec(both, CLUSTER).definition.db_name == "k8s.prod.demo.postgres-app"


def test_a_request_is_read_whole() -> None:
    request = ensure_access_request(REQUEST, CLUSTER, secret_attempt=3)
    ref = request.object
    assert (ref.cluster, ref.cluster_uid, ref.namespace, ref.name, ref.uid, ref.generation) == (
        "prod", "uid-of-kube-system", "demo", "thing", "uid-1", 4,
    )  # fmt: skip
    assert (request.db_role.cluster_uid, request.db_role.namespace, request.db_role.name) == (
        "uid-of-kube-system",
        "other",
        "psql-role",
    )
    assert [(s.kind, s.name, s.namespace) for s in request.subjects] == [
        ("ServiceAccount", "demo-sa", "demo"),
        ("User", "bob", ""),
    ]
    assert (request.ttl.seconds, request.requester, request.status_digest, request.secret_attempt) == (
        28800,
        "alice",
        "abc",
        3,
    )


def test_a_role_in_the_requests_own_namespace_needs_no_naming() -> None:
    assert (
        ensure_access_request(
            changed(REQUEST, "spec.roleRef.namespace", GONE), CLUSTER, secret_attempt=0
        ).db_role.namespace
        == "demo"
    )


def test_a_request_without_a_stamp_has_no_requester() -> None:
    assert ensure_access_request(changed(REQUEST, "metadata", META), CLUSTER, secret_attempt=0).requester == ""


def test_for_whom_a_request_is_and_who_vouches_is_read_too() -> None:
    notes = {"leasegate.dev/on-behalf-of": "hal,eve", "leasegate.dev/verified-by": "portal"}
    request = ensure_access_request(changed(REQUEST, "metadata.annotations", notes), CLUSTER, secret_attempt=0)
    assert (request.on_behalf_of, request.verified_by) == ("hal,eve", "portal")


def test_subjects_go_into_the_binding_as_they_are() -> None:
    subjects = [
        {"kind": "ServiceAccount", "name": "a"},
        {"kind": "Group", "name": "b", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "User", "name": "c"},
    ]
    assert binding_subjects(changed(REQUEST, "spec.subjects", subjects)) == [
        {"kind": "ServiceAccount", "name": "a", "namespace": "demo"},
        {"kind": "Group", "name": "b", "apiGroup": "rbac.authorization.k8s.io"},
        {"kind": "User", "name": "c"},
    ]


WRONG: list[tuple[Body, str, Any, str]] = [
    (ENGINE, "spec", GONE, "spec.vaultRef"),
    (ENGINE, "spec.vaultRef", GONE, "spec.vaultRef"),
    (ENGINE, "spec.vaultRef", "vault", "spec.vaultRef"),
    (ENGINE, "spec.vaultRef.name", "", "spec.vaultRef.name"),
    (ENGINE, "spec.vaultRef.name", 7, "spec.vaultRef.name"),
    (ENGINE, "spec.vaultRef", {"name": "v", "namespace": "other"}, "spec.vaultRef.namespace"),
    (ENGINE, "spec.path", ["x"], "spec.path"),
    (ENGINE, "spec.postgres", GONE, "spec.postgres"),
    (ENGINE, "spec.postgres.databaseRef", GONE, "spec.postgres.databaseRef"),
    (ENGINE, "spec.postgres.databaseRef.name", "", "spec.postgres.databaseRef.name"),
    (ENGINE, "spec.postgres.pluginName", {}, "spec.postgres.pluginName"),
    (ENGINE, "spec.postgres.allowedRoles", "*", "spec.postgres.allowedRoles"),
    (ENGINE, "spec.postgres.allowedRoles", [1], "spec.postgres.allowedRoles"),
    (ENGINE, "spec.postgres.maxOpenConnections", "many", "spec.postgres.maxOpenConnections"),
    (ENGINE, "spec.postgres.maxOpenConnections", True, "spec.postgres.maxOpenConnections"),
    (ENGINE, "spec.postgres.maxIdleConnections", 1.5, "spec.postgres.maxIdleConnections"),
    (ENGINE, "spec.postgres.maxConnectionLifetime", "soon", "spec.postgres.maxConnectionLifetime"),
    (ROLE, "spec.vaultRef", GONE, "spec.vaultRef"),
    (ROLE, "spec.databaseRef", GONE, "spec.databaseRef"),
    (ROLE, "spec.databaseRef", [], "spec.databaseRef"),
    (ROLE, "spec.databaseRef.name", GONE, "spec.databaseRef.name"),
    (ROLE, "spec.creationStatements", GONE, "spec.creationStatements"),
    (ROLE, "spec.creationStatements", [], "spec.creationStatements"),
    (ROLE, "spec.creationStatements", [7], "spec.creationStatements"),
    (ROLE, "spec.revocationStatements", "DROP", "spec.revocationStatements"),
    (ROLE, "spec.rollbackStatements", {}, "spec.rollbackStatements"),
    (ROLE, "spec.renewStatements", [None], "spec.renewStatements"),
    (ROLE, "spec.defaultTTL", "-1h", "spec.defaultTTL"),
    (ROLE, "spec.maxTTL", [], "spec.maxTTL"),
    (ROLE, "spec.maxTTL", True, "spec.maxTTL"),
    (REQUEST, "spec.roleRef", GONE, "spec.roleRef"),
    (REQUEST, "spec.roleRef.kind", "MySQLRole", "spec.roleRef.kind"),
    (REQUEST, "spec.roleRef.kind", GONE, "spec.roleRef.kind"),
    (REQUEST, "spec.roleRef.name", GONE, "spec.roleRef.name"),
    (REQUEST, "spec.roleRef", {"kind": "PostgresRole", "name": "x", "apiGroup": "other"}, "spec.roleRef.apiGroup"),
    (REQUEST, "spec.subjects", GONE, "spec.subjects"),
    (REQUEST, "spec.subjects", [], "spec.subjects"),
    (REQUEST, "spec.subjects", "bob", "spec.subjects"),
    (REQUEST, "spec.subjects.0", "bob", "spec.subjects[0]"),
    (REQUEST, "spec.subjects.1.kind", "Robot", "spec.subjects[1].kind"),
    (REQUEST, "spec.subjects.1.name", "", "spec.subjects[1].name"),
    (REQUEST, "spec.ttl", "soon", "spec.ttl"),
    (REQUEST, "spec.ttl", "9" * 24 + "h", "spec.ttl"),
    (REQUEST, "spec.ttl", "9" * 400, "spec.ttl"),
    (ROLE, "spec.defaultTTL", 10**30, "spec.defaultTTL"),
]


@pytest.mark.parametrize(
    ("base", "path", "value", "field"),
    WRONG,
    ids=[f"{w[3]}={str(w[2])[:20] if w[2] is not GONE else 'gone'}" for w in WRONG],
)
def test_a_wrong_field_is_named(base: Body, path: str, value: Any, field: str) -> None:
    obj = changed(base, path, value)
    with pytest.raises(SpecInvalidError) as caught:
        read(base, obj)
    assert any(violation.field.startswith(field) for violation in caught.value.violations), caught.value.violations


def test_all_wrong_fields_are_named_at_once() -> None:
    obj = changed(changed(ROLE, "spec.defaultTTL", "soon"), "spec.creationStatements", [])
    with pytest.raises(SpecInvalidError, match=r"spec\.creationStatements.*spec\.defaultTTL"):
        db_role_spec(obj, CLUSTER)


# -- decisions


def decided(*conditions: Body) -> list[approval_pb2.Decision]:
    return decisions(REQUEST | {"status": {"conditions": list(conditions)}})


def test_decisions_keep_their_order_and_words() -> None:
    found = decided(
        {
            "type": "Approved",
            "reason": "KubectlApprove",
            "message": "yes",
            "lastUpdateTime": "2019-11-20T11:40:26Z",
            "approver": "bob",
            "digest": "d",
        },
        {"type": "Available", "status": "True"},
        {
            "type": "Denied",
            "status": "True",
            "reason": "KubectlDeny",
            "message": "no",
            "lastTransitionTime": "2019-11-20T11:40:27.5Z",
        },
    )
    assert [d.kind for d in found] == [approval_pb2.DECISION_KIND_APPROVED, approval_pb2.DECISION_KIND_DENIED]
    assert (found[0].approver, found[0].reason, found[0].message, found[0].digest) == (
        "bob",
        "KubectlApprove",
        "yes",
        "d",
    )
    assert [d.decide_time.ToJsonString() for d in found] == ["2019-11-20T11:40:26Z", "2019-11-20T11:40:27.500Z"]


def test_how_an_approver_is_known() -> None:
    by_policy, by_nothing = decided({"type": "Approved", "approver": "bob"}, {"type": "Denied"})
    assert (by_policy.proof, by_nothing.proof) == (
        approval_pb2.APPROVER_PROOF_ADMISSION,
        approval_pb2.APPROVER_PROOF_NONE,
    )


def test_an_own_approval_says_so() -> None:
    assert decided({"type": "Approved", "approver": "alice"})[0].self_approved
    assert not decided({"type": "Approved", "approver": "bob"})[0].self_approved
    assert not decided({"type": "Approved"})[0].self_approved


def test_a_condition_that_does_not_hold_decides_nothing() -> None:
    assert decided({"type": "Approved", "status": "False"}, {"type": "Denied", "status": "Unknown"}) == []


@pytest.mark.parametrize(
    "time",
    [None, "", "yesterday", 7, "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "10000-01-01T00:00:00Z"],
)
def test_a_decision_without_a_readable_time_counts_without_one(time: object) -> None:
    assert not decided({"type": "Approved", "lastUpdateTime": time})[0].HasField("decide_time")


def test_an_approvers_words_are_cut() -> None:
    assert len(decided({"type": "Denied", "message": "x" * 5000})[0].message) == 1024


def test_fields_of_something_else_than_an_object_are_empty_and_wrong() -> None:
    fields = Fields(["x"], "spec")
    assert (fields.text("a"), fields.texts("b"), fields.number("c"), fields.flag("d")) == ("", [], None, False)
    with pytest.raises(SpecInvalidError, match="spec: must be an object"):
        fields.check()
