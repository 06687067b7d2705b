"""Progress of access requests: one value by uid, and no entry once nothing is left to do."""

from __future__ import annotations

import threading

from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.unit.watcher.watcher_world import World
from watcher.kube.resources import Key
from watcher.reconcilers.access_request import AccessRequestReconciler
from watcher.reconcilers.progress import NOTHING, ProgressTable, WrittenCredential
from watcher.specs.kinds import ACCESS_REQUEST

KEY = Key("demo", "rqst")
WRITTEN = WrittenCredential(attempt=1, previous=0)


def ref(uid: str) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(namespace=KEY.namespace, name=KEY.name, uid=uid)


def entries(world: World) -> ProgressTable:
    reconciler: AccessRequestReconciler = world.watcher.triggers._access_requests
    return reconciler._progress


def test_a_value_is_kept_by_uid_until_it_is_empty() -> None:
    table = ProgressTable()
    assert table.update(KEY, "a", written=WRITTEN) == NOTHING
    table.update(KEY, "b", objects_removed=True)
    assert (table.find_progress(KEY, "a").written, table.find_progress(KEY, "b").written) == (WRITTEN, None)
    assert table.update(KEY, "a", written=None).written == WRITTEN
    table.forget_request(KEY, "b")
    assert len(table) == 0


def test_a_deletion_that_access_recorded_leaves_nothing() -> None:
    table = ProgressTable()
    table.update(KEY, "a", objects_removed=True, deletion_recorded=True)
    table.note_deleted(KEY, ref("a"))
    assert (len(table), table.list_missing(KEY)) == (0, [])


def test_a_deletion_that_access_does_not_know_is_left_to_close() -> None:
    table = ProgressTable()
    table.update(KEY, "a", written=WRITTEN)
    table.note_deleted(KEY, ref("a"))
    table.note_deleted(KEY, ref("b"))
    assert sorted(each.uid for each in table.list_missing(KEY)) == ["a", "b"]
    assert table.find_progress(KEY, "a").written is None
    assert table.list_missing(Key("demo", "other")) == []


def test_changes_from_many_threads_are_all_kept() -> None:
    table = ProgressTable()
    threads = [
        threading.Thread(target=lambda number=number: table.update(KEY, str(number), objects_removed=True))
        for number in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table) == 32


def test_a_granted_request_leaves_no_progress(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    assert world.secret() is not None
    assert len(entries(world)) == 0


def test_a_deleted_request_leaves_no_progress(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.delete(ACCESS_REQUEST, "rqst")
    world.settle()
    assert world.kube.see(ACCESS_REQUEST, "demo/rqst") is None
    assert len(entries(world)) == 0


def test_a_request_deleted_unseen_leaves_no_progress_once_closed(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.access.fail("DeleteAccessRequest", errors.PeerUnavailableError("cannot be reached"))
    world.kube.edit(ACCESS_REQUEST, "demo/rqst", lambda obj: obj["metadata"].update(finalizers=[]))
    world.delete(ACCESS_REQUEST, "rqst")
    world.settle()
    world.advance(10)
    assert all(request.ended for request in world.access.requests.values())
    assert len(entries(world)) == 0


def test_objects_are_removed_once_however_often_access_fails(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.access.fail_always("DeleteAccessRequest", errors.LedgerUnavailableError("the disk is full"))
    world.kube.calls.clear()
    world.delete(ACCESS_REQUEST, "rqst")
    world.advance(30)
    assert sum(call.startswith("DELETE secrets") for call in world.kube.calls) == 1
    world.access.fail_always("DeleteAccessRequest", None)
    world.advance(6)
    assert len(entries(world)) == 0
