"""Which database an approval is for: what SecretEngines remember of it, and what access is told."""

from __future__ import annotations

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.roles.v1 import db_role_pb2
from tests.unit.watcher.watcher_world import World
from watcher.kube.resources import Body
from watcher.specs.kinds import APP_BINDING, SAME_DATABASE, SECRET_ENGINE

HERE, THERE = "postgres.demo.svc:5432/postgres", "production.demo.svc:5432/postgres"
PLUGIN = "postgresql-database-plugin"


@pytest.fixture
def world() -> World:
    made = World()
    made.guide()
    made.access.remaining = 0
    return made


def told(world: World) -> db_role_pb2.DbRoleSnapshot:
    """The newest snapshot that access has."""
    found: watcher_service_pb2.PutDbRoleSnapshotRequest = world.access.asked(
        watcher_service_pb2.PutDbRoleSnapshotRequest
    )[-1]
    return found.snapshot


def remembered(world: World, name: str = "postgresql-engine") -> tuple[str, str]:
    status = world.status(SECRET_ENGINE, name)
    return status["database"], status["databaseIdentity"]


def point_at(world: World, host: str = "production") -> None:
    def change(obj: Body) -> None:
        obj["spec"]["clientConfig"]["service"]["name"] = host

    world.kube.edit(APP_BINDING, "demo/postgres-app", change)
    world.advance(3)


def test_access_is_told_database_and_plugin(world: World) -> None:
    assert remembered(world) == (HERE, HERE)
    assert (told(world).database, told(world).plugin) == (HERE, PLUGIN)


def test_h2_another_database_is_another_identity(world: World) -> None:
    point_at(world)
    assert remembered(world) == (THERE, THERE)
    assert told(world).database == THERE
    point_at(world, "postgres")
    assert remembered(world) == (HERE, HERE)
    assert told(world).database == HERE


def test_a_move_by_an_operator_keeps_the_identity(world: World) -> None:
    def say(obj: Body) -> None:
        obj["metadata"].setdefault("annotations", {})[SAME_DATABASE] = THERE

    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", say)
    point_at(world)
    assert remembered(world) == (THERE, HERE)
    assert told(world).database == HERE
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda o: o["metadata"]["annotations"].clear())
    world.advance(3)
    assert (remembered(world), told(world).database) == ((THERE, HERE), HERE)
    point_at(world, "another")
    assert told(world).database == "another.demo.svc:5432/postgres"


@pytest.mark.parametrize("word", ["true", "another.demo.svc:5432/postgres", ""])
def test_f12_a_word_for_another_place_counts_for_nothing(world: World, word: str) -> None:
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda obj: said(obj, word))
    point_at(world)
    assert remembered(world) == (THERE, THERE)


def test_f12_a_word_counts_once(world: World) -> None:
    """A standing word took live leases to a database that they are not of."""
    another = "another.demo.svc:5432/postgres"
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda obj: said(obj, THERE))
    point_at(world)
    assert remembered(world) == (THERE, HERE)
    point_at(world, "another")
    assert remembered(world) == (another, another)
    point_at(world)
    assert remembered(world) == (THERE, THERE), "the word was used before"
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda obj: said(obj, ""))
    world.advance(3)
    point_at(world, "another")
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda obj: said(obj, THERE))
    point_at(world)
    assert remembered(world) == (THERE, another), "an operator said it again"


def said(obj: Body, word: str) -> None:
    obj["metadata"]["annotations"] = {SAME_DATABASE: word} if word else {}


def test_another_plugin_is_told(world: World) -> None:
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda o: o["spec"]["postgres"].update(pluginName="other"))
    world.advance(3)
    assert (told(world).database, told(world).plugin) == (HERE, "other")


def test_another_app_binding_starts_without_an_identity(world: World) -> None:
    found = world.kube.see(APP_BINDING, "demo/postgres-app")
    assert found is not None
    world.put(APP_BINDING, "other-app", spec=found["spec"] | {"clientConfig": {"url": "postgresql://production:1/db"}})
    refer = {"name": "other-app", "namespace": "demo"}
    world.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda o: o["spec"]["postgres"].update(databaseRef=refer))
    world.advance(3)
    assert remembered(world) == ("postgresql://production:1/db",) * 2


def test_h2_a_failing_engine_learns_of_another_database_from_others(world: World) -> None:
    """Else an approval came back once the SecretEngine that changed the connection is deleted."""
    world.vault("vault-2")
    world.secret_engine("younger")
    world.settle()

    def break_auth(obj: Body) -> None:
        obj["spec"]["parameters"]["serviceAccountName"] = "nobody"

    def use_other_vault(obj: Body) -> None:
        obj["spec"]["vaultRef"]["name"] = "vault-2"

    world.kube.edit(SECRET_ENGINE, "demo/younger", use_other_vault)
    world.kube.edit(APP_BINDING, "demo/vault", break_auth)
    world.advance(3)
    point_at(world)
    assert remembered(world, "younger") == (THERE, THERE)
    assert remembered(world) == (THERE, THERE)
    world.kube.delete(SECRET_ENGINE, namespace="demo", name="younger")
    world.advance(3)
    assert remembered(world) == (THERE, THERE)
