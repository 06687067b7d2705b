"""Objects in any order, and what is missing, wrong or in the way.

Everything converges by itself once it can, and says until then what it waits for.
"""

from __future__ import annotations

import base64
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from leasegate.access.v1 import requester_service_pb2, watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from services.common import errors
from services.common.errors import FieldViolation, LeasegateError, SpecInvalidError
from tests.unit.watcher.watcher_world import MOUNT, World
from watcher.kube.resources import SECRET, SERVICE_ACCOUNT, Resource
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

PARTS: dict[str, Callable[[World], None]] = {
    "vault": World.vault,
    "database": World.database,
    "engine": World.secret_engine,
    "role": World.role,
    "request": World.request,
}
THINGS = {
    "vault": (APP_BINDING, "vault"),
    "database": (APP_BINDING, "postgres-app"),
    "engine": (SECRET_ENGINE, "postgresql-engine"),
    "role": (POSTGRES_ROLE, "psql-role"),
    "request": (ACCESS_REQUEST, "rqst"),
}


@pytest.mark.parametrize("order", list(itertools.permutations(PARTS)), ids="-".join)
def test_any_order_of_apply_converges(world: World, order: tuple[str, ...]) -> None:
    for part in order:
        PARTS[part](world)
        world.settle()
    world.advance(5)
    world.decide()
    world.settle()
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert world.secret() is not None
    assert len(world.access.requests) == 1


@pytest.mark.parametrize("order", list(itertools.permutations(THINGS)), ids="-".join)
def test_any_order_of_delete_leaves_nothing(world: World, order: tuple[str, ...]) -> None:
    world.guide()
    world.decide()
    world.settle()
    for thing in order:
        world.delete(*THINGS[thing])
        world.settle()
    world.advance(6)
    assert [obj for resource, _ in THINGS.values() for obj in world.kube.all(resource)] == []
    assert world.secret() is None
    assert (world.engine.mounts, world.roles.roles, world.access.roles) == ({}, {}, {})
    assert all(request.ended for request in world.access.requests.values())


