"""Roles and RoleBindings: an audit finds what was edited or removed, and a reconcile of a request reads neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from services.common import errors
from tests.unit.watcher.watcher_world import World
from watcher.kube.client import KubeError
from watcher.kube.resources import ROLE, ROLE_BINDING, Body, Key, Resource, key_of
from watcher.kube.workqueue import Priority
from watcher.specs.kinds import ACCESS_REQUEST

LISTS = ["LIST roles demo", "LIST rolebindings demo"]
Change: TypeAlias = Callable[[Body], None]
Again: TypeAlias = Callable[[World], None]
NAMES = ("one", "two", "three")


@pytest.fixture
def granted(world: World) -> World:
    """Three requests with their credentials, and no call noted."""
    world.guide()
    world.delete(ACCESS_REQUEST, "rqst")
    for name in NAMES:
        world.request(name)
    world.settle()
    for name in NAMES:
        world.decide(name=name)
    world.settle()
    world.kube.calls.clear()
    world.access.calls.clear()
    return world


def place(name: str) -> str:
    return f"demo/DatabaseAccessRequest-demo-{name}-credential-reader"


def resync(world: World) -> None:
    """One whole resync."""
    list(world.watcher.triggers.resync(1))
    world.settle()


def restart(world: World) -> None:
    world.watcher.stop()
    world.start()
    world.settle()


def rbac_calls(world: World) -> list[str]:
    """The calls about Roles and RoleBindings, without the objects' names."""
    return [call.split("/")[0] for call in world.kube.calls if call.split()[1] in ("roles", "rolebindings")]


def test_a_reconcile_without_drift_asks_kubernetes_nothing(granted: World) -> None:
    resync(granted)
    assert rbac_calls(granted) == LISTS
    assert len(granted.access.calls) >= len(NAMES)


def test_a_renewal_costs_no_list(granted: World) -> None:
    for obj in granted.kube.all(ACCESS_REQUEST):
        granted.watcher.queues["access_requests"].add(key_of(obj), Priority.RESYNC)
    granted.settle()
    assert granted.kube.calls == []


def test_a_restart_lists_roles_and_reads_none_by_itself(granted: World) -> None:
    restart(granted)
    assert rbac_calls(granted) == LISTS


@pytest.mark.parametrize("again", [resync, restart])
@pytest.mark.parametrize("resource", [ROLE, ROLE_BINDING])
def test_a_removed_role_or_binding_is_created_again(granted: World, resource: Resource, again: Again) -> None:
    granted.kube.vanish(resource, place("two"))
    again(granted)
    assert granted.kube.see(resource, place("two")) is not None
    assert sorted(call.split()[0] for call in granted.kube.calls if place("one").split("/")[1] in call) == []


def _mallory(obj: Body) -> None:
    obj.update(subjects=[{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}])


def _all_secrets(obj: Body) -> None:
    del obj["rules"][0]["resourceNames"]


def _elsewhere(obj: Body) -> None:
    obj["roleRef"]["name"] = "cluster-admin"


def _unlabelled(obj: Body) -> None:
    del obj["metadata"]["labels"]


@pytest.mark.parametrize("again", [resync, restart])
@pytest.mark.parametrize(
    ("resource", "change"),
    [
        (ROLE, _all_secrets),
        (ROLE_BINDING, _mallory),
        (ROLE_BINDING, _elsewhere),
        (ROLE, _unlabelled),
        (ROLE_BINDING, _unlabelled),
    ],
)
def test_an_edited_role_or_binding_is_corrected(
    granted: World, resource: Resource, change: Change, again: Again
) -> None:
    before = granted.kube.see(resource, place("two"))
    granted.kube.edit(resource, place("two"), change)
    again(granted)
    after = granted.kube.see(resource, place("two"))
    assert _grant(after) == _grant(before)
    granted.kube.calls.clear()
    resync(granted)
    assert rbac_calls(granted) == LISTS


def test_a_first_credential_costs_no_list(granted: World) -> None:
    granted.request("four")
    granted.settle()
    granted.decide(name="four")
    granted.settle()
    assert rbac_calls(granted) == ["POST roles demo", "POST rolebindings demo"]


def test_a_failed_write_is_due_until_it_succeeds(granted: World) -> None:
    granted.request("four")
    granted.settle()
    broken = [KubeError("etcd is full", status=500)] * 2

    def fail(method: str, resource: Resource, _name: str) -> None:
        if (method, resource) == ("POST", ROLE) and broken:
            raise broken.pop()

    granted.kube.fail = fail
    granted.decide(name="four")
    granted.settle()
    assert granted.kube.see(ROLE, place("four")) is None
    granted.advance(10)
    assert granted.kube.see(ROLE_BINDING, place("four")) is not None


def test_what_a_crash_left_unwritten_is_found(granted: World) -> None:
    granted.access.fail("AcknowledgeCredential", errors.PeerUnavailableError("it died", retry_after_s=30.0))
    granted.kube.vanish(ROLE, place("one"))
    granted.kube.vanish(ROLE_BINDING, place("one"))
    restart(granted)
    assert granted.kube.see(ROLE_BINDING, place("one")) is not None


