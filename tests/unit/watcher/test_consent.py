"""What another namespace has is used with its owner's word alone: what the watcher does before it calls a service."""

from __future__ import annotations

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from services.common.errors import NotAllowedFromError
from services.common.sharing import check_connection, listed_namespaces, namespace_of_connection
from tests.unit.watcher.watcher_world import MOUNT, World
from watcher.kube.resources import SERVICE_ACCOUNT
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE

THEIRS = {"name": "theirs", "namespace": "other"}


@pytest.fixture
def neighbour(world: World) -> World:
    """Namespace demo with its own Vault, and a database of namespace other that demo's objects name."""
    world.vault()
    world.database("theirs", "other")
    spec = {"vaultRef": {"name": "vault"}, "path": MOUNT, "postgres": {"databaseRef": THEIRS}}
    world.put(SECRET_ENGINE, "postgresql-engine", spec=spec)
    world.role(databaseRef=THEIRS)
    world.request()
    world.settle()
    return world


def annotate(world: World, resource: object, name: str, namespace: str = "demo", **annotations: str | None) -> None:
    def change(obj: dict[str, object]) -> None:
        kept = obj["metadata"].setdefault("annotations", {})  # type: ignore[attr-defined]
        for key, value in annotations.items():
            kept.pop(f"leasegate.dev/{key.replace('_', '-')}", None)
            if value is not None:
                kept[f"leasegate.dev/{key.replace('_', '-')}"] = value

    world.kube.edit(resource, f"{namespace}/{name}", change)  # type: ignore[arg-type]
    world.settle()


def finalizers(world: World, name: str, namespace: str) -> list[str]:
    found = world.kube.see(APP_BINDING, f"{namespace}/{name}")
    assert found
    return list(found["metadata"].get("finalizers") or [])


@pytest.mark.parametrize("allowed", ["", "*", "demo2", "xdemo", "other", "Demo", "demo demo", "a,b,c"])
def test_c2_a_neighbours_database_is_not_read_without_its_owners_word(neighbour: World, allowed: str) -> None:
    annotate(neighbour, APP_BINDING, "theirs", "other", allow_from=allowed)
    for resource, name in ((SECRET_ENGINE, "postgresql-engine"), (POSTGRES_ROLE, "psql-role")):
        condition = neighbour.condition(resource, name, "Available")
        assert condition["reason"] == "NotAllowedFrom"
        assert "annotates it with leasegate.dev/allow-from: demo" in condition["message"]
    assert not [call for call in neighbour.kube.calls if call.startswith("GET secrets ")]
    assert neighbour.engine.asked(engine_service_pb2.EnsureEngineRequest) == []
    assert finalizers(neighbour, "theirs", "other") == []


def test_a_neighbours_database_looks_the_same_whether_it_exists(neighbour: World) -> None:
    before = neighbour.condition(SECRET_ENGINE, "postgresql-engine", "Available")["message"]
    neighbour.delete(APP_BINDING, "theirs", "other")
    neighbour.settle()
    assert neighbour.condition(SECRET_ENGINE, "postgresql-engine", "Available")["message"] == before


def test_a_database_is_used_as_soon_as_its_owner_allows_it(neighbour: World) -> None:
    annotate(neighbour, APP_BINDING, "theirs", "other", allow_from="a, demo ,b")
    assert neighbour.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    for asked in (
        *neighbour.engine.asked(engine_service_pb2.EnsureEngineRequest),
        *neighbour.roles.asked(role_service_pb2.EnsureDbRoleRequest),
    ):
        assert asked.connection_allow_from == ["a", "b", "demo"]
    assert finalizers(neighbour, "theirs", "other") == [FINALIZER]
    annotate(neighbour, APP_BINDING, "theirs", "other", allow_from=None)
    assert neighbour.condition(SECRET_ENGINE, "postgresql-engine", "Available")["reason"] == "NotAllowedFrom"
    withdrawn = neighbour.access.asked(watcher_service_pb2.DeleteDbRoleSnapshotRequest)[-1]
    assert "may not be used from namespace demo" in withdrawn.not_allowed
    assert finalizers(neighbour, "theirs", "other") == []
    annotate(neighbour, APP_BINDING, "theirs", "other", allow_from="demo")
    assert neighbour.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert neighbour.access.asked(watcher_service_pb2.PutDbRoleSnapshotRequest)


@pytest.mark.parametrize("name", ["k8s.-.other.theirs", "k8s.-.other.nowhere"])
def test_c4_a_connection_by_name_follows_the_same_rule(world: World, name: str) -> None:
    world.vault()
    world.database("theirs", "other")
    world.role(databaseRef=None, databaseName=name)
    world.settle()
    assert world.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "NotAllowedFrom"
    assert world.roles.asked(role_service_pb2.EnsureDbRoleRequest) == []


