"""Keeps a store in step with the API server: a paged list, then a watch from there, for as long as the process lives.

Whatever goes wrong is met by another try: an expired version (410) by a new list, a broken watch by one from the last version seen,
everything else after a growing pause. What was deleted meanwhile is found by comparing the list with the store. Nothing here knows what
the objects mean.
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
    """How an informer spends its time.

    Attributes:
        backoff: Pauses after failures.
        random: A number from 0 to 1.
        clock: Monotonic seconds.
        watch_s: Longest time that the server keeps one watch open, in seconds; each is between three quarters of that
            and the whole.
        slack_s: Seconds of silence beyond that after which a watch counts as stalled. (The API server sends a bookmark
            about once a minute, but promises none.)
        page: Objects per page of a list.
    """

    backoff: Backoff
    random: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    watch_s: float = 60.0
    slack_s: float = 15.0
    page: int = 250


class Informer:
    """Lists and watches one kind, in one namespace or all.

    Args:
        api: Kubernetes.
        resource: The kind.
        store: Where the objects go.
        pace: Its timing.
        namespace: The one namespace; empty for all.
        fields: Field selector, such as ``type!=helm.sh/release.v1``.
        on_synced: Called after each complete list.
        on_failed: Called with each error before the pause after it.
    """

    def __init__(
        self,
        api: KubeClient,
        resource: Resource,
        store: Cache,
        *,
        pace: InformerTiming,
        namespace: str = "",
        fields: str = "",
        on_synced: Callable[[], None] | None = None,
        on_failed: Callable[[KubeError], None] | None = None,
    ) -> None:
        self._api, self._resource, self._store, self._pace = api, resource, store, pace
        self._namespace, self._fields = namespace, fields
        self._on_synced = on_synced or (lambda: None)
        self._on_failed = on_failed or (lambda _err: None)
        self._version = ""
        self._failures = 0
        self._stop = threading.Event()
        self.synced = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``."""
        self._stop = stop
        while not stop.is_set():
            pause_s = self.step()
            if pause_s > 0:
                stop.wait(pause_s)

    def step(self) -> float:
        """List if need be, watch once; answers how many seconds to pause before the next step."""
        try:
            if not self._version:
                self._list()
            began = self._pace.clock()
            seen = self._watch()
        except KubeError as err:
            return self._failed(err)
        except Exception as err:  # whatever an object made go wrong must not end the watching of all others
            LOG.exception("informer failed", kind=self._resource.kind)
            self._version = ""
            return self._failed(KubeError(f"a defect: {type(err).__name__}", status=0))
        if (
            seen == 0 and self._pace.clock() - began < 1.0
        ):  # a server that ends each watch at once is not asked in a tight loop
            return self._pause_s()
        self._failures = 0
        return 0.0

    def _failed(self, err: KubeError) -> float:
        if (
            err.status in (403, 410) or err.reason == "Expired"
        ):  # rights that come back say what happened meanwhile by a list alone
            self._version = ""
        LOG.info(
            "watch interrupted",
            kind=self._resource.kind,
            namespace=self._namespace,
            status=err.status,
            reason=err.reason,
            error=err.message,
        )
        self._on_failed(err)
        return self._pause_s()

    def _pause_s(self) -> float:
        self._failures += 1
        return self._pace.backoff.pause_s(self._failures)

    def _list(self) -> None:
        token, version, keys = "", "", set[Key]()
        while True:
            page = self._api.page(
                self._resource, namespace=self._namespace, limit=self._pace.page, token=token, fields=self._fields
            )
            version = version or str(page["metadata"]["resourceVersion"])
            for item in page.get("items") or []:
                keys.add(self._put(item))
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._store.retain(keys, version=version)
        self._version = version
        self.synced.set()
        self._on_synced()

    def _watch(self) -> int:
        server_s = int(self._pace.watch_s * (0.75 + self._pace.random() / 4)) or 1
        events = self._api.watch(
            self._resource,
            namespace=self._namespace,
            version=self._version,
            fields=self._fields,
            server_s=server_s,
            silence_s=server_s + self._pace.slack_s,
        )
        seen = 0
        for event in events:
            if self._stop.is_set():
                break
            self._take(str(event["type"]), event["object"])
            self._failures = 0
            seen += 1
        return seen

    def _take(self, kind: str, obj: Body) -> None:
        if kind == "ERROR":
            raise error_of(obj)
        if kind == "DELETED":
            self._store.remove(obj)
        elif kind in ("ADDED", "MODIFIED"):
            self._put(obj)
        self._version = version_of(obj) or self._version

    def _put(self, obj: Body) -> Key:
        # Items of a list of a core kind carry neither kind nor apiVersion.
        self._store.put({"apiVersion": self._resource.api_version, "kind": self._resource.kind, **obj})
        return key_of(obj)
