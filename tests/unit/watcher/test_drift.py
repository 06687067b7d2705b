"""Drift in Vault, and two SecretEngines that configure the same connection otherwise."""

from __future__ import annotations

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import db_role_pb2
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.unit.watcher.watcher_world import MOUNT, OTHER_VAULT, VAULT, World
from watcher.kube.resources import SERVICE_ACCOUNT, Body, Resource
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

CONNECTION = (VAULT, MOUNT, "k8s.-.demo.postgres-app")
ROLE = (VAULT, MOUNT, "k8s.-.demo.psql-role")


@pytest.fixture
def granted(world: World) -> World:
    """The guide's objects with a credential in use, so that nothing may move."""
    world.guide()
    world.decide()
    world.settle()
    world.access.remaining = 1
    return world


def look_again(world: World) -> None:
    """What the resync does."""
    list(world.watcher.triggers.resync(1))
    world.settle()


def events(world: World, name: str, reason: str) -> list[str]:
    return [event for event in world.kube.events(name) if f" {reason}" in event]


# -- corrected


def test_a_connection_to_elsewhere_is_corrected_under_live_leases(granted: World) -> None:
    granted.engine.connections[CONNECTION] = types_pb2.Database(url="postgresql://elsewhere:5432/other")
    look_again(granted)
    assert granted.engine.connections[CONNECTION].service.host == "postgres.demo.svc"
    assert not granted.access.asked(watcher_service_pb2.QuiesceRequest)
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["database"] == "postgres.demo.svc:5432/postgres"
    assert events(granted, "postgresql-engine", "DriftCorrected")


def test_a_connection_that_is_gone_is_made_again_and_reported(granted: World) -> None:
    del granted.engine.connections[CONNECTION]
    look_again(granted)
    assert CONNECTION in granted.engine.connections
    assert events(granted, "postgresql-engine", "DriftCorrected")


def test_a_role_on_another_connection_is_corrected_under_live_leases(granted: World) -> None:
    other = db_role_pb2.DbRoleDefinition()
    other.CopyFrom(granted.roles.roles[ROLE])
    other.db_name = "somewhere-else"
    granted.roles.roles[ROLE] = other
    look_again(granted)
    assert granted.roles.roles[ROLE].db_name == "k8s.-.demo.postgres-app"
    assert not granted.access.asked(watcher_service_pb2.QuiesceRequest)
    assert events(granted, "psql-role", "DriftCorrected")


def test_a_role_that_is_gone_is_made_again(granted: World) -> None:
    granted.roles.roles.clear()
    look_again(granted)
    assert ROLE in granted.roles.roles
    assert events(granted, "psql-role", "DriftCorrected")


def test_a_change_of_the_spec_is_not_reported_as_drift(granted: World) -> None:
    granted.kube.edit(POSTGRES_ROLE, "demo/psql-role", lambda o: o["spec"].update(renewStatements=["SELECT 1"]))
    granted.settle()
    assert not events(granted, "psql-role", "DriftCorrected")
    assert not events(granted, "postgresql-engine", "DriftCorrected")


def test_nothing_is_written_or_reported_where_nothing_changed(granted: World) -> None:
    before = (
        granted.kube.see(SECRET_ENGINE, "demo/postgresql-engine"),
        granted.kube.see(POSTGRES_ROLE, "demo/psql-role"),
    )
    look_again(granted)
    assert (
        granted.kube.see(SECRET_ENGINE, "demo/postgresql-engine"),
        granted.kube.see(POSTGRES_ROLE, "demo/psql-role"),
    ) == before


def test_a_new_database_is_recorded_before_anything_is_issued_there(granted: World) -> None:
    """Else a crash in between would let a change back count as drift, under the leases of the new place."""
    seen: list[str] = []

    def look(method: str) -> None:
        if method == "Resume":
            seen.append(granted.status(SECRET_ENGINE, "postgresql-engine")["database"])

    granted.access.remaining, granted.access.before = 0, look
    granted.kube.edit(
        APP_BINDING, "demo/postgres-app", lambda o: o["spec"]["clientConfig"]["service"].update(port=5433)
    )
    granted.advance(3)
    assert seen
    assert set(seen) == {"postgres.demo.svc:5433/postgres"}


# -- another database


def other_app(world: World) -> None:
    """Another database with the same Secret."""
    found = world.kube.see(APP_BINDING, "demo/postgres-app")
    assert found is not None
    world.put(APP_BINDING, "other-app", spec=found["spec"])


def test_a_former_connection_goes_when_no_lease_needs_it(granted: World) -> None:
    other_app(granted)
    refer = {"name": "other-app", "namespace": "demo"}
    granted.kube.edit(
        SECRET_ENGINE, "demo/postgresql-engine", lambda o: o["spec"]["postgres"].update(databaseRef=refer)
    )
    granted.advance(3)
    waits = granted.condition(SECRET_ENGINE, "postgresql-engine", "Available")
    assert (waits["status"], waits["reason"]) == ("False", "LeasesInUse")
    assert set(granted.engine.connections) == {CONNECTION}
    granted.access.remaining = 0
    granted.advance(3)
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert set(granted.engine.connections) == {(VAULT, MOUNT, "k8s.-.demo.other-app")}
    assert granted.engine.mounts == {(VAULT, MOUNT): {"demo/postgresql-engine"}}


