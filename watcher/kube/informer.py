"""Keeps a cache in step with the API server: a paged list, then watches from its version on, until the process ends.

An expired version (410) leads to a new list, a broken watch to another one from the last version seen, and any other
failure to another try after a growing pause. A new list shows by comparison with the cache what was deleted meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.common import logs
from watcher.kube.backoff import Backoff
from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient, KubeError, error_of
from watcher.kube.resources import Body, Key, Resource, key_of, version_of

LOG = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class InformerTiming:
    """Timing of an informer.

    Attributes:
        backoff: Pauses after failures.
        random: A number from 0 to 1.
        clock: Monotonic seconds.
        watch_s: Longest time that the server keeps one watch open, in seconds; each watch asks for three quarters of it
            to all of it.
        slack_s: Seconds of silence beyond that after which a watch counts as stalled. (The API server sends a bookmark
            about once a minute, but does not promise one.)
        page: Objects per page of a list.
    """

    backoff: Backoff
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    watch_s: float = 60.0
    slack_s: float = 15.0
    page: int = 250


class Informer:
    """Lists and watches one kind, in one namespace or in all.

    Args:
        api: Kubernetes.
        resource: The kind.
        cache: Where the objects go.
        timing: Pauses and timeouts.
        namespace: The one namespace; empty for all.
        fields: Field selector, such as ``type!=helm.sh/release.v1``.
        on_synced: Called after each complete list.
        on_failed: Called with each error, before the pause after it.
    """

    def __init__(
        self,
        api: KubeClient,
        resource: Resource,
        cache: Cache,
        *,
        timing: InformerTiming,
        namespace: str = "",
        fields: str = "",
        on_synced: Callable[[], None] | None = None,
        on_failed: Callable[[KubeError], None] | None = None,
    ) -> None:
        self._api, self._resource, self._cache, self._timing = api, resource, cache, timing
        self._namespace, self._fields = namespace, fields
        self._on_synced = on_synced or (lambda: None)
        self._on_failed = on_failed or (lambda _err: None)
        self._version = ""
        self._failures = 0
        self._stop = threading.Event()
        self.synced = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """List and watch until ``stop``."""
        self._stop = stop
        while not stop.is_set():
            pause_s = self.list_and_watch()
            if pause_s > 0:
                stop.wait(pause_s)

    def list_and_watch(self) -> float:
        """List if there is no version to watch from, then watch once; returns the pause before the next call in s."""
        try:
            if not self._version:
                self._list()
            began = self._timing.clock()
            seen = self._watch()
        except KubeError as err:
            return self._pause_after(err)
        except Exception as err:  # an object that a handler fails on must not stop the watch of all others
            LOG.exception("unhandled exception in informer", kind=self._resource.kind)
            self._version = ""
            return self._pause_after(KubeError(f"a defect: {type(err).__name__}", status=0))
        if seen == 0 and self._timing.clock() - began < 1.0:
            return self._next_pause_s()  # a server that ends each watch at once is not asked in a tight loop
        self._failures = 0
        return 0.0

    def _pause_after(self, err: KubeError) -> float:
        if err.status in (403, 410) or err.reason == "Expired":
            self._version = ""  # after a 403, only a list shows what happened while there were no rights
        LOG.info(
            "watch interrupted",
            kind=self._resource.kind,
            namespace=self._namespace,
            status=err.status,
            reason=err.reason,
            error=err.message,
        )
        self._on_failed(err)
        return self._next_pause_s()

    def _next_pause_s(self) -> float:
        self._failures += 1
        return self._timing.backoff.pause_s(self._failures)

    def _list(self) -> None:
        token, version, keys = "", "", set[Key]()
        while True:
            page = self._api.page(
                self._resource, namespace=self._namespace, limit=self._timing.page, token=token, fields=self._fields
            )
            version = version or str(page["metadata"]["resourceVersion"])
            for item in page.get("items") or []:
                if key := self._put_readable(item):
                    keys.add(key)
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._cache.retain(keys, version=version)
        self._version = version
        self.synced.set()
        self._on_synced()

    def _watch(self) -> int:
        server_s = int(self._timing.watch_s * (0.75 + self._timing.random() / 4)) or 1
        events = self._api.watch(
            self._resource,
            namespace=self._namespace,
            version=self._version,
            fields=self._fields,
            server_s=server_s,
            silence_s=server_s + self._timing.slack_s,
        )
        seen = 0
        for event in events:
            if self._stop.is_set():
                break
            self._apply(str(event["type"]), event["object"])
            self._failures = 0
            seen += 1
        return seen

    def _apply(self, kind: str, obj: Body) -> None:
        if kind == "ERROR":
            raise error_of(obj)
        if kind == "DELETED":
            try:
                self._cache.remove(obj)
            except Exception:
                self._skip(obj)
        elif kind in ("ADDED", "MODIFIED"):
            self._put_readable(obj)
        self._version = version_of(obj) or self._version

    def _put_readable(self, obj: Body) -> Key | None:
        """Put an object into the cache; one on which a part of the watcher fails is skipped and stops no other.

        Returns:
            Its key, if it has one.
        """
        try:
            return self._put(obj)
        except Exception:
            return self._skip(obj)

    def _skip(self, obj: Body) -> Key | None:
        key = _key_if_any(obj)
        LOG.exception("unreadable object skipped", kind=self._resource.kind, object=str(key))
        return key

    def _put(self, obj: Body) -> Key:
        # Items of a list of a core kind have neither kind nor apiVersion.
        self._cache.put({"apiVersion": self._resource.api_version, "kind": self._resource.kind, **obj})
        return key_of(obj)


def _key_if_any(obj: Body) -> Key | None:
    try:
        return key_of(obj)
    except (KeyError, TypeError, AttributeError):
        return None
