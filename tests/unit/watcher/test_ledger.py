"""The watcher stores the id of access' ledger, sends it with each poll, and replaces it only after an operator did."""

from __future__ import annotations

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.types.v1 import types_pb2
from tests.unit.watcher.watcher_world import World
from watcher.clients.ledger_id import ENTRY, NAME, NAMESPACE
from watcher.kube.client import KubeError
from watcher.kube.resources import CONFIG_MAP, Resource
from watcher.specs.kinds import ACCESS_REQUEST

WHERE = f"{NAMESPACE}/{NAME}"


@pytest.fixture
def world() -> World:
    return World()


def stored(world: World) -> str:
    found = world.kube.see(CONFIG_MAP, WHERE)
    return str(found["data"][ENTRY]) if found else ""


def sent(world: World) -> list[str]:
    """The ids that the watcher has sent, oldest first."""
    return [request.known_ledger_id for request in world.access.asked(watcher_service_pb2.WatchChangesRequest)]


def test_the_first_ledger_id_is_stored_and_sent_from_then_on(world: World) -> None:
    world.follow_feed()
    assert stored(world) == "one"
    world.follow_feed()
    world.start()  # another watcher reads it
    world.follow_feed()
    assert sent(world) == ["", "one", "one"]


def test_a_ledger_with_paused_issuance_is_not_stored(world: World) -> None:
    world.follow_feed()
    world.access.ledger, world.access.issuance_paused = "two", True
    world.follow_feed()
    world.follow_feed()
    assert stored(world) == "one"
    world.access.issuance_paused = False  # an operator has accepted the loss
    world.follow_feed()
    assert stored(world) == "two"
    world.follow_feed()
    assert sent(world)[-1] == "two"


def test_the_feed_is_not_polled_while_the_stored_id_is_unreadable(world: World) -> None:
    def refuse(method: str, resource: Resource, _name: str) -> None:
        if resource == CONFIG_MAP and method == "GET":
            raise KubeError("forbidden", status=403, reason="Forbidden")

    world.kube.fail = refuse
    assert world.watcher.feed.poll() > 0
    assert sent(world) == []  # it would look like a first start
    assert not world.watcher.feed.answered.is_set()
    world.kube.fail = lambda *_: None
    world.follow_feed()
    assert stored(world) == "one"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_failed_store_is_tried_again_and_stops_nothing(world: World, method: str) -> None:
    if method == "PUT":
        world.follow_feed()
        world.access.ledger = "two"

    def refuse(tried: str, resource: Resource, _name: str) -> None:
        if resource == CONFIG_MAP and tried == method:
            raise KubeError("forbidden", status=403, reason="Forbidden")

    world.kube.fail = refuse
    world.follow_feed()
    assert stored(world) == ("one" if method == "PUT" else "")
    assert world.watcher.feed.answered.is_set()
    world.kube.fail = lambda *_: None
    world.follow_feed()
    assert stored(world) == world.access.ledger


def test_a_conflicting_write_of_the_id_is_read_again(world: World) -> None:
    world.follow_feed()
    found = world.kube.see(CONFIG_MAP, WHERE)
    assert found is not None
    world.kube.replace(CONFIG_MAP, found | {"data": {ENTRY: "one", "note": "edited"}})
    world.access.ledger = "two"
    world.follow_feed()  # a conflict
    world.follow_feed()
    assert stored(world) == "two"


def test_a_ledger_mismatch_keeps_secret_and_lease_in_the_status(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    before = world.status(ACCESS_REQUEST, "rqst")
    assert before["secret"]
    world.access.conditions = [
        types_pb2.Condition(type="IssuancePaused", status=True, reason="LedgerMismatch", message="lost")
    ]
    uid = world.uid(ACCESS_REQUEST, "rqst")
    world.access.requests[uid].active = 0
    world.access.step = watcher_service_pb2.NEXT_STEP_NONE
    world.access.publish(access_request_changed=world.access.requests[uid].spec.object)
    world.follow_feed()
    after = world.status(ACCESS_REQUEST, "rqst")
    assert (after["secret"], after["lease"], after["attempt"]) == (before["secret"], before["lease"], before["attempt"])
    assert world.condition(ACCESS_REQUEST, "rqst", "IssuancePaused")["reason"] == "LedgerMismatch"


def test_a_change_of_a_cluster_without_a_name_is_handled(world: World) -> None:
    world.guide()
    uid = world.uid(ACCESS_REQUEST, "rqst")
    before = len(world.access.asked(watcher_service_pb2.EnsureAccessRequestRequest))
    ref = types_pb2.ObjectRef(cluster="-", cluster_uid="kube-system-uid", namespace="demo", name="rqst", uid=uid)
    world.access.publish(access_request_changed=ref)
    world.follow_feed()
    assert len(world.access.asked(watcher_service_pb2.EnsureAccessRequestRequest)) == before + 1
    ref.cluster_uid = "another cluster's"
    world.access.publish(access_request_changed=ref)
    world.follow_feed()
    assert len(world.access.asked(watcher_service_pb2.EnsureAccessRequestRequest)) == before + 1