def test_a_former_connection_of_another_engine_is_left_alone(world: World) -> None:
    world.guide()
    world.secret_engine("second")
    world.settle()
    other_app(world)
    refer = {"name": "other-app", "namespace": "demo"}
    world.kube.edit(SECRET_ENGINE, "demo/second", lambda o: o["spec"]["postgres"].update(databaseRef=refer))
    world.settle()
    assert world.status(SECRET_ENGINE, "second")["phase"] == "Success"
    assert set(world.engine.connections) == {CONNECTION, (VAULT, MOUNT, "k8s.-.demo.other-app")}
    assert not world.access.asked(watcher_service_pb2.QuiesceRequest)


def test_a_former_vault_is_given_up_only_after_a_while(granted: World) -> None:
    granted.access.remaining = 0
    granted.engine.fail_always("DeleteEngine", errors.VaultUnavailableError("away", address=VAULT))
    granted.kube.edit(
        APP_BINDING, "demo/vault", lambda o: o["spec"]["clientConfig"]["service"].update(name="vault-two")
    )
    granted.advance(60, step_s=1)
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["target"]["address"] == VAULT
    granted.advance(70, step_s=1)
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["target"]["address"] == OTHER_VAULT
    assert (
        "moves to another place without a cleanup in Vault"
        in events(granted, "postgresql-engine", "VaultCleanupSkipped")[0]
    )


# -- two that want the same connection otherwise


def engine(
    world: World, name: str, age: str, *, path: str = MOUNT, database: str = "demo/postgres-app", **limits: object
) -> None:
    """A SecretEngine of namespace demo on the guide's mount and database."""
    namespace, _, app = database.partition("/")
    postgres: Body = {"databaseRef": {"name": app, "namespace": namespace}, **limits}
    body = {
        "metadata": {"name": name, "creationTimestamp": f"2026-01-01T00:00:{age}Z"},
        "spec": {"vaultRef": {"name": "vault"}, "path": path, "postgres": postgres},
    }
    world.kube.put(SECRET_ENGINE, body, namespace="demo")


@pytest.fixture
def rivals(world: World) -> World:
    world.vault()
    world.database()
    engine(world, "older", "01", maxOpenConnections=5)
    world.settle()
    engine(world, "later", "02", maxOpenConnections=7, allowedRoles=["k8s.-.demo.*"])
    world.settle()
    return world


def written(world: World) -> list[int]:
    return [
        request.postgres.max_open_connections for request in world.engine.asked(engine_service_pb2.EnsureEngineRequest)
    ]


def test_the_later_one_is_refused_with_what_the_older_has(rivals: World) -> None:
    failed = rivals.condition(SECRET_ENGINE, "later", "Failed")
    assert (rivals.status(SECRET_ENGINE, "later")["phase"], failed["reason"]) == ("Failed", "ConnectionConflict")
    assert "SecretEngine demo/older is older" in failed["message"]
    assert "maxOpenConnections" in failed["message"]
    assert "allowedRoles" in failed["message"]
    assert events(rivals, "later", "ConnectionConflict")
    assert rivals.status(SECRET_ENGINE, "older")["phase"] == "Success"
    look_again(rivals)
    assert set(written(rivals)) == {5}
    assert rivals.engine.mounts == {(VAULT, MOUNT): {"demo/older"}}


def test_the_later_one_is_made_when_both_agree(rivals: World) -> None:
    rivals.kube.edit(
        SECRET_ENGINE,
        "demo/older",
        lambda o: o["spec"]["postgres"].update(maxOpenConnections=7, allowedRoles=["k8s.-.demo.*"]),
    )
    rivals.settle()
    assert rivals.status(SECRET_ENGINE, "later")["phase"] == "Success"
    assert not rivals.condition(SECRET_ENGINE, "later", "Failed")


def test_the_later_one_is_made_once_the_older_is_deleted(rivals: World) -> None:
    rivals.delete(SECRET_ENGINE, "older")
    rivals.settle()
    assert rivals.status(SECRET_ENGINE, "later")["phase"] == "Success"
    assert rivals.engine.mounts == {(VAULT, MOUNT): {"demo/later"}}


def test_the_later_one_goes_without_taking_the_olders_connection(rivals: World) -> None:
    rivals.delete(SECRET_ENGINE, "later")
    rivals.settle()
    assert rivals.kube.see(SECRET_ENGINE, "demo/later") is None
    assert (CONNECTION in rivals.engine.connections, rivals.engine.mounts) == (True, {(VAULT, MOUNT): {"demo/older"}})


