"""Which namespaces are enabled, and the cached metadata of their Secrets.

The watcher has rights on Secrets only where a namespace's owner applied the RoleBinding to its ClusterRole. So each
namespace that has objects of Leasegate's kinds gets an informer of its own, and whether that informer may list the
Secrets says whether the namespace is enabled. No value of a Secret stays in memory.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from watcher.delivery.manifests import without_values
from watcher.kube.cache import Cache, ChangeHandler
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.resources import SECRET, Body, Key, key_of
from watcher.kube.result import PendingError, namespace_not_enabled

FIELDS = "type!=helm.sh/release.v1"
"""Helm's Secrets are many and large, and no AppBinding names one."""

LISTED_AFTER_S = 0.05
"""How soon a key comes back whose namespace was just found, so that its Secrets are not listed yet."""


class Enablement(enum.Enum):
    """Whether a namespace is enabled."""

    UNKNOWN = enum.auto()
    ENABLED = enum.auto()
    REFUSED = enum.auto()


@dataclass(slots=True)
class _Namespace:
    informer: Informer
    secrets: Cache
    stop: threading.Event = field(default_factory=threading.Event)
    enablement: Enablement = Enablement.UNKNOWN


class Namespaces:
    """The namespaces that have objects of Leasegate's kinds. Safe for threads.

    Args:
        api: Kubernetes.
        timing: Timing of the informers.
        on_secret: Called after each change of a Secret.
        on_enablement: Called with a namespace that is refused, or that is enabled after it was refused.
        on_enabled: Called with each namespace whose Secrets are listed for the first time, or again after a refusal.
        start: Runs an informer in a thread until its event is set.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        timing: InformerTiming,
        on_secret: ChangeHandler,
        on_enablement: Callable[[str], None],
        on_enabled: Callable[[str], None],
        start: Callable[[Informer, threading.Event], None],
    ) -> None:
        self._api, self._timing, self._start = api, timing, start
        self._on_secret, self._on_enablement, self._on_enabled = on_secret, on_enablement, on_enabled
        self._watched: dict[str, _Namespace] = {}
        self._closed = False
        self._lock = threading.Lock()

    def watch_namespace(self, namespace: str) -> None:
        """Start the informer of a namespace, unless it runs."""
        with self._lock:
            if self._closed or namespace in self._watched:
                return
            watched = self._watched[namespace] = self._new(namespace)
        self._start(watched.informer, watched.stop)

    def unwatch_namespace(self, namespace: str) -> None:
        """Stop the informer of a namespace and drop its cache."""
        with self._lock:
            watched = self._watched.pop(namespace, None)
        if watched:
            watched.stop.set()

    def close(self) -> None:
        """Stop all informers."""
        with self._lock:
            self._closed = True
        for namespace in self.watched():
            self.unwatch_namespace(namespace)

    def watched(self) -> list[str]:
        """The namespaces whose informers run."""
        return list(self._watched)

    def enablement(self, namespace: str) -> Enablement:
        """Whether a namespace is enabled, as far as its informer has found out."""
        watched = self._watched.get(namespace)
        return watched.enablement if watched else Enablement.UNKNOWN

    def check_enabled(self, namespace: str) -> None:
        """Check that the watcher may list the Secrets of a namespace, which is watched from now on.

        Raises:
            PendingError: It may not, or its informer has not found out yet.
        """
        self.watch_namespace(namespace)
        found = self.enablement(namespace)
        if found is Enablement.REFUSED:
            raise namespace_not_enabled(namespace)
        if found is Enablement.UNKNOWN:
            raise PendingError(
                f"The Secrets of namespace {namespace} are not listed yet",
                reason="Starting",
                requeue_after_s=LISTED_AFTER_S,
                is_passing=True,
            )

    def get_secret(self, key: Key) -> Body | None:
        """The cached metadata of a Secret; None where there is none, or its namespace is not enabled."""
        watched = self._watched.get(key.namespace)
        return watched.secrets.get(key) if watched else None

    def put_secret(self, secret: Body) -> None:
        """Put a Secret that was just written into the cache, so that nothing acts on an older one."""
        if watched := self._watched.get(key_of(secret).namespace):
            watched.secrets.put(secret, notify=False)

    def _new(self, namespace: str) -> _Namespace:
        cache = Cache(transform=without_values, on_change=self._on_secret)
        informer = Informer(
            self._api,
            SECRET,
            cache,
            timing=self._timing,
            namespace=namespace,
            fields=FIELDS,
            on_synced=lambda: self._set_enablement(namespace, Enablement.ENABLED, cache),
            on_failed=lambda err: self._check_refusal(namespace, err, cache),
        )
        return _Namespace(informer, cache)

    def _check_refusal(self, namespace: str, err: KubeError, cache: Cache) -> None:
        if err.status == 403:
            self._set_enablement(namespace, Enablement.REFUSED, cache)

    def _set_enablement(self, namespace: str, enablement: Enablement, cache: Cache) -> None:
        """Keep what an informer found, unless the namespace has a newer informer, with a cache of its own."""
        watched = self._watched.get(namespace)
        if watched is None or watched.secrets is not cache or watched.enablement is enablement:
            return
        before, watched.enablement = watched.enablement, enablement
        if Enablement.REFUSED in (before, enablement):
            self._on_enablement(namespace)
        if enablement is Enablement.ENABLED:
            self._on_enabled(namespace)
