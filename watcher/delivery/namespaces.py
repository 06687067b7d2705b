"""Which namespaces are served, and what is known of their Secrets.

The watcher has no right to any Secret but where a namespace's owner bound it to the product's ClusterRole; so each namespace with
objects of ours gets an informer of its own, and whether that may list says whether the namespace is served. No value of a Secret stays
in memory.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from watcher.delivery.manifests import remembered
from watcher.kube.cache import Cache, ChangeHandler
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.resources import SECRET, Body, Key, key_of

FIELDS = "type!=helm.sh/release.v1"
"""Helm's Secrets are many and large, and no AppBinding names one."""


class Enablement(enum.Enum):
    """Whether a namespace is served."""

    UNKNOWN = enum.auto()
    SERVED = enum.auto()
    REFUSED = enum.auto()


@dataclass(slots=True)
class _Namespace:
    informer: Informer
    secrets: Cache
    stop: threading.Event = field(default_factory=threading.Event)
    service: Enablement = Enablement.UNKNOWN


class Namespaces:
    """The namespaces that have objects of ours. Safe for threads.

    Args:
        api: Kubernetes.
        pace: Timing of the informers.
        on_secret: Told of each change of a Secret.
        on_service: Told of a namespace that is refused, or served again after it was.
        on_served: Told of each namespace that begins to be served.
        start: Runs an informer in a thread until its event is set.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        pace: InformerTiming,
        on_secret: ChangeHandler,
        on_service: Callable[[str], None],
        on_served: Callable[[str], None],
        start: Callable[[Informer, threading.Event], None],
    ) -> None:
        self._api, self._pace, self._start = api, pace, start
        self._on_secret, self._on_service, self._on_served = on_secret, on_service, on_served
        self._known: dict[str, _Namespace] = {}
        self._writing: set[tuple[Key, int]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def want(self, namespace: str) -> None:
        """Begin to look after a namespace."""
        with self._lock:
            if self._closed or namespace in self._known:
                return
            known = self._known[namespace] = self._new(namespace)
        self._start(known.informer, known.stop)

    def leave(self, namespace: str) -> None:
        """Look after a namespace no longer."""
        with self._lock:
            known = self._known.pop(namespace, None)
        if known:
            known.stop.set()

    def close(self) -> None:
        """Look after none any more."""
        with self._lock:
            self._closed = True
        for namespace in list(self._known):
            self.leave(namespace)

    def service(self, namespace: str) -> Enablement:
        """Whether a namespace is served, as far as is known."""
        known = self._known.get(namespace)
        return known.service if known else Enablement.UNKNOWN

    def secret(self, key: Key) -> Body | None:
        """What is remembered of a Secret; None where there is none, or its namespace is not served."""
        known = self._known.get(key.namespace)
        return known.secrets.get(key) if known else None

    @contextmanager
    def writing(self, key: Key, attempt: int) -> Iterator[None]:
        """Say that a Secret is being written with the credentials of an attempt: the watch may show it before the write
        is answered.
        """
        self._writing.add((key, attempt))
        try:
            yield
        finally:
            self._writing.discard((key, attempt))

    def is_own_write(self, secret: Body) -> bool:
        """Whether a change of a Secret is what is being written right now."""
        return (key_of(secret), int(secret.get("secret_attempt", 0))) in self._writing

    def wrote(self, secret: Body) -> None:
        """Take a Secret that was just written, so that nobody acts on an older one."""
        if known := self._known.get(key_of(secret).namespace):
            known.secrets.put(secret, notify=False)

    def names(self) -> list[str]:
        """The namespaces that are looked after."""
        return list(self._known)

    def _new(self, namespace: str) -> _Namespace:
        store = Cache(transform=remembered, on_change=self._on_secret)
        informer = Informer(
            self._api,
            SECRET,
            store,
            pace=self._pace,
            namespace=namespace,
            fields=FIELDS,
            on_synced=lambda: self._set(namespace, Enablement.SERVED, store),
            on_failed=lambda err: self._failed(namespace, err, store),
        )
        return _Namespace(informer, store)

    def _failed(self, namespace: str, err: KubeError, store: Cache) -> None:
        if err.status == 403:
            self._set(namespace, Enablement.REFUSED, store)

    def _set(self, namespace: str, service: Enablement, store: Cache) -> None:
        """Note what an informer found, unless the namespace has another one by now, with a store of its own."""
        known = self._known.get(namespace)
        if known is None or known.secrets is not store or known.service is service:
            return
        before, known.service = known.service, service
        if Enablement.REFUSED in (before, service):
            self._on_service(namespace)
        if service is Enablement.SERVED:
            self._on_served(namespace)
