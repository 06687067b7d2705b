"""What the watcher knows of one kind: the newest object that a list, a watch or an own write has shown.

An own write is put here at once, so that the next reconcile never acts on something older than what it wrote itself. The API server's
resourceVersions of one kind can be compared as numbers (KEP-5504); a version that is no number counts as newer. What was removed stays
removed: the answer to an own write may come after the watch has shown the object's end, above all where that write took the last finalizer
off, and must not bring it back.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from watcher.kube.packing import Packer
from watcher.kube.resources import Body, Key, key_of, uid_of, version_of

REMEMBERED_ENDS = 4096
"""Uids of removed objects that are remembered; far more than there are own writes under way."""

Changed = Callable[[Body | None, Body | None], None]
"""Called with the object before and after; None where there was or is none."""


class Cache:
    """Objects of one kind by key. Safe for threads; ``on_change`` runs in the thread that brought the change, without a
    lock.

    Args:
        keep: What is kept of an object, so that no more stays in memory than is needed.
        on_change: Told of each change that was accepted.
    """

    def __init__(self, *, keep: Callable[[Body], Body] | None = None, on_change: Changed | None = None) -> None:
        self._keep = keep or slim
        self._on_change = on_change or (lambda _old, _new: None)
        self._objects: dict[Key, bytes] = {}
        self._packer = Packer()
        self._ended: dict[str, None] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Body | None:
        """The newest object known."""
        packed = self._objects.get(key)
        return None if packed is None else self._packer.unpack(packed)

    def all(self, namespace: str | None = None) -> Iterator[Body]:
        """All objects as of now, or those of one namespace, one after the other."""
        with self._lock:
            found = [packed for key, packed in self._objects.items() if namespace is None or key.namespace == namespace]
        return map(self._packer.unpack, found)

    def known(self) -> list[Key]:
        """The keys of all objects as of now, the oldest first."""
        with self._lock:
            return list(self._objects)

    def count(self, namespace: str) -> int:
        """How many objects a namespace has."""
        return self._counts[namespace]

    def __iter__(self) -> Iterator[Body]:
        return self.all()

    def __len__(self) -> int:
        return len(self._objects)

    def put(self, obj: Body, *, quiet: bool = False) -> Body:
        """Take an object unless a newer one is known; answers the newest. ``quiet`` tells nobody of the change: who
        made it knows.
        """
        kept, (namespace, name) = self._keep(obj), key_of(obj)
        key = Key(sys.intern(namespace), name)
        with self._lock:
            old = self.get(key)
            if uid_of(kept) in self._ended or (old is not None and _is_older(kept, old)):
                return old or kept
            self._objects[key] = self._packer.pack(kept)
            self._counts[key.namespace] += old is None
        if not quiet and (old is None or version_of(old) != version_of(kept)):
            self._on_change(old, kept)
        return kept

    def remove(self, obj: Body) -> None:
        """Forget an object that was deleted, unless a newer one of that name is known."""
        key = key_of(obj)
        with self._lock:
            self._remember_end(obj)
            old = self.get(key)
            if old is None or _is_older(obj, old):
                return
            self._drop(key)
        self._on_change(old, None)

    def retain(self, keys: Iterable[Key], *, version: str) -> None:
        """Forget what a complete list as of ``version`` no longer has, but not what is newer than the list."""
        listed = set(keys)
        with self._lock:
            missing = [key for key in self._objects if key not in listed]
            gone = [key for key in missing if (obj := self.get(key)) and not _is_newer_than(obj, version)]
            removed = [self._drop(key) for key in gone]
            for old in removed:
                self._remember_end(old)
        for old in removed:
            self._on_change(old, None)

    def _drop(self, key: Key) -> Body:
        self._counts[key.namespace] -= 1
        if not self._counts[key.namespace]:
            del self._counts[key.namespace]
        return self._packer.unpack(self._objects.pop(key))

    def _remember_end(self, obj: Body) -> None:
        if uid := uid_of(obj):
            self._ended[uid] = None
        while len(self._ended) > REMEMBERED_ENDS:
            del self._ended[next(iter(self._ended))]


def slim(obj: Body) -> Body:
    """An object without what nothing here reads and what makes up half of its size."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    annotations = meta.get("annotations")
    if annotations and "kubectl.kubernetes.io/last-applied-configuration" in annotations:
        meta["annotations"] = {
            k: v for k, v in annotations.items() if k != "kubectl.kubernetes.io/last-applied-configuration"
        }
    return {**obj, "metadata": meta}


def _is_older(obj: Body, than: Body) -> bool:
    mine, other = version_of(obj), version_of(than)
    return mine.isdigit() and other.isdigit() and int(mine) < int(other)


def _is_newer_than(obj: Body, version: str) -> bool:
    mine = version_of(obj)
    return mine.isdigit() and version.isdigit() and int(mine) > int(version)