def test_an_older_one_that_is_changed_wins_over_a_later_one_that_stood(world: World) -> None:
    world.vault()
    world.database()
    engine(world, "older", "01")
    engine(world, "later", "02", pluginName="postgresql-database-plugin", allowedRoles=["*"], maxOpenConnections=-1)
    world.settle()
    assert world.status(SECRET_ENGINE, "later")["phase"] == "Success", "what means the same is no conflict"
    world.kube.edit(SECRET_ENGINE, "demo/older", lambda o: o["spec"]["postgres"].update(maxConnectionLifetime="1h"))
    world.settle()
    assert world.status(SECRET_ENGINE, "older")["phase"] == "Success"
    assert world.condition(SECRET_ENGINE, "later", "Failed")["reason"] == "ConnectionConflict"
    assert world.condition(SECRET_ENGINE, "later", "Available")["status"] == "False"


def test_a_database_is_configured_by_its_own_namespace(world: World) -> None:
    """Whoever may use it from another namespace was first, and does not keep its owner from changing a setting."""
    world.vault()
    world.put(SERVICE_ACCOUNT, "vault", "other")
    world.put(APP_BINDING, "vault", "other", spec=(world.kube.see(APP_BINDING, "demo/vault") or {})["spec"])
    world.database("theirs", "other", allow_from="demo")
    engine(world, "guest", "01", path="database", database="other/theirs", maxOpenConnections=5)
    world.settle()
    assert world.status(SECRET_ENGINE, "guest")["phase"] == "Success"
    postgres = {"databaseRef": {"name": "theirs", "namespace": "other"}, "maxOpenConnections": 7}
    own = {
        "metadata": {"name": "own", "creationTimestamp": "2026-01-01T00:00:02Z"},
        "spec": {"vaultRef": {"name": "vault"}, "path": "database", "postgres": postgres},
    }
    world.kube.put(SECRET_ENGINE, own, namespace="other")
    world.settle()
    assert (world.kube.see(SECRET_ENGINE, "other/own") or {})["status"]["phase"] == "Success"
    failed = world.condition(SECRET_ENGINE, "guest", "Failed")
    assert failed["reason"] == "ConnectionConflict"
    assert "SecretEngine other/own is of the database's own namespace" in failed["message"]


def test_a_rival_of_another_database_or_mount_is_none(world: World) -> None:
    world.vault()
    world.database()
    other_app(world)
    engine(world, "older", "01", maxOpenConnections=5)
    world.secret_engine("elsewhere", path="team-a")
    world.secret_engine("another", database="other-app")
    world.settle()
    assert {world.status(SECRET_ENGINE, name)["phase"] for name in ("older", "elsewhere", "another")} == {"Success"}


def test_the_end_of_access_claims_no_dropped_user(granted: World) -> None:
    """The database user is dropped when Vault can; the Event must not promise more than is known."""
    granted.decide("Denied")
    granted.settle()
    ended = events(granted, "rqst", "AccessEnded")
    assert ended
    assert "dropped" not in ended[0]
    assert granted.kube.see(ACCESS_REQUEST, "demo/rqst") is not None


def test_a_role_whose_cleanup_is_given_up_is_issued_no_more(granted: World) -> None:
    """Else it could be used again once Vault permits it, although nobody can see it any more."""
    granted.roles.fail_always("DeleteDbRole", errors.VaultAuthMissingError("no session", target="demo/vault"))
    granted.delete(POSTGRES_ROLE, "psql-role")
    granted.settle()
    assert granted.access.roles == {}
    granted.advance(130, step_s=2)
    assert granted.kube.see(POSTGRES_ROLE, "demo/psql-role") is None
    assert events(granted, "psql-role", "VaultCleanupSkipped")
    assert granted.access.roles == {}


# -- what was stopped for an object that is taken away while it waits


def remove_by_force(world: World, resource: Resource, name: str) -> None:
    """Delete an object whose finalizer somebody took off by hand."""
    world.kube.edit(resource, f"demo/{name}", lambda o: o["metadata"].update(finalizers=[]))
    world.delete(resource, name)
    world.settle()
    assert world.kube.see(resource, f"demo/{name}") is None


def test_issuance_resumes_when_the_role_that_paused_it_is_removed(granted: World) -> None:
    granted.kube.edit(
        POSTGRES_ROLE, "demo/psql-role", lambda o: o["spec"].update(databaseRef=None, databaseName="by-hand")
    )
    granted.settle()
    assert granted.access.paused
    remove_by_force(granted, POSTGRES_ROLE, "psql-role")
    assert granted.access.paused == set()


def test_issuance_resumes_for_the_other_engines_of_a_removed_one(granted: World) -> None:
    granted.secret_engine("second")
    granted.settle()
    granted.access.paused.add(
        (MOUNT, "k8s.-.demo.postgres-app")
    )  # for the first one, while the second has nothing to change
    remove_by_force(granted, SECRET_ENGINE, "postgresql-engine")
    granted.advance(3)
    assert granted.status(SECRET_ENGINE, "second")["phase"] == "Success"
    assert granted.access.paused == set()
