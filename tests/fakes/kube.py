"""A Kubernetes API server in memory, as far as the watcher uses one, for unit tests, which have no sockets.

It has resourceVersions, generations, finalizers, deletion and garbage collection.
``tests/integration/test_watcher_api.py`` runs the same cases against it and a real one.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from watcher.kube.client import KubeError
from watcher.kube.resources import (
    EVENT,
    SELF_SUBJECT_REVIEW,
    SERVICE_ACCOUNT,
    Body,
    Key,
    Resource,
    key_of,
    uid_of,
    version_of,
)

Listener = Callable[[str, Resource, Body], None]


class FakeKube:
    """The API in memory. Safe for threads.

    Attributes:
        refused: Namespaces in which the watcher has no right to Secrets, Roles, RoleBindings and tokens.
        terminating: Namespaces in which nothing can be created.
        fail: Called with method, resource and name before each call; the call raises what it raises.
        calls: Each call as "METHOD plural namespace/name".
        user: Who the watcher is.
        accepts_trials: Whether dry runs are accepted; the policies of a release refuse those that the watcher makes.
    """

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.terminating: set[str] = set()
        self.fail: Callable[[str, Resource, str], None] = lambda _method, _resource, _name: None
        self.calls: list[str] = []
        self.user, self.accepts_trials = "system:serviceaccount:leasegate-system:leasegate-watcher", False
        self.listeners: list[Listener] = []
        self._objects: dict[tuple[Resource, Key], Body] = {}
        self._events: list[tuple[int, str, Resource, Body]] = []
        self._version = itertools.count(1)
        self._uid = itertools.count(1)
        self._changed = threading.Condition(threading.RLock())

    # -- what the watcher calls

    def page(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        limit: int = 500,
        token: str = "",
        fields: str = "",
        labels: str = "",
    ) -> Body:
        self._begin("LIST", resource, namespace, "")
        with self._changed:
            there = [o for (r, k), o in self._objects.items() if r == resource and namespace in ("", k.namespace)]
            items = [copy.deepcopy(o) for o in there if _has_labels(o, labels)]
            return {"metadata": {"resourceVersion": str(next(self._version))}, "items": items}

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        version: str,
        fields: str = "",
        server_s: int,
        silence_s: float,
    ) -> Iterator[Body]:
        self._begin("WATCH", resource, namespace, "")
        with self._changed:
            found = [
                e
                for e in self._events
                if e[0] > int(version) and e[2] == resource and namespace in ("", key_of(e[3]).namespace)
            ]
        for _, kind, _, obj in found:
            yield {"type": kind, "object": copy.deepcopy(obj)}

    def get(self, resource: Resource, *, namespace: str = "", name: str) -> Body:
        self._begin("GET", resource, namespace, name)
        with self._changed:
            return copy.deepcopy(self._find(resource, Key(namespace, name)))

    def create(
        self,
        resource: Resource,
        body: Body,
        *,
        namespace: str,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Body:
        self._begin("POST", resource, namespace, name or body["metadata"]["name"])
        if resource is SELF_SUBJECT_REVIEW:
            return {"status": {"userInfo": {"username": self.user}}}
        if dry_run:
            return self._try(body)
        if namespace in self.terminating:
            raise KubeError(
                f"forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                status=403,
                reason="Forbidden",
                causes=("NamespaceTerminating",),
            )
        if subresource == "token":
            return self._token(Key(namespace, name))
        with self._changed:
            return copy.deepcopy(self.put(resource, body, namespace=namespace))

    def replace(self, resource: Resource, body: Body, *, subresource: str = "", dry_run: bool = False) -> Body:
        self._begin(
            "PUT",
            resource,
            body["metadata"]["namespace"],
            body["metadata"]["name"] + (f"/{subresource}" if subresource else ""),
        )
        if dry_run:
            return self._try(body)
        with self._changed:
            old = self._find(resource, key_of(body))
            self._check(old, body["metadata"])
            new = copy.deepcopy(old)
            for name, value in copy.deepcopy(body).items():
                if (name == "status") == (subresource == "status") and name not in ("apiVersion", "kind", "metadata"):
                    new[name] = value
            if not subresource:
                new["metadata"] |= {
                    k: copy.deepcopy(body["metadata"][k])
                    for k in ("annotations", "labels", "ownerReferences")
                    if k in body["metadata"]
                }
            return copy.deepcopy(self._store(resource, old, new))

    def patch(self, resource: Resource, body: Body, *, namespace: str, name: str, dry_run: bool = False) -> Body:
        self._begin("PATCH", resource, namespace, name)
        if dry_run:
            return self._try(body)
        with self._changed:
            old = self._find(resource, Key(namespace, name))
            self._check(old, body.get("metadata", {}))
            new = _merge(
                old,
                {
                    **body,
                    "metadata": {
                        k: v for k, v in body.get("metadata", {}).items() if k not in ("resourceVersion", "uid")
                    },
                },
            )
            return copy.deepcopy(self._store(resource, old, new))

    def delete(self, resource: Resource, *, namespace: str, name: str, uid: str = "", version: str = "") -> None:
        self._begin("DELETE", resource, namespace, name)
        with self._changed:
            old = self._find(resource, Key(namespace, name))
            if uid and uid != uid_of(old):
                raise KubeError("the uid is another one", status=409, reason="Conflict")
            if version and version != version_of(old):
                raise KubeError("the resourceVersion is another one", status=409, reason="Conflict")
            new = copy.deepcopy(old)
            new["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            self._store(resource, old, new)

    # -- what tests and other users do

    def put(self, resource: Resource, body: Body, *, namespace: str = "") -> Body:
        """Create as another user would, without the watcher's limits."""
        key = Key(namespace or body["metadata"].get("namespace", ""), body["metadata"]["name"])
        with self._changed:
            if (resource, key) in self._objects:
                raise KubeError(f"{resource.plural} {key.name} already exists", status=409, reason="AlreadyExists")
            new = copy.deepcopy(body) | {"apiVersion": resource.api_version, "kind": resource.kind}
            new["metadata"] |= {"namespace": key.namespace, "uid": f"uid-{next(self._uid)}", "generation": 0}
            return self._store(resource, None, new)

    def edit(self, resource: Resource, name: str, change: Callable[[Body], None]) -> Body:
        """Change an object as another user would; ``name`` is namespace/name."""
        with self._changed:
            old = self._find(resource, _key(name))
            new = copy.deepcopy(old)
            change(new)
            return self._store(resource, old, new)

    def see(self, resource: Resource, name: str) -> Body | None:
        """An object; ``name`` is namespace/name."""
        with self._changed:
            return copy.deepcopy(self._objects.get((resource, _key(name))))

    def all(self, resource: Resource) -> list[Body]:
        """All objects of a kind."""
        with self._changed:
            return [copy.deepcopy(obj) for (r, _), obj in self._objects.items() if r == resource]

    def events(self, about: str = "") -> list[str]:
        """Events as "TYPE REASON: MESSAGE", all or those about one name."""
        found = [e for e in self.all(EVENT) if about in ("", e["involvedObject"]["name"])]
        return [f"{e['type']} {e['reason']}: {e['message']}" for e in found]

    def vanish(self, resource: Resource, name: str) -> None:
        """Remove an object as a restored etcd would: without a deletion that a watch shows."""
        with self._changed:
            del self._objects[resource, _key(name)]

    # -- how it works

    def _begin(self, method: str, resource: Resource, namespace: str, name: str) -> None:
        self.calls.append(f"{method} {resource.plural} {namespace}/{name}")
        self.fail(method, resource, name)
        guarded = ("secrets", "roles", "rolebindings", "serviceaccounts")
        if resource.plural in guarded and namespace in self.refused and method != "DELETE":
            raise KubeError(f"{resource.plural} is forbidden", status=403, reason="Forbidden")

    def _try(self, body: Body) -> Body:
        if self.accepts_trials:
            return body
        raise KubeError("ValidatingAdmissionPolicy 'leasegate-x' denied request: no", status=422, reason="Invalid")

    def _find(self, resource: Resource, key: Key) -> Body:
        found = self._objects.get((resource, key))
        if found is None:
            raise KubeError(f'{resource.plural} "{key.name}" not found', status=404, reason="NotFound")
        return found

    def _check(self, old: Body, meta: Body) -> None:
        if meta.get("resourceVersion") not in (None, "", version_of(old)) or meta.get("uid") not in (
            None,
            "",
            uid_of(old),
        ):
            raise KubeError("the object has been modified", status=409, reason="Conflict")

    def _store(self, resource: Resource, old: Body | None, new: Body) -> Body:
        key = key_of(new)
        if old is not None and old == new:
            return old
        if old is None or old.get("spec") != new.get("spec") or _deleting(old) != _deleting(new):
            new["metadata"]["generation"] = int(new["metadata"].get("generation", 0)) + 1
        number = next(self._version)
        new["metadata"]["resourceVersion"] = str(number)
        if _deleting(new) and not new["metadata"].get("finalizers"):
            self._objects.pop((resource, key), None)
            self._tell(number, "DELETED", resource, new)
            self._collect(uid_of(new))
        else:
            self._objects[resource, key] = new
            self._tell(number, "MODIFIED" if old else "ADDED", resource, new)
        return new

    def _tell(self, number: int, kind: str, resource: Resource, obj: Body) -> None:
        self._events.append((number, kind, resource, copy.deepcopy(obj)))
        for listener in self.listeners:
            listener(kind, resource, copy.deepcopy(obj))

    def _collect(self, owner: str) -> None:
        for (resource, _), obj in list(self._objects.items()):
            if any(ref.get("uid") == owner for ref in obj["metadata"].get("ownerReferences") or []):
                gone = copy.deepcopy(obj)
                gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self._store(resource, obj, gone)

    def _token(self, account: Key) -> Body:
        with self._changed:
            self._find(SERVICE_ACCOUNT, account)
            number = next(self._version)
        return {"spec": {"expirationSeconds": 600}, "status": {"token": f"jwt-{account.name}-{number}"}}


def _has_labels(obj: Body, selector: str) -> bool:
    wanted = dict(each.split("=", 1) for each in selector.split(",") if each)
    return wanted.items() <= (obj["metadata"].get("labels") or {}).items()


def _deleting(obj: Body) -> Any:
    return obj["metadata"].get("deletionTimestamp")


def _key(name: str) -> Key:
    namespace, _, plain = name.rpartition("/")
    return Key(namespace, plain)


def _merge(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
