"""Which namespaces are served, and what is known of their Secrets.

The watcher has no right to any Secret but where a namespace's owner bound it to the product's ClusterRole; so each namespace with objects of ours
gets an informer of its own, and whether that may list says whether the namespace is served. No value of a Secret stays in memory.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from watcher.api import Api, KubeError
from watcher.credentials import remembered
from watcher.informer import Informer, Pace
from watcher.kinds import SECRET, Body, Key
from watcher.store import Changed, Store

FIELDS = "type!=helm.sh/release.v1"
"""Helm's Secrets are many and large, and no AppBinding names one."""


class Service(enum.Enum):
    """Whether a namespace is served."""

    UNKNOWN = enum.auto()
    SERVED = enum.auto()
    REFUSED = enum.auto()


@dataclass(slots=True)
class _Namespace:
    informer: Informer
    stop: threading.Event = field(default_factory=threading.Event)
    service: Service = Service.UNKNOWN


class Namespaces:
    """The namespaces that have objects of ours. Safe for threads.

    Args:
        api: Kubernetes.
        pace: Timing of the informers.
        on_secret: Told of each change of a Secret.
        on_service: Told of a namespace whose service became known or changed.
        start: Runs an informer in a thread until its event is set.
    """

    def __init__(
        self,
        api: Api,
        *,
        pace: Pace,
        on_secret: Changed,
        on_service: Callable[[str, Service], None],
        start: Callable[[Informer, threading.Event], None],
    ) -> None:
        self._api, self._pace, self._start, self._on_service = api, pace, start, on_service
        self._secrets = Store(keep=remembered, on_change=on_secret)
        self._known: dict[str, _Namespace] = {}
        self._lock = threading.Lock()

    def want(self, namespace: str) -> None:
        """Begin to look after a namespace."""
        with self._lock:
            if namespace in self._known:
                return
            known = self._known[namespace] = _Namespace(self._informer(namespace))
        self._start(known.informer, known.stop)

    def leave(self, namespace: str) -> None:
        """Look after a namespace no longer."""
        with self._lock:
            known = self._known.pop(namespace, None)
        if known:
            known.stop.set()

    def close(self) -> None:
        """Look after none."""
        for namespace in list(self._known):
            self.leave(namespace)

    def service(self, namespace: str) -> Service:
        """Whether a namespace is served, as far as is known."""
        known = self._known.get(namespace)
        return known.service if known else Service.UNKNOWN

    def secret(self, key: Key) -> Body | None:
        """What is remembered of a Secret; None where there is none, or its namespace is not served."""
        return self._secrets.get(key)

    def wrote(self, secret: Body) -> None:
        """Take a Secret that was just written."""
        self._secrets.put(secret)

    def removed(self, secret: Body) -> None:
        """Forget a Secret that was just deleted."""
        self._secrets.remove(secret)

    def __iter__(self) -> object:
        return iter(list(self._known))

    def _informer(self, namespace: str) -> Informer:
        # The store is shared, so a complete list of one namespace must not forget the Secrets of the others.
        scoped = _Scoped(self._secrets, namespace)
        return Informer(
            self._api,
            SECRET,
            scoped,
            pace=self._pace,
            namespace=namespace,
            fields=FIELDS,
            on_synced=lambda: self._set(namespace, Service.SERVED),
            on_failed=lambda err: self._failed(namespace, err),
        )

    def _failed(self, namespace: str, err: KubeError) -> None:
        if err.status == 403:
            self._set(namespace, Service.REFUSED)

    def _set(self, namespace: str, service: Service) -> None:
        known = self._known.get(namespace)
        if known and known.service is not service:
            known.service = service
            self._on_service(namespace, service)