@pytest.mark.parametrize("seed", range(30))
def test_applying_and_deleting_by_chance_comes_to_rest(world: World, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        part = chance.choice(list(PARTS))
        resource, name = THINGS[part]
        found = world.kube.see(resource, f"demo/{name}")
        if found is None:
            if part == "database" and world.kube.see(SECRET, "demo/postgres-user-cred"):
                world.delete(SECRET, "postgres-user-cred")
            PARTS[part](world)
        elif not found["metadata"].get("deletionTimestamp") and chance.random() < 0.5:
            world.delete(resource, name)
        if chance.random() < 0.5:
            world.settle()
    for resource, name in THINGS.values():
        if world.kube.see(resource, f"demo/{name}"):
            world.delete(resource, name)
    world.advance(6)
    assert [obj for resource, _ in THINGS.values() for obj in world.kube.all(resource)] == []
    assert (world.engine.mounts, world.roles.roles) == ({}, {})
    assert all(request.ended for request in world.access.requests.values())


# -- what is missing


def test_a_namespace_that_is_not_enabled_is_named_with_the_command(world: World) -> None:
    world.kube.refused.add("demo")
    world.guide()
    command = "kubectl apply -n demo -f deploy/rbac/enabled-namespace.yaml"
    for resource, name in ((SECRET_ENGINE, "postgresql-engine"), (ACCESS_REQUEST, "rqst")):
        condition = world.condition(resource, name, "NamespaceNotEnabled")
        assert condition["status"] == "True"
        assert command in condition["message"]
        assert any(command in text for text in world.kube.events(name))
    world.kube.refused.clear()
    world.watcher.namespaces._watched["demo"].informer.list_and_watch()
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert not world.condition(SECRET_ENGINE, "postgresql-engine", "NamespaceNotEnabled")
    assert not world.condition(ACCESS_REQUEST, "rqst", "NamespaceNotEnabled")


def test_nothing_is_claimed_for_a_namespace_that_is_not_enabled(world: World) -> None:
    world.guide()
    world.kube.refused.add("demo")
    world.watcher.namespaces._watched["demo"].informer.list_and_watch()
    world.decide()
    world.advance(30)
    assert not world.access.asked(requester_service_pb2.ClaimCredentialRequest)
    assert world.status(ACCESS_REQUEST, "rqst")["phase"] == "Approved"


@pytest.mark.parametrize(
    ("missing", "name", "reason", "text"),
    [
        (SECRET, "postgres-user-cred", "SecretNotFound", "Secret demo/postgres-user-cred does not exist"),
        (SERVICE_ACCOUNT, "vault", "ServiceAccountNotFound", "ServiceAccount demo/vault does not exist"),
    ],
)
def test_what_is_missing_is_named_and_waited_for(
    world: World, missing: Resource, name: str, reason: str, text: str
) -> None:
    world.vault()
    world.database()
    world.delete(missing, name)
    world.secret_engine()
    world.settle()
    condition = world.condition(SECRET_ENGINE, "postgresql-engine", "Available")
    assert (condition["status"], condition["reason"]) == ("False", reason)
    assert text in condition["message"]
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Processing"
    assert any(text in event for event in world.kube.events("postgresql-engine"))
    world.put(missing, name, data={"username": "cG9zdGdyZXM=", "password": "cm9vdA=="})
    world.advance(65)
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"


def test_a_role_waits_for_its_connection_and_says_so(world: World) -> None:
    world.vault()
    world.database()
    world.role()
    world.settle()
    condition = world.condition(POSTGRES_ROLE, "psql-role", "Available")
    assert (world.status(POSTGRES_ROLE, "psql-role")["phase"], condition["reason"]) == ("Processing", "EngineNotReady")
    assert "demo/postgres-app" in condition["message"]
    assert not world.roles.roles
    world.secret_engine()
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"


def test_a_role_with_another_connection_than_the_engines_waits(world: World) -> None:
    world.vault()
    world.database()
    world.secret_engine()
    world.role(databaseRef={"name": "other-app", "namespace": "demo"})
    world.settle()
    assert world.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "EngineNotReady"


def test_a_role_that_names_an_app_bindings_connection_waits_for_it_too(world: World) -> None:
    """Else it could be approved before anybody knows which database that connection will lead to."""
    world.vault()
    world.database()
    world.secret_engine()
    world.role(databaseRef=None, databaseName="k8s.-.demo.other-app")
    world.settle()
    condition = world.condition(POSTGRES_ROLE, "psql-role", "Available")
    assert condition["reason"] == "EngineNotReady"
    assert "a connection to AppBinding demo/other-app" in condition["message"]
    world.kube.edit(
        POSTGRES_ROLE, "demo/psql-role", lambda obj: obj["spec"].update(databaseName="k8s.-.demo.postgres-app")
    )
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert world.access.asked(watcher_service_pb2.PutDbRoleSnapshotRequest)[-1].snapshot.database


def test_a_role_may_name_its_connection_directly(world: World) -> None:
    world.vault()
    world.database()
    world.secret_engine()
    world.role(databaseRef=None, databaseName="by-hand")
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert world.roles.asked(role_service_pb2.EnsureDbRoleRequest)[-1].definition.db_name == "by-hand"


def test_h5_a_flapped_role_is_written_seldom_and_as_it_is_last(world: World) -> None:
    world.guide()
    before = len(world.roles.asked(role_service_pb2.EnsureDbRoleRequest))
    for number in range(12):
        world.kube.edit(POSTGRES_ROLE, "demo/psql-role", creating(f"CREATE ROLE {number}"))
        world.settle()
    written = {tuple(each.definition.creation_statements) for each in asked_since(world, before)}
    assert len(written) < 6, written
    world.advance(60)
    assert asked_since(world, before)[-1].definition.creation_statements == ["CREATE ROLE 11"]


def creating(statement: str) -> Callable[[dict[str, Any]], None]:
    return lambda obj: obj["spec"].update(creationStatements=[statement])


def asked_since(world: World, number: int) -> list[role_service_pb2.EnsureDbRoleRequest]:
    return world.roles.asked(role_service_pb2.EnsureDbRoleRequest)[number:]


# -- what is wrong


def test_a_wrong_field_is_reported_once_and_retried_only_when_changed(world: World) -> None:
    world.vault()
    world.database()
    world.secret_engine()
    world.role(defaultTTL="soon")
    world.settle()
    world.advance(120, step_s=5)
    condition = world.condition(POSTGRES_ROLE, "psql-role", "Failed")
    assert (condition["reason"], world.status(POSTGRES_ROLE, "psql-role")["phase"]) == ("InvalidSpec", "Failed")
    assert "spec.defaultTTL" in condition["message"]
    assert not world.roles.calls
    world.kube.edit(POSTGRES_ROLE, "demo/psql-role", lambda obj: obj["spec"].update(defaultTTL="1h"))
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert not world.condition(POSTGRES_ROLE, "psql-role", "Failed")


ERRORS: list[tuple[LeasegateError, str]] = [
    (errors.VaultSealedError("Vault is sealed", address="a"), "VaultSealed"),
    (errors.VaultUnavailableError("Vault does not answer", address="a"), "VaultUnavailable"),
    (errors.VaultAuthRefusedError("Vault refused the token", target="t"), "VaultAuthRefused"),
    (errors.MountConflictError("somebody else's", path=MOUNT, owner="x"), "MountConflict"),
    (errors.VaultPolicyMissingError("the policy lacks it", path="sys/mounts/x"), "VaultPolicyMissing"),
    (errors.PathNotOwnedError("not allowed", path=MOUNT), "PathNotOwned"),
    (
        errors.VaultRefusedError("cannot log in to the database", path=f"{MOUNT}/config/k8s"),
        "FailedToCreateSecretEngineConfig",
    ),
    (errors.VaultRefusedError("no such plugin", path=f"sys/mounts/{MOUNT}"), "FailedToEnableSecretEngine"),
    (SpecInvalidError.of(FieldViolation("postgres.database.url", "needs a scheme")), "InvalidSpec"),
    (errors.InternalError("a defect, id 1234", error_id="1234"), "Internal"),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS, ids=[f"{type(e).__name__}-{r}" for e, r in ERRORS])
def test_every_error_of_the_engine_becomes_a_condition_and_an_event(
    world: World, error: LeasegateError, reason: str
) -> None:
    world.engine.fail_always("EnsureEngine", error)
    world.guide()
    condition = world.condition(SECRET_ENGINE, "postgresql-engine", "Failed")
    words = error.message.split(": ")[-1]  # what stands before it names a field, as the object's owner knows it
    assert condition["reason"] == reason
    assert condition["message"].endswith(words)
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Failed"
    assert f"Warning {reason}: {condition['message']}" in world.kube.events("postgresql-engine")
    assert world.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "EngineNotReady"


def test_success_ends_when_a_later_update_fails_and_comes_back(world: World) -> None:
    world.guide()
    world.engine.fail("EnsureEngine", errors.VaultRefusedError("wrong password", path=f"{MOUNT}/config/x"))
    world.kube.edit(SECRET, "demo/postgres-user-cred", lambda s: s["data"].update(password="bmV3"))
    world.settle()
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Failed"
    assert world.condition(SECRET_ENGINE, "postgresql-engine", "Available")["status"] == "False"
    world.advance(15.5)
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert not world.condition(SECRET_ENGINE, "postgresql-engine", "Failed")


def test_a_changed_database_password_is_pushed(world: World) -> None:
    world.guide()
    world.kube.edit(
        SECRET, "demo/postgres-user-cred", lambda s: s["data"].update(password=base64.b64encode(b"new").decode())
    )
    world.settle()
    assert world.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1].postgres.database.password == "new"


