"""Translates changes to keys in the work queues: which change makes which object due for a reconcile.

A change comes from a watch (objects, Secrets, namespaces) or from access' change feed. Only keys are queued; the worker
reads the newest object. The watcher's own writes (status, finalizer) queue nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from leasegate.types.v1 import types_pb2
from watcher.delivery.manifests import access_request_name
from watcher.delivery.namespaces import Namespaces
from watcher.kube.cache import ChangeHandler
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, Resource, has_finalizer, is_deleting, key_of, uid_of
from watcher.kube.workqueue import Priority, WorkQueue
from watcher.reconcilers.access_request import AccessRequestReconciler
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.cleanup_role import CleanupRoleChange, CleanupRoleReconciler
from watcher.reconcilers.postgres_role import PostgresRoleReconciler
from watcher.reconcilers.secret_engine import provided_connection
from watcher.specs.cluster import Cluster
from watcher.specs.consent import allow_from
from watcher.specs.indexes import BY_APP_BINDING, BY_DB_ROLE, BY_MOUNT, BY_SECRET, used_app_bindings
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.references import mount_of
from watcher.specs.status import RequestStatus, decision_conditions

QUEUES = {
    APP_BINDING: "appbindings",
    SECRET_ENGINE: "secret_engines",
    POSTGRES_ROLE: "postgres_roles",
    ACCESS_REQUEST: "access_requests",
}
"""Name of the work queue of each kind."""

MANY = 20
"""So many access requests that change at once go after what one person waits for."""

_NO_SECRET = -1


class Triggers:
    """Queues the keys that a change concerns. Safe for threads.

    Args:
        queues: The work queues by name.
        cluster: Whose objects access' change feed may name.
    """

    def __init__(self, queues: Mapping[str, WorkQueue[Any]], cluster: Cluster) -> None:
        self._queues, self._cluster = queues, cluster
        # Changes before everything is listed are not followed: ``start`` queues all objects.
        self._started = threading.Event()

    def connect(
        self,
        *,
        objects: Objects,
        namespaces: Namespaces,
        app_bindings: AppBindingReconciler,
        access_requests: AccessRequestReconciler,
        postgres_roles: PostgresRoleReconciler,
        cleanup_roles: CleanupRoleReconciler,
    ) -> None:
        """Take what changes are looked up in; has to precede the first change."""
        self._objects, self._namespaces = objects, namespaces
        self._app_bindings, self._access_requests = app_bindings, access_requests
        self._postgres_roles, self._cleanup_roles = postgres_roles, cleanup_roles

    def start(self) -> None:
        """Queue all objects once everything is listed, and follow changes from now on."""
        self._started.set()
        self.enqueue_all()

    def enqueue_all(self) -> None:
        """Queue every object and the audit of every namespace, with low priority for requests with a credential."""
        for resource in QUEUES:
            for obj in self._objects.cache(resource):
                self._enqueue_object(resource, key_of(obj), _low_if(_has_credential(obj)))
        self._enqueue_audits()

    def resync(self, steps: int) -> Iterator[None]:
        """Queue every object once with low priority, a part of them after each of so many steps.

        An object that is created meanwhile may have to wait for the next resync.
        """
        size = -(-sum(len(self._objects.cache(resource)) for resource in QUEUES) // steps)
        known = ((resource, key) for resource in QUEUES for key in self._objects.cache(resource).list_keys())
        for _ in range(steps):
            yield
            for resource, key in itertools.islice(known, size):
                if self._objects.get(resource, key):
                    self._enqueue_object(resource, key, Priority.RESYNC)
        self._enqueue_audits()

    # -- changes of objects

    def on_change(self, resource: Resource) -> ChangeHandler:
        """The handler for changes of a kind's objects; an object of another uid counts as deleted and created."""
        handler: Callable[[Body | None, Body | None], None] = {
            APP_BINDING: self._on_app_binding_change,
            SECRET_ENGINE: self._on_engine_change,
            POSTGRES_ROLE: self._on_postgres_role_change,
            ACCESS_REQUEST: self._on_access_request_change,
        }[resource]

        def on_change(old: Body | None, new: Body | None) -> None:
            if not self._started.is_set():
                return
            if old is not None and new is not None and uid_of(old) != uid_of(new):
                handler(old, None)
                old = None
            handler(old, new)

        return on_change

    def _on_app_binding_change(self, old: Body | None, new: Body | None) -> None:
        if old is not None and new is not None and not _needs_reconcile(old, new):
            return
        key = key_of(new or old or {})
        if new is None:
            self._follow_namespace(old, None)
        self._queues["appbindings"].add(key)
        if old is None or new is None or _differ(old, new):
            self._enqueue_users(key)

    def _on_engine_change(self, old: Body | None, new: Body | None) -> None:
        present = [obj for obj in (old, new) if obj is not None]
        mounts = {mount_of(obj) for obj in present}
        self._follow_namespace(old, new)
        if old is None or new is None or _needs_reconcile(old, new):
            self._queues["secret_engines"].add(key_of(present[-1]))
            self._enqueue_app_bindings(present)
            # Another SecretEngine of the mount may have been refused because of this one.
            self._enqueue("secret_engines", self._by_mount(SECRET_ENGINE, mounts) - {key_of(obj) for obj in present})
        if old is None or new is None or provided_connection(old) != provided_connection(new):
            self._enqueue("postgres_roles", self._by_mount(POSTGRES_ROLE, mounts))

    def _on_postgres_role_change(self, old: Body | None, new: Body | None) -> None:
        self._follow_namespace(old, new)
        if old is None or new is None or _needs_reconcile(old, new):
            self._queues["postgres_roles"].add(key_of(new or old or {}))
            self._enqueue_app_bindings([obj for obj in (old, new) if obj is not None])

    def _on_access_request_change(self, old: Body | None, new: Body | None) -> None:
        self._follow_namespace(old, new)
        if new is None and old is not None:
            self._access_requests.note_deleted(old)
        if (
            old is None
            or new is None
            or _needs_reconcile(old, new)
            or decision_conditions(old) != decision_conditions(new)
        ):
            self._queues["access_requests"].add(key_of(new or old or {}))

    def _follow_namespace(self, old: Body | None, new: Body | None) -> None:
        """Watch the Secrets of a namespace as long as it has objects."""
        if new is not None:
            self._namespaces.watch_namespace(key_of(new).namespace)
        elif old is not None and not self._has_objects(key_of(old).namespace):
            self._namespaces.unwatch_namespace(key_of(old).namespace)

    def _has_objects(self, namespace: str) -> bool:
        return any(self._objects.cache(resource).count(namespace) for resource in QUEUES)

    # -- changes of Secrets and namespaces

    def on_secret_change(self, old: Body | None, new: Body | None) -> None:
        """Queue the access request whose Secret this is, or the AppBindings that read it and their users."""
        secret = new or old
        if secret is None or not self._started.is_set():
            return
        owners = {name for body in (old, new) if body for name in _owning_requests(body)}
        if owners:
            if _attempt(old) != _attempt(new):
                for name in owners:
                    self._enqueue_owner(Key(key_of(secret).namespace, name), secret_attempt=_attempt(new))
            return
        if old is not None and new is not None and old["metadata"] == new["metadata"]:
            return
        for binding in self._objects.cache(APP_BINDING).by_index(BY_SECRET, key_of(secret)):
            self._queues["appbindings"].add(key_of(binding))
            self._enqueue_users(key_of(binding))
        if new is None:  # its name may have been taken from an access request
            key = Key(key_of(secret).namespace, access_request_name(key_of(secret).name))
            if self._objects.get(ACCESS_REQUEST, key):
                self._queues["access_requests"].add(key)

    def _enqueue_owner(self, key: Key, *, secret_attempt: int) -> None:
        """Queue the access request of a Secret, unless its deletion has removed the Secret."""
        obj = self._objects.get(ACCESS_REQUEST, key)
        if secret_attempt == _NO_SECRET and obj is not None and is_deleting(obj):
            return
        self._queues["access_requests"].add(key, _low_if(self._is_reported(key, secret_attempt)))

    def _is_reported(self, key: Key, secret_attempt: int) -> bool:
        """Whether a request's status names the attempt in its Secret already, as nearly all do when first listed."""
        obj = self._objects.get(ACCESS_REQUEST, key) if secret_attempt else None
        return obj is not None and RequestStatus.from_object(obj).attempt == secret_attempt

    def on_enablement_change(self, namespace: str) -> None:
        """Queue everything in a namespace that is enabled now, or no more."""
        for resource, queue in QUEUES.items():
            self._enqueue(queue, self._objects.cache(resource).list_keys(namespace))
        for binding in self._objects.cache(APP_BINDING).all(namespace):
            self._enqueue_users(key_of(binding))

    def on_namespace_enabled(self, namespace: str) -> None:
        """Queue the audit of a namespace whose Secrets are listed now."""
        self._queues["rbac_audit"].add(namespace)

    # -- what one reconcile means for other objects

    def on_mount_change(self, engine: Key, mount: str) -> None:
        """Queue what else uses a mount whose owners, or whose sharing with other namespaces, a SecretEngine changed."""
        self._enqueue("secret_engines", self._by_mount(SECRET_ENGINE, [mount]) - {engine})
        self._enqueue("postgres_roles", self._by_mount(POSTGRES_ROLE, [mount]))

    def on_catalog_change(self, db_role: Key) -> None:
        """Queue the access requests of a db_role that is granted otherwise now, or removed; many with low priority."""
        keys = self._objects.cache(ACCESS_REQUEST).keys_by_index(BY_DB_ROLE, db_role)
        for key in keys:
            self._queues["access_requests"].add(key, _low_if(len(keys) > MANY))

    def on_roles_paused(self, mount: str) -> None:
        """Queue the PostgresRoles of a mount, each of which needs another snapshot in access' catalog."""
        self._enqueue("postgres_roles", self._by_mount(POSTGRES_ROLE, [mount]))

    def on_rbac_drift(self, access_request: Key) -> None:
        """Queue an access request whose Role or RoleBinding was changed or removed."""
        self._queues["access_requests"].add(access_request, Priority.RESYNC)

    # -- access' change feed

    def on_access_change(self, ref: types_pb2.ObjectRef) -> None:
        """Queue an access request that changed in access."""
        if not ref.namespace or not self._cluster.is_of(ref):
            return
        key = self._access_requests.note_open_access(ref)
        known = self._objects.get(ACCESS_REQUEST, key)
        # Most changes follow from a call of the watcher itself: the effect of a decision goes before them.
        self._queues["access_requests"].add(key, _low_if(known is not None and not is_deleting(known)))

    def on_cleanup_role_change(self, change: CleanupRoleChange) -> None:
        """Queue a cleanup role that access needs, or needs no more."""
        self._queues["cleanup_roles"].add(self._cleanup_roles.add_change(change))

    def on_auth_needed(self, ref: types_pb2.VaultTargetRef) -> None:
        """Queue the AppBinding of a Vault that access has no session for."""
        key = Key(ref.namespace, ref.name)
        self._app_bindings.require_fresh_auth(key)
        self._queues["appbindings"].add(key)

    def on_access_restarted(self) -> None:
        """Send access all targets, db_roles and requests again, and close what it has open without an object."""
        self._app_bindings.forget_registrations()
        self._postgres_roles.forget_catalog()
        self.enqueue_all()
        self._enqueue("access_requests", self._access_requests.list_missing())

    # -- queues

    def _enqueue_object(self, resource: Resource, key: Key, priority: Priority) -> None:
        if resource is not APP_BINDING:
            self._namespaces.watch_namespace(key.namespace)
        self._queues[QUEUES[resource]].add(key, priority)

    def _enqueue_audits(self) -> None:
        for namespace in self._namespaces.watched():
            self._queues["rbac_audit"].add(namespace)

    def _enqueue_app_bindings(self, users: Iterable[Body]) -> None:
        self._enqueue("appbindings", {key for obj in users for key in used_app_bindings(obj)})

    def _enqueue_users(self, app_binding: Key) -> None:
        """Queue the SecretEngines and PostgresRoles that use an AppBinding."""
        for resource in (SECRET_ENGINE, POSTGRES_ROLE):
            self._enqueue(QUEUES[resource], self._objects.cache(resource).keys_by_index(BY_APP_BINDING, app_binding))

    def _by_mount(self, resource: Resource, mounts: Iterable[str]) -> set[Key]:
        cache = self._objects.cache(resource)
        return {key for mount in mounts for key in cache.keys_by_index(BY_MOUNT, mount)}

    def _enqueue(self, queue: str, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queues[queue].add(key)


def _needs_reconcile(old: Body, new: Body) -> bool:
    """Whether a change is more than an own write: spec, annotations, deletion, or our finalizer removed by somebody."""
    a, b = old["metadata"], new["metadata"]
    if any(a.get(name) != b.get(name) for name in ("generation", "deletionTimestamp", "annotations")):
        return True
    if old.get("spec") != new.get("spec"):
        return True
    others = [[name for name in meta.get("finalizers") or [] if name != FINALIZER] for meta in (a, b)]
    return others[0] != others[1] or (has_finalizer(old, FINALIZER) and not has_finalizer(new, FINALIZER))


def _differ(old: Body, new: Body) -> bool:
    """Whether an AppBinding is another one for its users: its spec, or whom it allows."""
    return old.get("spec") != new.get("spec") or allow_from(old) != allow_from(new)


def _low_if(nobody_waits: bool) -> Priority:
    return Priority.RESYNC if nobody_waits else Priority.EVENT


def _has_credential(obj: Body) -> bool:
    return bool(RequestStatus.from_object(obj).attempt) and not is_deleting(obj)


def _owning_requests(secret: Body) -> Iterator[str]:
    """Names of the access requests that own a Secret."""
    for owner in secret["metadata"].get("ownerReferences") or []:
        if owner.get("kind") == ACCESS_REQUEST.kind:
            yield str(owner.get("name"))


def _attempt(secret: Body | None) -> int:
    """Number of the attempt whose credential a Secret holds unharmed; 0 for none."""
    return _NO_SECRET if secret is None else int(secret.get("secret_attempt", 0))
