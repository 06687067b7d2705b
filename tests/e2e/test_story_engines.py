"""What a SecretEngine and a PostgresRole promise besides the guide's straight way, on real servers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually


@pytest.fixture
def guide(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Space]:
    """The guide's objects on a mount of their own, all well."""
    with space(stack, f"en{abs(hash(request.node.name)) % 10**6}") as made:
        made.apply(*made.guide())
        made.phase(ROLE, "Success")
        yield made
    assert made.described() is None or "owners" not in str(made.described())


def _password(text: str) -> dict[str, dict[str, str]]:
    return {"data": {"password": base64.b64encode(text.encode()).decode()}}


def test_a_changed_database_password_is_pushed_to_vault(guide: Space) -> None:
    """Vault logs in with what the AppBinding's Secret holds now."""
    user = f"manager_{guide.name}"
    guide.stack.psql(f"create role {user} superuser LOGIN password 'first-password'")
    try:
        names = {"username": base64.b64encode(user.encode()).decode()}
        guide.patch("secret/postgres-user-cred", {"data": names | _password("first-password")["data"]})
        connection = f"{guide.mount}/config/k8s.-.{guide.name}.postgres-app"
        eventually(lambda: user in guide.stack.bao("read", connection).stdout, timeout_s=30, what="the user in Vault")
        guide.stack.psql(f"alter role {user} password 'second-password'")
        guide.patch("secret/postgres-user-cred", _password("wrong-password"))
        guide.phase(ENGINE, "Failed")
        guide.reported(ENGINE, "Warning", "FailedToCreateSecretEngineConfig")
        assert guide.condition(ENGINE, "Available")["status"] == "False"
        guide.patch("secret/postgres-user-cred", _password("second-password"))
        guide.phase(ENGINE, "Success")
        # No session of the old password may be what creates the user.
        guide.stack.psql(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{user}'")  # noqa: S608
        assert guide.user_works(guide.secret(guide.granted()))
        guide.kubectl("delete", "databaseaccessrequest", "--all")
        guide.kubectl("delete", ROLE, ENGINE)
    finally:
        eventually(lambda: not guide.database_users(), timeout_s=30)
        guide.stack.psql(f"drop owned by {user}; drop role {user}")


def test_kubectl_shows_which_vault_answers(guide: Space) -> None:
    said = guide.stack.vault_api().call("GET", "sys/health").body
    shown = {"name": "main", "clusterID": said["cluster_id"], "version": said["version"]}
    assert guide.status(ENGINE)["vault"] == shown
    assert f"main    {said['cluster_id']}" in guide.kubectl("get", ENGINE, "-o", "wide")


def test_success_does_not_outlive_a_failing_update(guide: Space) -> None:
    """Phase and printer column tell of a later failure, and of its end."""
    guide.patch(ENGINE, {"spec": {"postgres": {"pluginName": "no-such-plugin"}}})
    guide.phase(ENGINE, "Failed")
    assert "Failed" in guide.kubectl("get", ENGINE)
    guide.reported(ENGINE, "Warning", "plugin")
    assert guide.status(ENGINE)["observedGeneration"] == guide.get(ENGINE)["metadata"]["generation"]
    guide.patch(ENGINE, {"spec": {"postgres": {"pluginName": "postgresql-database-plugin"}}})
    guide.phase(ENGINE, "Success")
    assert not guide.condition(ENGINE, "Failed")
    guide.patch(ROLE, {"spec": {"defaultTTL": "48h"}})
    guide.phase(ROLE, "Failed")
    guide.reported(ROLE, "Warning", "TTL")
    guide.patch(ROLE, {"spec": {"defaultTTL": "2h"}})
    guide.phase(ROLE, "Success")


def test_a_list_cleared_in_the_spec_is_cleared_in_vault(guide: Space) -> None:
    """All four lists and both TTLs go from Vault with the spec."""
    role = f"{guide.mount}/roles/k8s.-.{guide.name}.psql-role"

    def in_vault() -> dict[str, object]:
        return dict(json.loads(guide.stack.bao("read", "-format=json", role).stdout)["data"])

    lists = {name: ["SELECT 1;"] for name in ("revocationStatements", "rollbackStatements", "renewStatements")}
    guide.patch(ROLE, {"spec": lists | {"maxTTL": "300", "defaultTTL": "5m"}})
    eventually(lambda: in_vault()["max_ttl"] == 300, timeout_s=30)
    found = in_vault()
    for name in ("revocation_statements", "rollback_statements", "renew_statements"):
        assert found[name]
    guide.patch(
        ROLE,
        {
            "spec": {
                "revocationStatements": [],
                "rollbackStatements": None,
                "renewStatements": [],
                "maxTTL": None,
                "defaultTTL": None,
            }
        },
    )

    def cleared() -> bool:
        found = in_vault()
        assert [found[name] for name in ("revocation_statements", "rollback_statements", "renew_statements")] == [
            [],
            [],
            [],
        ], found
        assert (found["max_ttl"], found["default_ttl"]) == (0, 0), found
        return True

    eventually(cleared, timeout_s=30)
    guide.phase(ROLE, "Success")
    limits = {"maxOpenConnections": 3, "maxIdleConnections": 2, "maxConnectionLifetime": "30s"}
    guide.patch(ENGINE, {"spec": {"postgres": limits}})
    config = f"{guide.mount}/config/k8s.-.{guide.name}.postgres-app"

    def details() -> dict[str, object]:
        return dict(json.loads(guide.stack.bao("read", "-format=json", config).stdout)["data"]["connection_details"])

    eventually(lambda: str(details().get("max_open_connections")) == "3", timeout_s=30)
    assert details()["max_connection_lifetime"] == "30s"
    guide.patch(ENGINE, {"spec": {"postgres": dict.fromkeys(limits)}})
    eventually(lambda: str(details().get("max_open_connections")) in ("0", "4", "None"), timeout_s=30)


def test_a_shared_mount_goes_with_its_last_engine(guide: Space) -> None:
    """Two SecretEngines on one path: the first to go leaves mount and connection, the last one takes them."""
    second = guide.guide("postgresSecretEngine")[0]
    second["metadata"]["name"] = "second"
    guide.apply(second)
    guide.phase("secretengine/second", "Success")
    assert f"{guide.name}/second" in str(guide.described())
    secret = guide.granted()
    guide.kubectl("delete", ENGINE, "--timeout=30s")
    assert f"{guide.name}/second" in str(guide.described())
    assert guide.user_works(guide.secret(secret))
    guide.phase(ROLE, "Success")
    guide.kubectl("delete", "secretengine/second", "--timeout=60s")
    assert guide.described() is None
    eventually(lambda: not guide.database_users(), timeout_s=30)


@pytest.fixture
def foreign(stack: LocalStack) -> Iterator[Space]:
    """An enabled namespace whose mount an operator made by hand."""
    with space(stack, "foreign") as made:
        stack.bao("secrets", "enable", f"-path={made.mount}", "-description=the operator's", "database")
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        yield made
    stack.bao("secrets", "disable", made.mount)


def test_a_foreign_mount_is_refused_and_never_unmounted(foreign: Space) -> None:
    """It is used only if the annotation says so, and stays when the SecretEngine goes, with its description."""
    foreign.phase(ENGINE, "Failed")
    assert foreign.condition(ENGINE, "Failed")["reason"] == "MountConflict"
    assert "adopt-mount" in foreign.reported(ENGINE, "Warning", "MountConflict")
    foreign.kubectl("delete", ENGINE, "--timeout=30s")
    assert foreign.described() == "the operator's"
    foreign.apply(*foreign.guide("postgresSecretEngine"))
    foreign.phase(ENGINE, "Failed")
    foreign.annotate(ENGINE, "leasegate.dev/adopt-mount=true")
    foreign.phase(ENGINE, "Success")
    assert foreign.status(ENGINE)["mount"]["ownership"] == "Adopted"
    foreign.kubectl("delete", ENGINE, "--timeout=60s")
    assert str(foreign.described()).startswith("the operator's")


def test_another_type_of_engine_is_refused(stack: LocalStack) -> None:
    """A mount of another type is a conflict that the status names."""
    with space(stack, "othertype") as made:
        stack.bao("secrets", "enable", f"-path={made.mount}", "kv")
        try:
            made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
            made.phase(ENGINE, "Failed")
            assert "kv" in made.reported(ENGINE, "Warning", "MountConflict")
            made.kubectl("delete", ENGINE, "--timeout=30s")
            assert made.described() is not None
        finally:
            stack.bao("secrets", "disable", made.mount)


def test_an_unenabled_namespace_is_named_with_the_command_that_serves_it(stack: LocalStack) -> None:
    """Status and Event say what to type, and typing it converges without touching an object."""
    with space(stack, "unserved", serve=False) as made:
        made.apply(*made.guide())
        for name in (ENGINE, ROLE, REQUEST):
            text = made.reported(name, "Warning", "NamespaceNotEnabled")
            assert "kubectl apply -n unserved -f" in text
            assert made.condition(name, "NamespaceNotEnabled")["status"] == "True"
        made.serve()
        made.phase(ROLE, "Success", timeout_s=90)
        assert made.user_works(made.secret(made.granted()))


def test_a_database_changes_only_when_no_lease_depends_on_it(guide: Space) -> None:
    """Vault would revoke at the new place, succeed there, and forget the user that lives on at the old one."""
    url = f"{guide.mount}/config/k8s.-.{guide.name}.postgres-app"
    other = f"other_{guide.name}"
    guide.stack.psql(f"create database {other}")
    try:
        data = guide.secret(guide.granted())
        guide.patch("appbinding/postgres-app", {"spec": {"clientConfig": {"service": {"path": other}}}})
        guide.phase(ENGINE, "Processing")
        assert "LeasesInUse" in guide.reported(ENGINE, "Warning", "leases or open attempts use the database as it is")
        assert other not in guide.stack.bao("read", url).stdout
        assert guide.user_works(data)
        guide.decide("deny")
        guide.phase(ENGINE, "Success")
        assert other in guide.stack.bao("read", url).stdout
        guide.kubectl("delete", REQUEST)
        guide.apply(*guide.guide("postgresAccessRequest"))
        guide.granted()
        place = guide.status(ENGINE)["database"].removesuffix(other) + "postgres"
        guide.annotate(ENGINE, f"leasegate.dev/same-database-moved={place}")
        guide.patch("appbinding/postgres-app", {"spec": {"clientConfig": {"service": {"path": "postgres"}}}})
        eventually(
            lambda: other not in guide.stack.bao("read", url).stdout, timeout_s=30, what="the change under a lease"
        )
        guide.phase(ENGINE, "Success")
    finally:
        guide.kubectl("delete", REQUEST, "--ignore-not-found")
        guide.kubectl("delete", ROLE, ENGINE, "--ignore-not-found", "--timeout=60s")
        guide.stack.psql(f"drop database {other} with (force)")
