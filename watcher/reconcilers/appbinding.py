"""Keeps AppBindings that are in use, registers their Vaults with access, and reports whether they can be used.

The finalizer keeps an AppBinding until the last SecretEngine or PostgresRole that uses it is deleted.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from leasegate.access.v1 import watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import LeasegateError, SpecInvalidError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, Key, has_finalizer, is_deleting, key_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.appbinding_status import AppBindingReporter
from watcher.reconcilers.status import reason_of
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs.consent import uses_with_consent
from watcher.specs.indexes import BY_APP_BINDING, BY_DATABASE, BY_VAULT
from watcher.specs.kinds import APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.status import conditions_of

REGISTER_AGAIN_S = 3600.0


class AppBindingReconciler:
    """Reconciles AppBindings. Safe for threads.

    Args:
        objects: The objects.
        targets: Builds targets.
        services: The services.
        events: Where Events are written.
        reporter: Writes statuses.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        targets: VaultTargets,
        services: ServiceStubs,
        events: EventRecorder,
        reporter: AppBindingReporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects, self._targets, self._services, self._events = objects, targets, services, events
        self._reporter, self._clock = reporter, clock
        self._registered: dict[Key, tuple[bytes, float]] = {}  # the digest that access has of a target, and since when
        self._auth_needed: set[Key] = set()  # AppBindings whose Vault access has no session for
        self._lock = threading.Lock()

    def reconcile(self, key: Key) -> Result:
        """Add or remove the finalizer of an AppBinding, register its Vault with access, and report the outcome."""
        binding = self._objects.get(APP_BINDING, key)
        if binding is None or not self._is_used(BY_APP_BINDING, binding):
            self._registered.pop(key, None)
            with self._lock:
                self._auth_needed.discard(key)
        if binding is None:
            return DONE
        if not self._is_used(BY_APP_BINDING, binding):
            self._release(binding)
            return DONE
        try:
            self.keep_app_bindings(key)
        except PendingError as pending:  # its namespace is not enabled
            return pending.result
        results = list[Result]()
        if self._is_used(BY_VAULT, binding, by_others=False):
            message = "Access has this Vault, and what authenticates there"
            results.append(self._check(binding, self._register, reason="Registered", message=message))
        # A use from another namespace counts for nothing: by it a team could make another's AppBinding look broken.
        if self._is_used(BY_DATABASE, binding, by_others=False):
            message = "The address of this database, and what authenticates there, are complete"
            results.append(self._check(binding, self._read_database, reason="Complete", message=message))
        return next((result for result in results if result != DONE), DONE)

    def _check(self, binding: Body, check: Callable[[Key], object], *, reason: str, message: str) -> Result:
        """Check an AppBinding in one of its uses, and report the outcome."""
        try:
            check(key_of(binding))
        except PendingError as pending:
            self._reporter.report_not_ready(binding, reason=pending.reason, message=pending.message)
            return pending.result
        except LeasegateError as err:
            self._reporter.report_not_ready(binding, reason=reason_of(err), message=err.message)
            if isinstance(err, SpecInvalidError) and self._is_used(BY_VAULT, binding):
                self._events.record(binding, reason=reason_of(err), message=err.message, warning=True, transition=False)
            return result_of(err)
        self._reporter.report_ready(binding, reason=reason, message=message)
        return DONE

    def keep_app_bindings(self, *keys: Key) -> None:
        """Add the finalizer to AppBindings that are about to be used.

        Raises:
            PendingError: One does not exist, is being deleted, or is in a namespace that is not enabled.
            KubeError: Kubernetes failed.
        """
        for key in keys:
            binding = self._objects.get(APP_BINDING, key)
            if binding is None:
                raise PendingError(f"AppBinding {key} does not exist: apply it", reason="AppBindingNotFound")
            if has_finalizer(binding, FINALIZER):
                continue
            if is_deleting(binding):
                raise PendingError(f"AppBinding {key} is being deleted: apply it again", reason="AppBindingNotFound")
            self._objects.add_finalizer(APP_BINDING, binding)

    def register_target(self, key: Key, target: types_pb2.VaultTarget) -> None:
        """Register a Vault with access, unless access has the same target since a moment ago.

        access drops a target that nothing uses, unless it hears of it from time to time.

        Raises:
            LeasegateError: access failed.
        """
        digest = _registration_digest(target)
        known, since = self._registered.get(key, (b"", 0.0))
        if known != digest or self._clock() - since > REGISTER_AGAIN_S:
            self._targets.call(key, target, self._ensure_target)
            self._registered[key] = digest, self._clock()

    def _ensure_target(self, target: types_pb2.VaultTarget) -> None:
        self._services.access.EnsureVaultTarget(watcher_service_pb2.EnsureVaultTargetRequest(target=target))

    def require_fresh_auth(self, key: Key) -> None:
        """Have the next reconcile register the Vault with a new token, as access has no session there."""
        with self._lock:
            self._auth_needed.add(key)

    def forget_registrations(self) -> None:
        """Have the next reconcile of each AppBinding register its Vault, as access may have lost all targets."""
        self._registered.clear()

    def _release(self, binding: Body) -> None:
        """Let an AppBinding go that nothing uses any more; one that was never used stays as it is."""
        if has_finalizer(binding, FINALIZER):
            if not is_deleting(binding) and any(each.get("type") == "Ready" for each in conditions_of(binding)):
                text = "No SecretEngine or PostgresRole uses it"
                self._reporter.report_ready(binding, reason="NotUsed", message=text)
            self._objects.remove_finalizer(APP_BINDING, binding)

    def _register(self, key: Key) -> None:
        with self._lock:
            fresh = key in self._auth_needed
            self._auth_needed.discard(key)
        if fresh:
            self._registered.pop(key, None)
        registered = False
        try:
            self.register_target(key, self._targets.vault(key, fresh=fresh))
            registered = True
        finally:
            if fresh and not registered:
                self.require_fresh_auth(key)

    def _read_database(self, key: Key) -> None:
        self._targets.database(key, user=key.namespace)

    def _is_used(self, index: str, binding: Body, *, by_others: bool = True) -> bool:
        """Whether something uses an AppBinding so that may; objects of other namespaces count only with consent."""
        key = key_of(binding)
        users = (
            obj for kind in (SECRET_ENGINE, POSTGRES_ROLE) for obj in self._objects.cache(kind).by_index(index, key)
        )
        return any(
            uses_with_consent(binding, obj) and (by_others or key_of(obj).namespace == key.namespace) for obj in users
        )


def _registration_digest(target: types_pb2.VaultTarget) -> bytes:
    """Digest of a target without what changes by itself: the ServiceAccount token and the AppBinding's generation."""
    lasting = types_pb2.VaultTarget()
    lasting.CopyFrom(target)
    if lasting.HasField("kubernetes"):
        lasting.kubernetes.jwt = ""
    lasting.source.generation = 0
    return hashlib.sha256(lasting.SerializeToString(deterministic=True)).digest()
