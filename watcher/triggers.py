"""Which change brings which object back into its queue. It only names keys: what is to be done about one is found out by its worker.

An own write changes nothing that counts here (status, our finalizer), so it does not bring its object back.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from watcher.delivery.namespaces import Namespaces
from watcher.kube.cache import ChangeHandler
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, Resource, has_finalizer, is_deleting, key_of, uid_of
from watcher.kube.workqueue import WorkQueue
from watcher.reconcilers.access_request import AccessRequestReconciler
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.postgres_role import PostgresRoleReconciler
from watcher.reconcilers.secret_engine import key_and_status
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.references import db_role_of, mount_of
from watcher.specs.status import decision_conditions, status_of

QUEUES = {APP_BINDING: "appbindings", SECRET_ENGINE: "engines", POSTGRES_ROLE: "roles", ACCESS_REQUEST: "requests"}


class Triggers:
    """Turns changes into keys. Safe for threads.

    Args:
        queues: The queues by name.
    """

    def __init__(self, queues: Mapping[str, WorkQueue[Any]]) -> None:
        self._queues = queues
        self._open = (
            threading.Event()
        )  # before everything is listed, changes are not followed up: ``open`` does that for all at once

    def connect(
        self,
        *,
        objects: Objects,
        namespaces: Namespaces,
        bindings: AppBindingReconciler,
        requests: AccessRequestReconciler,
        roles: PostgresRoleReconciler,
    ) -> None:
        """Say what the changes concern; before the first of them."""
        self._objects, self._namespaces, self._bindings, self._requests, self._roles = (
            objects,
            namespaces,
            bindings,
            requests,
            roles,
        )

    def open(self) -> None:
        """Everything is listed: begin with all of it."""
        self._open.set()
        self.all()

    def all(self) -> None:
        """Have every object looked at, and Roles and RoleBindings; what has its credential after those that wait for
        theirs.
        """
        for resource in QUEUES:
            for obj in self._objects.cache(resource):
                self._look(resource, key_of(obj), low=_has_credential(obj))
        for namespace in self._namespaces.watched():
            self._queues["readers"].add(namespace)

    def round(self, steps: int) -> Iterator[None]:
        """Have everything looked at once more, behind all that somebody waits for: a part of it after each of so many
        steps.

        What is made meanwhile may have to wait for the next round.
        """
        size = -(-sum(len(self._objects.cache(resource)) for resource in QUEUES) // steps)
        known = ((resource, key) for resource in QUEUES for key in self._objects.cache(resource).list_keys())
        for _ in range(steps):
            yield
            for resource, key in itertools.islice(known, size):
                if self._objects.get(resource, key):
                    self._look(resource, key, low=True)
        for namespace in self._namespaces.watched():
            self._queues["readers"].add(namespace)

    def _look(self, resource: Resource, key: Key, *, low: bool) -> None:
        if resource is not APP_BINDING:
            self._namespaces.watch_namespace(key.namespace)
        self._queues[QUEUES[resource]].add(key, low=low)

    def restarted(self) -> None:
        """Access begins anew: it is told of all targets, roles and requests."""
        self._bindings.forget_told()
        self._roles.forget_catalogue()
        self.all()

    def changed(self, resource: Resource) -> ChangeHandler:
        """What follows from a change of an object of a kind."""
        follow: Callable[[Body | None, Body | None], None] = {
            APP_BINDING: self._binding_changed,
            SECRET_ENGINE: self._engine_changed,
            POSTGRES_ROLE: self._role_changed,
            ACCESS_REQUEST: self._request_changed,
        }[resource]

        def on_change(old: Body | None, new: Body | None) -> None:
            if not self._open.is_set():
                return
            if old is not None and new is not None and uid_of(old) != uid_of(new):
                follow(old, None)
                old = None
            follow(old, new)

        return on_change

    def secret_changed(self, old: Body | None, new: Body | None) -> None:
        """A Secret of a served namespace changed: it is a request's, or an AppBinding's."""
        secret = new or old
        if secret is None or not self._open.is_set():
            return
        owners = [
            o
            for body in (old, new)
            if body
            for o in body["metadata"].get("ownerReferences") or []
            if o.get("kind") == ACCESS_REQUEST.kind
        ]
        namespace = key_of(secret).namespace
        if owners:
            if old is None or new is None or old.get("secret_attempt") != new.get("secret_attempt"):
                for key in {Key(namespace, str(owner.get("name"))) for owner in owners}:
                    self._queues["requests"].add(key, low=self._says(key, new))
            return
        if old is not None and new is not None and old["metadata"] == new["metadata"]:
            return
        self._secret_of_binding_changed(key_of(secret))
        if new is None:  # one that stood in the way of a request's, perhaps
            self._add(
                "requests",
                [key for key in [Key(namespace, key_of(secret).name[:-7])] if self._objects.get(ACCESS_REQUEST, key)],
            )

    def _says(self, request: Key, secret: Body | None) -> bool:
        """Whether a request's status says already what its Secret holds, as of nearly all in a first list: nobody waits
        for that.
        """
        secret_attempt = (secret or {}).get("secret_attempt")
        obj = self._objects.get(ACCESS_REQUEST, request) if secret_attempt else None
        return obj is not None and status_of(obj).get("attempt") == secret_attempt

    def service_changed(self, namespace: str) -> None:
        """A namespace is served now, or no more: everything in it is looked at."""
        for resource in (SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST, APP_BINDING):
            self._add(QUEUES[resource], (key_of(obj) for obj in self._objects.cache(resource).all(namespace)))
        for binding in self._objects.cache(APP_BINDING).all(namespace):
            self._users(key_of(binding))

    def catalogue_changed(self, role: Key) -> None:
        """A role is another one now: its requests may show another digest."""
        self._add("requests", (key_of(obj) for obj in self._objects.cache(ACCESS_REQUEST) if db_role_of(obj) == role))

    def _binding_changed(self, old: Body | None, new: Body | None) -> None:
        if old is not None and new is not None and not _worth_a_look(old, new):
            return
        key = key_of(new or old or {})
        if new is None:
            self._looked_after(old, None)
        self._queues["appbindings"].add(key)
        if old is None or new is None or old.get("spec") != new.get("spec"):
            self._users(key)

    def _engine_changed(self, old: Body | None, new: Body | None) -> None:
        obj = new or old or {}
        self._looked_after(old, new)
        if old is None or new is None or _worth_a_look(old, new):
            self._queues["engines"].add(key_of(obj))
            self._bindings_of(old, new)
            self._mates(old, new)
        if old is None or new is None or key_and_status(old) != key_and_status(new) or _deleting(old) != _deleting(new):
            mounts = {mount_of(o) for o in (old, new) if o}
            self._add(
                "roles", (key_of(role) for role in self._objects.cache(POSTGRES_ROLE) if mount_of(role) in mounts)
            )

    def _mates(self, *objs: Body | None) -> None:
        """Look again at other SecretEngines of a mount, which may have been refused for the sake of this one."""
        keys, mounts = {key_of(o) for o in objs if o}, {mount_of(o) for o in objs if o}
        engines = self._objects.cache(SECRET_ENGINE)
        self._add(
            "engines", (key_of(mate) for mate in engines if mount_of(mate) in mounts and key_of(mate) not in keys)
        )

    def _role_changed(self, old: Body | None, new: Body | None) -> None:
        self._looked_after(old, new)
        if old is None or new is None or _worth_a_look(old, new):
            self._queues["roles"].add(key_of(new or old or {}))
            self._bindings_of(old, new)

    def _request_changed(self, old: Body | None, new: Body | None) -> None:
        self._looked_after(old, new)
        if new is None and old is not None:
            self._requests.vanished(old)
        if (
            old is None
            or new is None
            or _worth_a_look(old, new)
            or decision_conditions(old) != decision_conditions(new)
        ):
            self._queues["requests"].add(key_of(new or old or {}))

    def _looked_after(self, old: Body | None, new: Body | None) -> None:
        if new is not None:
            self._namespaces.watch_namespace(key_of(new).namespace)
        elif old is not None and not self._in_use(key_of(old).namespace):
            self._namespaces.unwatch_namespace(key_of(old).namespace)

    def _in_use(self, namespace: str) -> bool:
        return any(
            self._objects.cache(resource).count(namespace)
            for resource in (SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST, APP_BINDING)
        )

    def _bindings_of(self, *objs: Body | None) -> None:
        self._add("appbindings", {key for obj in objs if obj is not None for key in self._bindings.used_by(obj)})

    def _secret_of_binding_changed(self, secret: Key) -> None:
        for binding in self._objects.cache(APP_BINDING).all(secret.namespace):
            if secret.name in self._bindings.secrets_of(binding):
                self._queues["appbindings"].add(key_of(binding))
                self._users(key_of(binding))

    def _users(self, binding: Key) -> None:
        for resource, key in self._bindings.users(binding):
            self._queues[QUEUES[resource]].add(key)

    def _add(self, queue: str, keys: Iterable[Key]) -> None:
        for key in keys:
            self._queues[queue].add(key)


def _worth_a_look(old: Body, new: Body) -> bool:
    """Whether something changed that is not an own write: spec, annotations, deletion, or our finalizer taken off by
    somebody.
    """
    a, b = old["metadata"], new["metadata"]
    if (
        a.get("generation") != b.get("generation")
        or _deleting(old) != _deleting(new)
        or a.get("annotations") != b.get("annotations")
    ):
        return True
    if old.get("spec") != new.get("spec"):
        return True
    others = [[name for name in meta.get("finalizers") or [] if name != FINALIZER] for meta in (a, b)]
    return others[0] != others[1] or (has_finalizer(old, FINALIZER) and not has_finalizer(new, FINALIZER))


def _has_credential(obj: Body) -> bool:
    return bool(status_of(obj).get("attempt")) and not is_deleting(obj)


def _deleting(obj: Body) -> object:
    return obj["metadata"].get("deletionTimestamp")