def test_without_the_right_to_list_each_is_read_by_itself(granted: World, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(method: str, resource: Resource, _name: str) -> None:
        if method == "LIST" and resource in (ROLE, ROLE_BINDING):
            raise KubeError("roles is forbidden", status=403, reason="Forbidden")

    granted.kube.fail = fail
    granted.kube.edit(ROLE_BINDING, place("two"), _mallory)
    resync(granted)
    found = granted.kube.see(ROLE_BINDING, place("two"))
    assert found is not None
    assert found["subjects"][0]["name"] == "demo-sa"
    resync(granted)
    out = capsys.readouterr()
    assert (out.out + out.err).count("roles cannot be listed") == 1


def test_a_failed_list_is_tried_again(granted: World) -> None:
    broken = [KubeError("no etcd", status=500)]

    def fail(method: str, resource: Resource, _name: str) -> None:
        if method == "LIST" and resource is ROLE_BINDING and broken:
            raise broken.pop()

    granted.kube.fail = fail
    granted.kube.vanish(ROLE, place("three"))
    resync(granted)
    assert granted.kube.see(ROLE, place("three")) is None
    granted.advance(2)
    assert granted.kube.see(ROLE, place("three")) is not None


def test_foreign_roles_are_neither_read_nor_touched(granted: World) -> None:
    foreign = {"metadata": {"name": "theirs", "labels": {"app.kubernetes.io/managed-by": "leasegate"}}, "rules": []}
    granted.kube.put(ROLE, foreign, namespace="demo")
    resync(granted)
    assert rbac_calls(granted) == LISTS


def test_after_a_restart_requests_without_a_credential_go_first(granted: World) -> None:
    granted.request("four")
    granted.settle()
    granted.watcher.stop()
    granted.decide(name="four")
    granted.start()
    queue = granted.watcher.queues["access_requests"]
    taken = []
    while key := queue.next_key(block=False):
        taken.append(key)
        queue.mark_done(key)
    assert taken[0] == Key("demo", "four")
    assert set(taken[1:]) == {Key("demo", name) for name in NAMES}


def drain(world: World) -> list[str]:
    """The keys that wait in the queues, by kind."""
    found = []
    for name, queue in world.watcher.queues.items():
        while key := queue.next_key(block=False):
            found.append(f"{name} {key}")
            queue.mark_done(key)
    return found


def test_a_resync_queues_each_object_once_in_steps(granted: World) -> None:
    taken = [drain(granted) for _ in granted.watcher.triggers.resync(4)]
    taken.append(drain(granted))
    known = [
        "appbindings demo/postgres-app",
        "appbindings demo/vault",
        "secret_engines demo/postgresql-engine",
        "postgres_roles demo/psql-role",
    ]
    all_of_them = [*known, *(f"access_requests demo/{name}" for name in NAMES), "rbac_audit demo"]
    assert sorted(each for part in taken for each in part) == sorted(all_of_them)
    assert [len(part) for part in taken] == [0, 2, 2, 2, 2]


def test_a_resync_passes_over_objects_deleted_meanwhile(granted: World) -> None:
    steps = granted.watcher.triggers.resync(2)
    next(steps)
    next(steps)
    granted.delete(ACCESS_REQUEST, NAMES[-1])
    granted.settle()
    list(steps)
    assert f"access_requests demo/{NAMES[-1]}" not in drain(granted)


def test_a_request_without_access_gets_no_role_back(granted: World) -> None:
    granted.decide("Denied", name="one")
    granted.settle()
    assert granted.kube.see(ROLE, place("one")) is None
    resync(granted)
    restart(granted)
    assert granted.kube.see(ROLE, place("one")) is None
    assert granted.kube.see(ROLE_BINDING, place("one")) is None


def _grant(obj: Body | None) -> Body:
    assert obj is not None
    labels = obj["metadata"].get("labels")
    return {"labels": labels, **{name: obj.get(name) for name in ("rules", "roleRef", "subjects")}}


def test_role_and_binding_are_removed_with_their_request(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    made = [(ROLE, place("rqst")), (ROLE_BINDING, place("rqst"))]
    assert all(world.kube.see(*each) for each in made)
    world.delete(ACCESS_REQUEST, "rqst")
    world.settle()
    assert not any(world.kube.see(*each) for each in made)


def test_role_and_binding_as_they_were_created_are_removed_unread(granted: World) -> None:
    granted.delete(ACCESS_REQUEST, "one")
    granted.settle()
    assert rbac_calls(granted) == ["DELETE roles demo", "DELETE rolebindings demo"]


def test_after_a_restart_role_and_binding_are_read_to_be_removed(granted: World) -> None:
    restart(granted)
    granted.kube.calls.clear()
    granted.delete(ACCESS_REQUEST, "one")
    granted.settle()
    assert rbac_calls(granted) == [
        "GET roles demo",
        "DELETE roles demo",
        "GET rolebindings demo",
        "DELETE rolebindings demo",
    ]


@pytest.mark.parametrize("resource", [ROLE, ROLE_BINDING])
def test_what_another_owner_took_since_its_creation_stays(granted: World, resource: Resource) -> None:
    def take(obj: Body) -> None:
        obj["metadata"]["ownerReferences"][0] |= {"name": "another", "uid": "another"}

    granted.kube.edit(resource, place("one"), take)
    granted.delete(ACCESS_REQUEST, "one")
    granted.settle()
    assert [each for each in (ROLE, ROLE_BINDING) if granted.kube.see(each, place("one"))] == [resource]


@pytest.mark.parametrize("resource", [ROLE, ROLE_BINDING])
def test_what_was_edited_since_its_creation_is_removed(granted: World, resource: Resource) -> None:
    granted.kube.edit(resource, place("one"), lambda obj: obj["metadata"].update(annotations={"a": "b"}))
    granted.delete(ACCESS_REQUEST, "one")
    granted.settle()
    assert granted.kube.see(ROLE, place("one")) is None
    assert granted.kube.see(ROLE_BINDING, place("one")) is None
