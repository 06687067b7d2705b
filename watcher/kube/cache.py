"""The cache of one kind: the newest object that a list, a watch or an own write has shown, with indexes.

An own write is put into the cache at once, so that the next reconcile never acts on an object that is older than that
write. The resourceVersions of one kind compare as numbers (KEP-5504); a version that is no number counts as newer. A
deleted object stays deleted: the answer to an own write may arrive after the watch has shown the deletion, above all
when that write removed the last finalizer.

An object is kept as JSON text and parsed at each read: as dicts, thousands of them take more than twice the memory, and
a reader could change what others see.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import TypeAlias

from services.common import logs
from watcher.kube.resources import Body, Key, key_of, uid_of, version_of

_LOG = logs.logger(__name__)
DELETED_UIDS = 4096
"""So many uids of deleted objects are kept; far more than there are own writes under way."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

ChangeHandler: TypeAlias = Callable[[Body | None, Body | None], None]
"""Called with the object before and after; None where there was or is none."""
Indexer: TypeAlias = Callable[[Body], Iterable[Hashable]]
"""The values under which ``by_index`` finds an object."""


class Cache:
    """Objects of one kind by key. Safe for threads; ``on_change`` runs in the caller's thread, without a lock.

    Args:
        transform: Selects what the cache keeps of an object; ``trimmed`` by default.
        on_change: Called after each accepted change.
        indexers: The indexes by name.
    """

    def __init__(
        self,
        *,
        transform: Callable[[Body], Body] | None = None,
        on_change: ChangeHandler | None = None,
        indexers: Mapping[str, Indexer] | None = None,
    ) -> None:
        self._transform = transform or trimmed
        self._on_change = on_change or (lambda _old, _new: None)
        self._texts: dict[Key, bytes] = {}
        self._indexes = {name: _Index(indexer) for name, indexer in (indexers or {}).items()}
        self._by_namespace = _Index(lambda obj: [key_of(obj).namespace])
        self._deleted_uids: dict[str, None] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Body | None:
        """The newest object of this name; None where there is none."""
        text = self._texts.get(key)
        return None if text is None else _parsed(text)

    def by_index(self, name: str, value: Hashable) -> list[Body]:
        """The objects for which the indexer ``name`` yields ``value``."""
        with self._lock:
            found = [self._texts[key] for key in self._indexes[name].keys_of(value)]
        return list(map(_parsed, found))

    def keys_by_index(self, name: str, value: Hashable) -> list[Key]:
        """The keys of the same objects, none of which is parsed."""
        with self._lock:
            return list(self._indexes[name].keys_of(value))

    def all(self, namespace: str | None = None) -> Iterator[Body]:
        """All objects as of now, or those of one namespace, one after the other."""
        with self._lock:
            keys = self._texts if namespace is None else self._by_namespace.keys_of(namespace)
            found = [self._texts[key] for key in keys]
        return map(_parsed, found)

    def list_keys(self, namespace: str | None = None) -> list[Key]:
        """The keys of all objects, or of those of one namespace, the oldest first."""
        with self._lock:
            return list(self._texts if namespace is None else self._by_namespace.keys_of(namespace))

    def count(self, namespace: str) -> int:
        """Number of objects in a namespace."""
        with self._lock:
            return len(self._by_namespace.keys_of(namespace))

    def __iter__(self) -> Iterator[Body]:
        return self.all()

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, obj: Body, *, notify: bool = True) -> Body:
        """Keep an object unless the cache has a newer one; returns the newest.

        Args:
            obj: The object.
            notify: Whether ``on_change`` is called; not for a change that its writer acts on itself.
        """
        key = key_of(obj)
        kept = self._transform(obj)
        text = json.dumps(kept, separators=(",", ":")).encode()
        with self._lock:
            old = self.get(key)
            if uid_of(kept) in self._deleted_uids or (old is not None and _is_older(kept, old)):
                return old or kept
            self._texts[key] = text
            self._update_indexes(key, old, kept)
        if notify and (old is None or version_of(old) != version_of(kept)):
            self._on_change(old, kept)
        return kept

    def remove(self, obj: Body) -> None:
        """Remove a deleted object, unless the cache has a newer one of this name."""
        key = key_of(obj)
        with self._lock:
            self._remember_deletion(obj)
            old = self.get(key)
            if old is None or _is_older(obj, old):
                return
            self._drop(key, old)
        self._on_change(old, None)

    def retain(self, keys: Iterable[Key], *, version: str) -> None:
        """Remove what a complete list as of ``version`` does not have, except objects that are newer than the list."""
        listed = set(keys)
        with self._lock:
            missing = {key: _parsed(text) for key, text in self._texts.items() if key not in listed}
            removed = [self._drop(key, old) for key, old in missing.items() if not _is_newer_than(old, version)]
            for old in removed:
                self._remember_deletion(old)
        for old in removed:
            self._on_change(old, None)

    def _drop(self, key: Key, old: Body) -> Body:
        del self._texts[key]
        self._update_indexes(key, old, None)
        return old

    def _update_indexes(self, key: Key, old: Body | None, new: Body | None) -> None:
        for index in (self._by_namespace, *self._indexes.values()):
            index.update(key, old, new)

    def _remember_deletion(self, obj: Body) -> None:
        if uid := uid_of(obj):
            self._deleted_uids[uid] = None
        while len(self._deleted_uids) > DELETED_UIDS:
            del self._deleted_uids[next(iter(self._deleted_uids))]


class _Index:
    """Keys of objects by the values that an indexer yields."""

    def __init__(self, indexer: Indexer) -> None:
        self._indexer = indexer
        self._keys: dict[Hashable, dict[Key, None]] = {}

    def keys_of(self, value: Hashable) -> Collection[Key]:
        return self._keys.get(value, {}).keys()

    def update(self, key: Key, old: Body | None, new: Body | None) -> None:
        before, after = self._values(key, old), self._values(key, new)
        for value in before - after:
            del self._keys[value][key]
            if not self._keys[value]:
                del self._keys[value]
        for value in after - before:
            self._keys.setdefault(value, {})[key] = None

    def _values(self, key: Key, obj: Body | None) -> set[Hashable]:
        """The values of an object; none of one that the indexer fails on, which its reconcile reports."""
        try:
            return set() if obj is None else set(self._indexer(obj))
        except Exception:
            _LOG.exception("object without index", object=str(key))
            return set()


def trimmed(obj: Body) -> Body:
    """An object without managedFields and kubectl's last applied configuration, which make up half of its size."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    if LAST_APPLIED in (meta.get("annotations") or {}):
        meta["annotations"] = {name: value for name, value in meta["annotations"].items() if name != LAST_APPLIED}
    return {**obj, "metadata": meta}


def _parsed(text: bytes) -> Body:
    found: Body = json.loads(text)
    return found


def _is_older(obj: Body, than: Body) -> bool:
    mine, other = version_of(obj), version_of(than)
    return mine.isdigit() and other.isdigit() and int(mine) < int(other)


def _is_newer_than(obj: Body, version: str) -> bool:
    mine = version_of(obj)
    return mine.isdigit() and version.isdigit() and int(mine) > int(version)
