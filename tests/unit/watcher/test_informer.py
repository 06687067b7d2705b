"""The informer against a scripted API server: pages, bookmarks, expiry, broken and stalled watches, missed deletes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from watcher.kube.backoff import Backoff
from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.resources import SECRET, Body, Key
from watcher.specs.kinds import SECRET_ENGINE


def thing(name: str, version: int, **more: Any) -> Body:
    return {
        "metadata": {"namespace": "demo", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), **more}
    }


def page(version: int, *items: Body, more: str = "") -> Body:
    return {"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)}


def event(kind: str, obj: Body) -> Body:
    return {"type": kind, "object": obj}


BOOKMARK = event("BOOKMARK", {"metadata": {"resourceVersion": "77"}})
GONE = event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})


class Scripted:
    """Answers lists and watches in turn; an error in the script is raised, as for a broken or silent connection."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[str] = []
        self.timeouts: list[tuple[int, float]] = []

    def page(
        self, _resource: object, *, namespace: str = "", limit: int = 500, token: str = "", fields: str = ""
    ) -> Body:
        self.asked.append(f"list {token}".strip())
        answer = self.lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(Body, answer)

    def watch(
        self, _resource: object, *, namespace: str = "", version: str, fields: str = "", server_s: int, silence_s: float
    ) -> Iterator[Body]:
        self.asked.append(f"watch {version}")
        self.timeouts.append((server_s, silence_s))
        for answer in self.watches.pop(0):
            if isinstance(answer, Exception):
                raise answer
            yield answer


class Seen:
    def __init__(self, scripted: Scripted, *, resource: Any = SECRET_ENGINE) -> None:
        self.changes: list[tuple[str, str]] = []
        self.store = Cache(on_change=self._change)
        self.now = 0.0
        self.errors: list[KubeError] = []
        self.syncs = 0
        self.timing = InformerTiming(
            backoff=Backoff(base_s=1.0, cap_s=30.0, random=lambda: 1.0), random=lambda: 1.0, clock=self._clock
        )
        self.informer = Informer(
            cast(KubeClient, scripted),
            resource,
            self.store,
            timing=self.timing,
            on_synced=self._synced,
            on_failed=self.errors.append,
        )

    def _clock(self) -> float:
        self.now += 10.0
        return self.now

    def _synced(self) -> None:
        self.syncs += 1

    def _change(self, old: Body | None, new: Body | None) -> None:
        kind = "gone" if new is None else "new" if old is None else "changed"
        self.changes.append((kind, (new or old or {})["metadata"]["name"]))

    def names(self) -> list[str]:
        return sorted(obj["metadata"]["name"] for obj in self.store)


def test_a_list_is_read_page_by_page_and_watched_from_its_version() -> None:
    scripted = Scripted(
        [page(5, thing("a", 1), more="next"), page(9, thing("b", 2))], [[event("ADDED", thing("c", 6))]]
    )
    seen = Seen(scripted)
    assert seen.informer.list_and_watch() == 0.0
    assert scripted.asked == ["list", "list next", "watch 5"]
    assert seen.names() == ["a", "b", "c"]
    assert seen.syncs == 1
    assert seen.informer.synced.is_set()


def test_the_next_watch_continues_where_the_last_one_ended() -> None:
    scripted = Scripted([page(5)], [[event("ADDED", thing("a", 6)), event("MODIFIED", thing("a", 8))], []])
    seen = Seen(scripted)
    seen.informer.list_and_watch()
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "watch 5", "watch 8"]
    assert seen.changes == [("new", "a"), ("changed", "a")]


def test_a_bookmark_advances_the_version_without_a_change() -> None:
    scripted = Scripted([page(5)], [[BOOKMARK], []])
    seen = Seen(scripted)
    seen.informer.list_and_watch()
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "watch 5", "watch 77"]
    assert seen.changes == []


def test_an_expired_version_is_listed_again_and_deletes_are_found() -> None:
    scripted = Scripted([page(5, thing("a", 1), thing("b", 2)), page(90, thing("b", 2))], [[GONE], []])
    seen = Seen(scripted)
    assert seen.informer.list_and_watch() > 0
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "watch 5", "list", "watch 90"]
    assert seen.changes[-1] == ("gone", "a")
    assert seen.names() == ["b"]


def test_a_410_as_the_answer_of_a_watch_is_listed_again_too() -> None:
    scripted = Scripted([page(5), page(6)], [[KubeError("gone", status=410, reason="Expired")], []])
    seen = Seen(scripted)
    seen.informer.list_and_watch()
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "watch 5", "list", "watch 6"]


def test_an_expired_page_restarts_the_list() -> None:
    scripted = Scripted(
        [page(5, thing("a", 1), more="next"), KubeError("expired", status=410), page(7, thing("b", 6))], [[]]
    )
    seen = Seen(scripted)
    seen.informer.list_and_watch()
    assert not seen.informer.synced.is_set()
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "list next", "list", "watch 7"]
    assert seen.names() == ["b"]


@pytest.mark.parametrize(
    "error", [KubeError("broken", status=0), KubeError("too many", status=429), KubeError("down", status=503)]
)
def test_a_broken_watch_is_resumed_without_a_list(error: KubeError) -> None:
    scripted = Scripted([page(5)], [[event("ADDED", thing("a", 6)), error], []])
    seen = Seen(scripted)
    assert seen.informer.list_and_watch() > 0
    assert seen.informer.list_and_watch() == 0.0
    assert scripted.asked == ["list", "watch 5", "watch 6"]
    assert seen.errors == [error]