def test_consent_for_a_connection_by_name_is_withdrawn_at_once(world: World) -> None:
    """Nothing else than the AppBinding changes: the SecretEngine of the connection is its owner's own."""
    world.vault()
    world.put(SERVICE_ACCOUNT, "vault", "other")
    own = world.kube.see(APP_BINDING, "demo/vault") or {}
    world.put(APP_BINDING, "vault", "other", spec=own["spec"])
    world.database("theirs", "other", allow_from="demo")
    spec = {"vaultRef": {"name": "vault"}, "path": "database", "postgres": {"databaseRef": THEIRS}}
    world.put(SECRET_ENGINE, "their-engine", "other", spec=spec)
    world.role(path="database", databaseRef=None, databaseName="k8s.-.other.theirs")
    world.settle()
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert finalizers(world, "theirs", "other") == [FINALIZER]
    annotate(world, APP_BINDING, "theirs", "other", allow_from=None)
    assert world.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "NotAllowedFrom"
    assert world.access.asked(watcher_service_pb2.DeleteDbRoleSnapshotRequest)[-1].not_allowed


def test_a_mount_that_is_shared_no_more_withdraws_its_roles(world: World) -> None:
    world.guide()
    refusal = NotAllowedFromError("the mount my-postgres-se belongs to namespace other")
    world.roles.fail_always("EnsureDbRole", refusal)
    annotate(world, POSTGRES_ROLE, "psql-role", allow_from="x")
    assert world.condition(POSTGRES_ROLE, "psql-role", "Failed")["reason"] == "NotAllowedFrom"
    assert world.access.asked(watcher_service_pb2.DeleteDbRoleSnapshotRequest)[-1].not_allowed == refusal.message


def test_a_mount_is_shared_with_what_all_engines_of_the_namespace_say(world: World) -> None:
    world.guide()
    world.secret_engine("second")
    annotate(world, SECRET_ENGINE, "postgresql-engine", shared_with="ns-b")
    annotate(world, SECRET_ENGINE, "second", shared_with="ns-c,ns-b,*")
    for name in ("postgresql-engine", "second"):
        asked = [
            each
            for each in world.engine.asked(engine_service_pb2.EnsureEngineRequest)
            if each.owner.name == name and each.mount == MOUNT
        ]
        assert asked[-1].shared_with == ["ns-b", "ns-c"]


def test_c3_the_role_says_who_may_ask_for_it(world: World) -> None:
    world.guide()
    annotate(world, POSTGRES_ROLE, "psql-role", allow_from="ns-b,ns-c", allow_subjects_from="ns-d")
    snapshot = world.access.asked(watcher_service_pb2.PutDbRoleSnapshotRequest)[-1].snapshot
    assert (snapshot.allow_from, snapshot.allow_subjects_from) == (["ns-b", "ns-c"], ["ns-d"])


def test_m6_no_finalizer_where_the_watcher_may_not_list_secrets(world: World) -> None:
    world.kube.refused.add("closed")
    for resource, name in ((SECRET_ENGINE, "e"), (POSTGRES_ROLE, "r"), (ACCESS_REQUEST, "q")):
        world.put(resource, name, "closed", spec={})
    world.settle()
    for resource, name in ((SECRET_ENGINE, "e"), (POSTGRES_ROLE, "r"), (ACCESS_REQUEST, "q")):
        found = world.kube.see(resource, f"closed/{name}")
        assert found
        assert not found["metadata"].get("finalizers")


def test_which_annotation_names_whom() -> None:
    assert listed_namespaces(" b ,a,a,,*,-x,UP,a.b," + "n" * 64) == ("a", "b")
    assert listed_namespaces(",".join(f"n{number}" for number in range(33))) == ()
    assert len(listed_namespaces(",".join(f"n{number}" for number in range(32)))) == 32


@pytest.mark.parametrize("name", ["k8s.-.demo.db", "k8s.other.demo.db", "k8s.", "k8s.-..db"])
def test_c4_a_connection_of_kubernetes_is_not_for_callers_outside(name: str) -> None:
    with pytest.raises(NotAllowedFromError, match="not for callers outside Kubernetes"):
        check_connection(name, cluster="", namespace="", allow_from=[""])
    check_connection("operators", cluster="", namespace="", allow_from=[])


@pytest.mark.parametrize(
    ("name", "cluster", "expected"),
    [
        ("k8s.-.demo.postgres-app", "", "demo"),
        ("k8s.-.demo.postgres.app", "", "demo"),
        ("k8s.east.demo.db", "east", "demo"),
        ("k8s.east.demo.db", "", ""),
        ("k8s.-.demo", "", ""),
        ("operators", "", None),
    ],
)
def test_whose_a_connection_is(name: str, cluster: str, expected: str | None) -> None:
    assert namespace_of_connection(name, cluster=cluster) == expected
