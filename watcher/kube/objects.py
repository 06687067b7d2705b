"""The four kinds as the watcher knows them, and its three ways of writing to them: finalizer on, finalizer off, status.

Each write names the resourceVersion that it was computed from; who wrote in between wins, and the write is computed anew from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from watcher.kube.cache import Cache
from watcher.kube.client import KubeClient, KubeError
from watcher.kube.resources import FINALIZER, Body, Key, Resource, has_finalizer, key_of, uid_of, version_of

TRIES = 6


class Objects:
    """The objects and how they are written. Safe for threads, as one worker at a time has an object.

    Args:
        api: Kubernetes.
        stores: What is known of each kind.
    """

    def __init__(self, api: KubeClient, stores: Mapping[Resource, Cache]) -> None:
        self._api, self._stores = api, stores

    def store(self, resource: Resource) -> Cache:
        """What is known of a kind."""
        return self._stores[resource]

    def get(self, resource: Resource, key: Key) -> Body | None:
        """The newest object known."""
        return self._stores[resource].get(key)

    def read(self, resource: Resource, key: Key) -> Body | None:
        """Read an object from the API server; None where there is none.

        Raises:
            KubeError: It could not be read.
        """
        try:
            return self._stores[resource].put(self._api.get(resource, namespace=key.namespace, name=key.name))
        except KubeError as err:
            if err.status == 404:
                return None
            raise

    def hold(self, resource: Resource, obj: Body) -> Body:
        """Put our finalizer on; answers the object with it.

        Raises:
            KubeError: 404 if it is gone meanwhile.
        """
        return (
            self._write(
                resource, obj, lambda now: None if has_finalizer(now) else self._finalizers(resource, now, on=True)
            )
            or obj
        )

    def let_go(self, resource: Resource, obj: Body) -> None:
        """Take our finalizer off; an object that is gone or was made anew is no error."""
        try:
            self._write(
                resource, obj, lambda now: self._finalizers(resource, now, on=False) if has_finalizer(now) else None
            )
        except KubeError as err:
            if err.status != 404:
                raise

    def write_status(self, resource: Resource, obj: Body, change: Callable[[Body], Body]) -> Body:
        """Write the status that ``change`` makes of the object's, if it differs; answers the object as it is then.

        Raises:
            KubeError: 404 if it is gone meanwhile.
        """
        return self._write(resource, obj, lambda now: self._status(resource, now, change)) or obj

    def _write(self, resource: Resource, obj: Body, write: Callable[[Body], Body | None]) -> Body | None:
        store, key = self._stores[resource], key_of(obj)
        newest = store.get(key)
        now = newest if newest is not None and uid_of(newest) == uid_of(obj) else obj
        for left in range(TRIES, 0, -1):
            try:
                written = write(now)
            except KubeError as err:
                if err.status != 409 or left == 1:
                    raise
                now = self._again(resource, obj)
            else:
                return store.put(written) if written is not None else now
        return None

    def _again(self, resource: Resource, obj: Body) -> Body:
        key = key_of(obj)
        found = self._api.get(resource, namespace=key.namespace, name=key.name)
        if uid_of(found) != uid_of(obj):
            raise KubeError(f"{resource.kind} {key} was made anew", status=404, reason="NotFound")
        return self._stores[resource].put(found)

    def _finalizers(self, resource: Resource, obj: Body, *, on: bool) -> Body:
        others = [name for name in obj["metadata"].get("finalizers") or [] if name != FINALIZER]
        meta = {"resourceVersion": version_of(obj), "finalizers": [*others, FINALIZER] if on else others}
        key = key_of(obj)
        return self._api.patch(resource, {"metadata": meta}, namespace=key.namespace, name=key.name)

    def _status(self, resource: Resource, obj: Body, change: Callable[[Body], Body]) -> Body | None:
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