def test_pauses_grow_with_each_failure_until_a_success() -> None:
    down = KubeError("down", status=0)
    scripted = Scripted([down, down, down, page(5)], [[], [down]])
    seen = Seen(scripted)
    assert [seen.informer.list_and_watch() for _ in range(5)] == [1.0, 2.0, 4.0, 0.0, 1.0]


def test_watches_that_end_at_once_are_not_repeated_in_a_tight_loop() -> None:
    scripted = Scripted([page(5)], [[], [], []])
    seen = Seen(scripted)
    seen.informer._timing = InformerTiming(
        backoff=Backoff(1.0, 30.0, lambda: 1.0), random=lambda: 1.0, clock=lambda: 0.0
    )
    assert [seen.informer.list_and_watch() for _ in range(3)] == [1.0, 2.0, 4.0]


def test_a_stalled_watch_times_out_after_its_server_side_end() -> None:
    scripted = Scripted([page(5)], [[]])
    Seen(scripted).informer.list_and_watch()
    server_s, silence_s = scripted.timeouts[0]
    assert 0 < server_s < silence_s <= server_s + 30


def test_a_refused_watch_is_listed_again() -> None:
    refused = KubeError("forbidden", status=403, reason="Forbidden")
    scripted = Scripted([page(5, thing("a", 1)), page(9)], [[refused], []])
    seen = Seen(scripted, resource=SECRET)
    seen.informer.list_and_watch()
    seen.informer.list_and_watch()
    assert scripted.asked == ["list", "watch 5", "list", "watch 9"]
    assert seen.names() == []


def test_an_object_that_a_handler_fails_on_does_not_end_the_watch() -> None:
    scripted = Scripted([page(5), page(7, thing("b", 6))], [[event("ADDED", {"no": "metadata"})], []])
    seen = Seen(scripted)
    assert seen.informer.list_and_watch() > 0
    assert seen.informer.list_and_watch() == 0.0
    assert seen.names() == ["b"]


def test_m10_an_unreadable_object_stops_neither_list_nor_watch() -> None:
    scripted = Scripted(
        [page(5, thing("a", 1), {"spec": "no metadata"}, thing("bad", 2), thing("z", 3))],
        [[event("MODIFIED", thing("bad", 6)), event("ADDED", thing("later", 7))]],
    )
    seen = Seen(scripted)

    def fail_on_bad(_old: Body | None, new: Body | None) -> None:
        if new and new["metadata"]["name"] == "bad":
            raise TypeError("comparing strings with non-ASCII characters is not supported")

    seen.store = Cache(on_change=fail_on_bad, indexers={"by_spec": lambda obj: [obj["spec"]["missing"]]})
    seen.informer = Informer(
        cast(KubeClient, scripted), SECRET_ENGINE, seen.store, timing=seen.timing, on_failed=seen.errors.append
    )
    assert seen.informer.list_and_watch() == 0.0
    assert seen.names() == ["a", "bad", "later", "z"]
    assert (seen.errors, scripted.asked) == ([], ["list", "watch 5"])
    assert seen.store.by_index("by_spec", "x") == []


def test_items_of_a_list_get_their_kind() -> None:
    seen = Seen(Scripted([page(5, thing("a", 1))], [[]]))
    seen.informer.list_and_watch()
    found = seen.store.get(Key("demo", "a"))
    assert found is not None
    assert (found["kind"], found["apiVersion"]) == ("SecretEngine", "engine.kubevault.com/v1alpha1")


def test_an_older_event_does_not_undo_an_own_write() -> None:
    seen = Seen(Scripted([], []))
    seen.store.put(thing("a", 12))
    seen.store.put(thing("a", 10))
    found = seen.store.get(Key("demo", "a"))
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "12"
    seen.store.remove(thing("a", 11))
    assert seen.names() == ["a"]


def test_a_list_older_than_an_own_write_keeps_its_object() -> None:
    seen = Seen(Scripted([], []))
    seen.store.put(thing("a", 12))
    seen.store.put(thing("b", 3))
    seen.store.retain([], version="5")
    assert seen.names() == ["a"]


def test_a_late_answer_to_an_own_write_does_not_restore_the_object() -> None:
    seen = Seen(Scripted([], []))
    seen.store.put(thing("a", 3))
    seen.store.remove(thing("a", 5))
    seen.store.put(thing("a", 4))
    assert seen.names() == []
    again = thing("a", 6) | {"metadata": thing("a", 6)["metadata"] | {"uid": "another"}}
    seen.store.put(again)
    assert seen.names() == ["a"]


def test_managed_fields_and_last_applied_are_not_kept() -> None:
    seen = Seen(Scripted([], []))
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "long", "leasegate.dev/requested-by": "alice"}
    seen.store.put(thing("a", 1, managedFields=[{"manager": "kubectl"}], annotations=notes))
    found = seen.store.get(Key("demo", "a"))
    assert found is not None
    assert "managedFields" not in found["metadata"]
    assert found["metadata"]["annotations"] == {"leasegate.dev/requested-by": "alice"}
