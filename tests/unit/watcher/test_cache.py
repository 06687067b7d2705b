"""The cache of one kind: indexes follow every change, and thousands of objects of one shape share their strings."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from watcher.kube.cache import Cache
from watcher.kube.resources import Body, Key, key_of


def thing(name: str, version: int, *, mounts: Iterable[str] = (), namespace: str = "demo") -> Body:
    meta = {"namespace": namespace, "name": name, "uid": f"uid-{namespace}-{name}", "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"mounts": list(mounts)}}


def indexed() -> Cache:
    return Cache(indexers={"mount": lambda obj: obj["spec"]["mounts"]})


def names(found: Iterable[Body]) -> list[str]:
    return sorted(obj["metadata"]["name"] for obj in found)


def test_an_index_finds_objects_by_each_of_their_values() -> None:
    cache = indexed()
    cache.put(thing("a", 1, mounts=["x", "y"]))
    cache.put(thing("b", 2, mounts=["y"]))
    cache.put(thing("c", 3))
    assert names(cache.by_index("mount", "x")) == ["a"]
    assert names(cache.by_index("mount", "y")) == ["a", "b"]
    assert cache.by_index("mount", "z") == []


def test_an_index_follows_a_changed_object() -> None:
    cache = indexed()
    cache.put(thing("a", 1, mounts=["x"]))
    cache.put(thing("a", 2, mounts=["y"]))
    assert cache.by_index("mount", "x") == []
    assert cache.by_index("mount", "y") == [thing("a", 2, mounts=["y"])]


def test_an_older_object_does_not_change_an_index() -> None:
    cache = indexed()
    cache.put(thing("a", 2, mounts=["y"]))
    cache.put(thing("a", 1, mounts=["x"]))
    assert (names(cache.by_index("mount", "x")), names(cache.by_index("mount", "y"))) == ([], ["a"])


def test_an_index_forgets_removed_objects() -> None:
    cache = indexed()
    for number, name in enumerate("abc", 1):
        cache.put(thing(name, number, mounts=["x"]))
    cache.remove(thing("a", 9))
    cache.retain([Key("demo", "c")], version="9")
    assert names(cache.by_index("mount", "x")) == ["c"]


def test_a_change_handler_sees_the_index_of_the_new_object() -> None:
    seen: list[list[str]] = []
    cache = Cache(
        on_change=lambda _old, _new: seen.append(names(cache.by_index("mount", "x"))),
        indexers={"mount": lambda obj: obj["spec"]["mounts"]},
    )
    cache.put(thing("a", 1, mounts=["x"]))
    cache.remove(thing("a", 2))
    assert seen == [["a"], []]


def test_objects_of_a_namespace_are_found_and_counted() -> None:
    cache = indexed()
    cache.put(thing("a", 1))
    cache.put(thing("a", 2, namespace="other"))
    assert [key_of(obj) for obj in cache.all("other")] == [Key("other", "a")]
    assert (cache.count("demo"), cache.count("other"), cache.count("third")) == (1, 1, 0)
    cache.remove(thing("a", 3, namespace="other"))
    assert (cache.count("other"), list(cache.all("other")), cache.list_keys()) == (0, [], [Key("demo", "a")])


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.sets(st.sampled_from("xyz")), st.booleans()),
        max_size=30,
    )
)
def test_an_index_is_always_what_a_scan_finds(changes: list[tuple[str, int, set[str], bool]]) -> None:
    cache = indexed()
    for name, version, mounts, removed in changes:
        obj = thing(name, version, mounts=sorted(mounts))
        obj["metadata"]["uid"] = f"uid-{name}-{version}"
        cache.remove(obj) if removed else cache.put(obj)
        for mount in "xyz":
            assert names(cache.by_index("mount", mount)) == names(o for o in cache if mount in o["spec"]["mounts"])


def test_a_reader_cannot_change_what_others_read() -> None:
    cache = indexed()
    written = cache.put(thing("a", 1, mounts=["größer, \u66f4\u5927"]))
    for found in (written, cache.get(Key("demo", "a")), next(iter(cache.all())), *cache.by_index("mount", "größer")):
        assert found is not None
        found["spec"]["mounts"].append("changed")
    assert cache.get(Key("demo", "a")) == thing("a", 1, mounts=["größer, \u66f4\u5927"])


def test_an_object_is_kept_as_it_is_but_for_what_is_trimmed() -> None:
    odd: Body = {
        "metadata": {"namespace": "demo", "name": "a", "annotations": None},
        "status": None,
        "spec": {"list": [1, True, None, "text", {"deep": [[]]}], "message": "\u2028"},
    }
    cache = Cache()
    cache.put(odd)
    assert cache.get(Key("demo", "a")) == odd
