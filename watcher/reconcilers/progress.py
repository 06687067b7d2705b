"""Keeps how far the watcher is with each access request: one value by uid, until nothing is left to do."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from leasegate.types.v1 import types_pb2
from watcher.kube.resources import Key


@dataclass(frozen=True, slots=True)
class WrittenCredential:
    """A credential that is in the Secret and not acknowledged yet.

    Attributes:
        attempt: Number of its attempt.
        previous: Number of the attempt that the Secret held before; 0 if it held none unharmed.
    """

    attempt: int
    previous: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done and what is left to do for one access request.

    Attributes:
        written: The credential that is to be acknowledged next.
        missing: The object, if it may be deleted already while access has it open; its access is to be closed.
        objects_removed: Whether Secret, Role and RoleBinding of a request that is being deleted are removed.
        deletion_recorded: Whether access has recorded the deletion, so that the object may go.
    """

    written: WrittenCredential | None = None
    missing: types_pb2.ObjectRef | None = None
    objects_removed: bool = False
    deletion_recorded: bool = False


NOTHING = Progress()


class ProgressTable:
    """The progress of each access request by key and uid. Safe for threads.

    A worker, the informer and the change feed write here; a request with nothing left to do has no entry.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, dict[str, Progress]] = {}
        self._lock = threading.Lock()

    def find_progress(self, key: Key, uid: str) -> Progress:
        """The progress of one request."""
        with self._lock:
            return self._entries.get(key, {}).get(uid, NOTHING)

    def list_missing(self, key: Key) -> list[types_pb2.ObjectRef]:
        """The objects of this name that may be deleted already."""
        with self._lock:
            return [entry.missing for entry in self._entries.get(key, {}).values() if entry.missing]

    def update(self, key: Key, uid: str, **changes: Any) -> Progress:
        """Change attributes of a request's progress; returns what it was before."""
        with self._lock:
            before = self._entries.get(key, {}).get(uid, NOTHING)
            self._store(key, uid, replace(before, **changes))
            return before

    def note_deleted(self, key: Key, ref: types_pb2.ObjectRef) -> None:
        """Note that the object is deleted; unless access has recorded that, its access is left to be closed."""
        with self._lock:
            recorded = self._entries.get(key, {}).get(ref.uid, NOTHING).deletion_recorded
            self._store(key, ref.uid, NOTHING if recorded else Progress(missing=ref))

    def forget_request(self, key: Key, uid: str) -> None:
        """Forget a request of which nothing is left to do."""
        with self._lock:
            self._store(key, uid, NOTHING)

    def __len__(self) -> int:
        return sum(len(entries) for entries in list(self._entries.values()))

    def _store(self, key: Key, uid: str, entry: Progress) -> None:
        entries = self._entries.setdefault(key, {})
        if entry == NOTHING:
            entries.pop(uid, None)
        else:
            entries[uid] = entry
        if not entries:
            del self._entries[key]