def test_another_annotation_on_a_secret_or_binding_disturbs_nobody_else(world: World) -> None:
    world.guide()
    world.put(SECRET, "unrelated", data={"a": "Yg=="})
    world.settle()
    calls = len(world.engine.calls)
    world.kube.edit(SECRET, "demo/unrelated", lambda s: s["data"].update(a="Yw=="))
    world.settle()
    assert len(world.engine.calls) == calls


def test_retry_info_decides_when_it_is_tried_again(world: World) -> None:
    world.engine.fail_always("EnsureEngine", errors.VaultFailedError("later", retry_after_s=20.0, path="x"))
    world.guide()
    tried = len(world.engine.calls)
    world.advance(19)
    assert len(world.engine.calls) == tried
    world.advance(2)
    assert len(world.engine.calls) == tried + 1


def test_one_bad_object_does_not_keep_others(world: World) -> None:
    world.vault()
    world.database()
    specs: list[Any] = [None, [], {"vaultRef": 7}, {"postgres": {"databaseRef": []}}, {"path": {}}]
    for number, spec in enumerate(specs):
        world.put(SECRET_ENGINE, f"bad-{number}", spec=spec)
        world.put(POSTGRES_ROLE, f"bad-{number}", spec=spec)
        world.put(ACCESS_REQUEST, f"bad-{number}", spec=spec)
    world.secret_engine()
    world.role()
    world.request()
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    for number in range(5):
        assert world.condition(SECRET_ENGINE, f"bad-{number}", "Failed")["reason"] == "InvalidSpec"
        assert world.condition(ACCESS_REQUEST, f"bad-{number}", "Failed")["reason"] == "InvalidSpec"


def test_services_that_are_down_for_a_moment_are_no_news(world: World) -> None:
    world.guide()
    down = errors.PeerUnavailableError("cannot be reached")
    world.access.fail_always("EnsureAccessRequest", down)
    world.watcher.triggers.enqueue_all()
    world.advance(4)
    assert not world.condition(ACCESS_REQUEST, "rqst", "Failed")
    world.advance(4)
    assert world.condition(ACCESS_REQUEST, "rqst", "Failed")["reason"] == "PeerUnavailable"
    world.access.fail_always("EnsureAccessRequest", None)
    world.advance(2)
    assert not world.condition(ACCESS_REQUEST, "rqst", "Failed")
