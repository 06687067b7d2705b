"""Reads objects from the caches and writes their finalizer and status.

Each write names the resourceVersion that it was computed from. When another writer was faster, the write is computed
again from the newer object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import Body, Key, Resource, has_finalizer, key_of, uid_of, version_of
from watcher.kube.result import PendingError, namespace_not_enabled

TRIES = 6
"""So often a write is computed again after a conflict."""
NOT_ENABLED = "is not enabled, so Leasegate's watcher adds no finalizer there"
"""What the policy leasegate-watcher-limits says of a finalizer in a namespace that is not enabled."""


class Objects:
    """The objects of several kinds. Safe for threads, as long as one worker at a time has an object.

    Args:
        api: Kubernetes.
        caches: The cache of each kind.
        finalizer: Name of the finalizer that ``add_finalizer`` and ``remove_finalizer`` write.
        check_namespace: Raises PendingError for a namespace in which no finalizer is added.
    """

    def __init__(
        self,
        api: KubeClient,
        caches: Mapping[Resource, Cache],
        *,
        finalizer: str,
        check_namespace: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api, self._caches, self._finalizer = api, caches, finalizer
        self._check_namespace = check_namespace

    def cache(self, resource: Resource) -> Cache:
        """The cache of a kind."""
        return self._caches[resource]

    def get(self, resource: Resource, key: Key) -> Body | None:
        """The newest object that the cache has."""
        return self._caches[resource].get(key)

    def read_object(self, resource: Resource, key: Key) -> Body | None:
        """Read an object from the API server; None where there is none.

        Raises:
            KubeError: It could not be read.
        """
        try:
            return self._caches[resource].put(self._api.get(resource, namespace=key.namespace, name=key.name))
        except KubeError as err:
            if err.status == 404:
                return None
            raise

    def add_finalizer(self, resource: Resource, obj: Body) -> Body:
        """Add the finalizer; returns the object with it.

        Raises:
            PendingError: Its namespace is not enabled, or that is not known yet; or an admission policy refuses it.
            KubeError: 404 if the object was deleted meanwhile.
        """
        if not has_finalizer(obj, self._finalizer):
            self._check_namespace(key_of(obj).namespace)

        def write(now: Body) -> Body | None:
            if has_finalizer(now, self._finalizer):
                return None
            return self._patch_finalizers(resource, now, present=True)

        try:
            return self._write(resource, obj, write) or obj
        except KubeError as err:
            if err.status == 422 and NOT_ENABLED in err.message:
                raise namespace_not_enabled(key_of(obj).namespace) from err
            if err.is_policy_refusal:
                text = f"Kubernetes refused the finalizer {self._finalizer}: {err.message}"
                raise PendingError(text, reason="FinalizerRefused") from err
            raise

    def remove_finalizer(self, resource: Resource, obj: Body) -> None:
        """Remove the finalizer; an object that was deleted, or created again, is no error."""

        def write(now: Body) -> Body | None:
            if not has_finalizer(now, self._finalizer):
                return None
            return self._patch_finalizers(resource, now, present=False)

        try:
            self._write(resource, obj, write)
        except KubeError as err:
            if err.status != 404:
                raise

    def write_status(self, resource: Resource, obj: Body, change: Callable[[Body], Body]) -> Body:
        """Write the status that ``change`` makes of the present one, if it differs; returns the object with it.

        Raises:
            KubeError: 404 if the object was deleted meanwhile.
        """
        return self._write(resource, obj, lambda now: self._replace_status(resource, now, change)) or obj

    def _write(self, resource: Resource, obj: Body, write: Callable[[Body], Body | None]) -> Body | None:
        cache, key = self._caches[resource], key_of(obj)
        newest = cache.get(key)
        now = newest if newest is not None and uid_of(newest) == uid_of(obj) else obj
        for left in range(TRIES, 0, -1):
            try:
                written = write(now)
            except KubeError as err:
                if err.status != 409 or left == 1:
                    raise
                now = self._reread(resource, obj)
            else:
                return cache.put(written) if written is not None else now
        return None

    def _reread(self, resource: Resource, obj: Body) -> Body:
        key = key_of(obj)
        found = self._api.get(resource, namespace=key.namespace, name=key.name)
        if uid_of(found) != uid_of(obj):
            raise KubeError(f"{resource.kind} {key} was created again", status=404, reason="NotFound")
        return self._caches[resource].put(found)

    def _patch_finalizers(self, resource: Resource, obj: Body, *, present: bool) -> Body:
        others = [name for name in obj["metadata"].get("finalizers") or [] if name != self._finalizer]
        finalizers = [*others, self._finalizer] if present else others
        meta = {"resourceVersion": version_of(obj), "finalizers": finalizers}
        key = key_of(obj)
        return self._api.patch(resource, {"metadata": meta}, namespace=key.namespace, name=key.name)

    def _replace_status(self, resource: Resource, obj: Body, change: Callable[[Body], Body]) -> Body | None:
        old = obj.get("status") or {}
        new = change(old)
        if new == old:
            return None
        meta = {name: obj["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
        body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": meta,
            "spec": obj.get("spec"),
            "status": new,
        }
        return self._api.replace(resource, body, subresource="status")
