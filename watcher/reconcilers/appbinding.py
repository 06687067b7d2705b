"""AppBindings in use.

Our finalizer holds them until the last SecretEngine or PostgresRole that needs them is gone, and access is told of each Vault.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

from leasegate.access.v1 import watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import logs
from services.common.errors import LeasegateError, SpecInvalidError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.client import KubeError
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, Key, Resource, has_finalizer, is_deleting, key_of, text_at
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.status import reason_of
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs import appbinding
from watcher.specs.kinds import APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE

LOG = logs.logger(__name__)


class AppBindingReconciler:
    """Looks after AppBindings. Safe for threads.

    Args:
        objects: The objects.
        logins: Builds targets.
        peers: The services.
        events: Where Events go.
    """

    def __init__(self, *, objects: Objects, logins: VaultTargets, peers: ServiceStubs, events: EventRecorder) -> None:
        self._objects, self._logins, self._peers, self._events = objects, logins, peers, events
        self._told: dict[Key, bytes] = {}
        self._stale: set[Key] = set()
        self._lock = threading.Lock()

    def reconcile(self, key: Key) -> Result:
        """Finalizer on while in use and off when not; access told if it is a Vault's."""
        binding = self._objects.get(APP_BINDING, key)
        if binding is None:
            self._told.pop(key, None)
            return DONE
        if key not in self._in_use():
            self._objects.remove_finalizer(APP_BINDING, binding)
            return DONE
        self.hold(key)
        return self._tell_anew(binding) if key in self._vaults() else DONE

    def hold(self, *keys: Key) -> None:
        """Put our finalizer on what is about to be used.

        Raises:
            Waiting: One is not there, or is being deleted.
            KubeError: Kubernetes failed.
        """
        for key in keys:
            binding = self._objects.get(APP_BINDING, key)
            if binding is None:
                raise PendingError(f"AppBinding {key} is not there: apply it", reason="AppBindingNotFound")
            if has_finalizer(binding, FINALIZER):
                continue
            if is_deleting(binding):
                raise PendingError(f"AppBinding {key} is being deleted: apply it anew", reason="AppBindingNotFound")
            self._objects.add_finalizer(APP_BINDING, binding)

    def tell(self, key: Key, target: types_pb2.VaultTarget) -> None:
        """Tell access of a Vault, unless it was told the same before.

        Raises:
            LeasegateError: access failed.
        """
        content = _content(target)
        if self._told.get(key) != content:
            self._peers.access.EnsureVaultTarget(watcher_service_pb2.EnsureVaultTargetRequest(target=target))
            self._told[key] = content

    def needs_login(self, key: Key) -> None:
        """Note that access lacks a login: the next reconcile gives it a fresh one."""
        with self._lock:
            self._stale.add(key)

    def forget_told(self) -> None:
        """Note that access knows nothing any more: the next reconcile of each tells it."""
        self._told.clear()

    def users(self, key: Key) -> Iterator[tuple[Resource, Key]]:
        """The SecretEngines and PostgresRoles that use an AppBinding."""
        for resource in (SECRET_ENGINE, POSTGRES_ROLE):
            for obj in self._objects.cache(resource):
                if key in _uses(obj):
                    yield resource, key_of(obj)

    def used_by(self, obj: Body) -> set[Key]:
        """The AppBindings that a SecretEngine or PostgresRole uses."""
        return _uses(obj)

    def secrets_of(self, binding: Body) -> list[str]:
        """Names of the Secrets that an AppBinding reads; none where it is wrong."""
        try:
            return appbinding.secret_names(binding)
        except SpecInvalidError:
            return []

    def _tell_anew(self, binding: Body) -> Result:
        key = key_of(binding)
        with self._lock:
            fresh = key in self._stale
            self._stale.discard(key)
        if fresh:
            self._told.pop(key, None)
        try:
            self.tell(key, self._logins.vault(key, fresh=fresh))
        except PendingError as waiting:
            self._again_stale(key, fresh=fresh)
            return waiting.result
        except LeasegateError as err:
            self._again_stale(key, fresh=fresh)
            if isinstance(err, SpecInvalidError):
                self._events.record(binding, reason=reason_of(err), message=err.message, warning=True, transition=False)
            return result_of(err)
        except KubeError:
            self._again_stale(key, fresh=fresh)
            raise
        return DONE

    def _again_stale(self, key: Key, *, fresh: bool) -> None:
        if fresh:
            self.needs_login(key)

    def _in_use(self) -> set[Key]:
        return {
            key
            for resource in (SECRET_ENGINE, POSTGRES_ROLE)
            for obj in self._objects.cache(resource)
            for key in _uses(obj)
        }

    def _vaults(self) -> set[Key]:
        return {_vault(obj) for resource in (SECRET_ENGINE, POSTGRES_ROLE) for obj in self._objects.cache(resource)}


def _vault(obj: Body) -> Key:
    return Key(key_of(obj).namespace, text_at(obj, "spec", "vaultRef", "name"))


def _uses(obj: Body) -> set[Key]:
    """Every AppBinding that an object names, and the one that it was made with."""
    database = ("spec", "postgres", "databaseRef")
    found = {
        _vault(obj),
        Key(text_at(obj, "status", "target", "namespace"), text_at(obj, "status", "target", "name")),
        Key(text_at(obj, *database, "namespace") or key_of(obj).namespace, text_at(obj, *database, "name")),
    }
    return {key for key in found if key.name}


def _content(target: types_pb2.VaultTarget) -> bytes:
    """What of a target makes it worth telling anew: all of it but a token that only was made anew."""
    lasting = types_pb2.VaultTarget()
    lasting.CopyFrom(target)
    if lasting.HasField("kubernetes"):
        lasting.kubernetes.jwt = ""
    lasting.source.generation = 0
    return hashlib.sha256(lasting.SerializeToString(deterministic=True)).digest()
