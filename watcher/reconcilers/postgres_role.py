"""PostgresRoles: written by the role service once their connection is there, handed to access, removed when the object goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leasegate.access.v1 import watcher_service_pb2
from leasegate.roles.v1 import role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import LeasegateError, LeasesInUseError, VaultAuthRefusedError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.finalization import Finalizer, intended, settled, target_ref
from watcher.reconcilers.secret_engine import ready_connection
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.reconcilers.vault_targets import VaultTargets, same_vault, status_target
from watcher.specs.cluster import Cluster
from watcher.specs.db_role import DbRoleSpec, db_role_spec
from watcher.specs.field_paths import message_of
from watcher.specs.kinds import POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.status import status_of

KINDS = {"/roles/": "FailedToCreateDatabaseRole", "sys/mounts": "FailedToCreateDatabaseRole"}


class PostgresRoleReconciler:
    """Reconciles PostgresRoles.

    Args:
        objects: The objects.
        logins: Builds targets.
        bindings: Holds AppBindings.
        peers: The services.
        reporter: Says how each stands.
        patience: Since when each fails.
        cluster: Where they are.
        on_catalogue: Told of a role whose entry in access' catalogue is another one now, or gone.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        logins: VaultTargets,
        bindings: AppBindingReconciler,
        peers: ServiceStubs,
        reporter: StatusReporter,
        patience: FailureWindow,
        cluster: Cluster,
        on_catalogue: Callable[[Key], None],
    ) -> None:
        self._objects, self._logins, self._bindings, self._peers = objects, logins, bindings, peers
        self._reporter, self._patience, self._cluster, self._on_catalogue = reporter, patience, cluster, on_catalogue
        self._ending = Finalizer(POSTGRES_ROLE, objects=objects, reporter=reporter, patience=patience, kinds=KINDS)
        self._catalogue: dict[str, str] = {}  # digest by uid, as access has it from this process
        self._stopped: dict[
            Key, watcher_service_pb2.ResumeRequest
        ] = {}  # what lifts the quiesce that was asked for a role

    def reconcile(self, key: Key) -> Result:
        """Bring one PostgresRole in order."""
        obj = self._objects.get(POSTGRES_ROLE, key)
        if obj is None:
            self._resume(key)  # it may have been taken away while it waited
            return DONE
        if is_deleting(obj):
            return self._ending.end(obj, lambda newest: self._release(newest, status_of(newest)))
        obj = self._objects.add_finalizer(POSTGRES_ROLE, obj)
        try:
            self._ensure(obj)
        except PendingError as waiting:
            self._reporter.waiting(obj, waiting)
            return waiting.result
        except LeasegateError as err:
            if not self._patience.hides(uid_of(obj), err):
                self._reporter.failed(obj, reason=reason_of(err, kinds=KINDS), message=message_of(err))
            return result_of(err)
        self._patience.forget(uid_of(obj))
        return DONE

    def forget_catalogue(self) -> None:
        """Note that access' catalogue may be empty: every role is put there again."""
        self._catalogue.clear()

    def _ensure(self, obj: Body) -> None:
        spec = db_role_spec(obj, self._cluster)
        target = self._logins.vault(spec.vault)
        self._wait_for_connection(spec, target)
        self._bindings.hold(spec.vault)
        self._leave_former_place(obj, spec, target)
        obj, fresh = intended(obj, self._reporter, target=target, path=spec.mount, connection=None, digest=None)
        try:
            answer = self._call(obj, spec, target)
        except LeasegateError as err:
            settled(obj, self._reporter, err, fresh=fresh)
            if isinstance(err, VaultAuthRefusedError):
                self._logins.forget(spec.vault)
            raise
        self._resume(key_of(obj))
        self._bindings.tell(spec.vault, target)
        self._put(obj, answer.snapshot)
        self._reporter.success(obj, _fields(target, answer.snapshot), notices=answer.notices, changed=answer.changed)
        if answer.changed and status_of(obj).get("digest") == answer.snapshot.digest:  # the same as was written before
            self._reporter.put_back(obj, f"role {answer.snapshot.vault_role}")

    def _wait_for_connection(self, spec: DbRoleSpec, target: types_pb2.VaultTarget) -> None:
        connection = spec.definition.db_name if spec.database else None
        engines = self._objects.cache(SECRET_ENGINE)
        if any(ready_connection(engine, target=target, mount=spec.mount, connection=connection) for engine in engines):
            return
        to = f" to AppBinding {spec.database}" if spec.database else ""
        raise PendingError(
            f"No SecretEngine with path {spec.mount} and a connection{to} is Success on Vault {spec.vault}: apply one or see what keeps it",
            reason="EngineNotReady",
        )

    def _call(self, obj: Body, spec: DbRoleSpec, target: types_pb2.VaultTarget) -> role_service_pb2.EnsureRoleResponse:
        request = role_service_pb2.EnsureRoleRequest(
            owner=self._cluster.ref(obj),
            target=target,
            mount=spec.mount,
            definition=spec.definition,
            last_db_name=str(status_of(obj).get("connection") or ""),
        )
        try:
            return self._peers.roles.EnsureRole(request)
        except LeasesInUseError:
            request.quiesce_report.CopyFrom(self._quiesce(obj, target, spec))
            return self._peers.roles.EnsureRole(request)

    def _quiesce(self, obj: Body, target: types_pb2.VaultTarget, spec: DbRoleSpec) -> types_pb2.QuiesceReport:
        """Stop attempts on the connection that the role leaves; the whole mount if that is not known."""
        connection = str(status_of(obj).get("connection", ""))
        ref = target_ref(target)
        request = watcher_service_pb2.QuiesceRequest(target=ref, mount=spec.mount, connection=connection)
        self._stopped[key_of(obj)] = watcher_service_pb2.ResumeRequest(
            target=ref, mount=spec.mount, connection=connection
        )
        answer = self._peers.access.Quiesce(request)
        if left := answer.quiesce_report.remaining:
            text = f"{left} leases or open attempts use the database that the role leaves: the change is made when they have ended"
            raise PendingError(text, reason="LeasesInUse", requeue_after_s=2.0)
        return answer.quiesce_report

    def _resume(self, key: Key) -> None:
        """Permit attempts again, if they were stopped for this role.

        (What a former process stopped is permitted again by the SecretEngine.)
        """
        if request := self._stopped.get(key):
            self._peers.access.Resume(request)
            del self._stopped[key]

    def _put(self, obj: Body, snapshot: role_service_pb2.RoleSnapshot) -> None:
        self._peers.access.PutRoleSnapshot(watcher_service_pb2.PutRoleSnapshotRequest(snapshot=snapshot))
        known = self._catalogue.get(uid_of(obj)) or status_of(obj).get("digest")
        self._catalogue[uid_of(obj)] = snapshot.digest
        if known != snapshot.digest:
            self._on_catalogue(key_of(obj))

    def _leave_former_place(self, obj: Body, spec: DbRoleSpec, target: types_pb2.VaultTarget) -> None:
        status = status_of(obj)
        former = status.get("target")
        if former and not (same_vault(target, former) and status.get("path") == spec.mount):
            self._ending.leave(obj, lambda: self._remove(obj, status))

    def _release(self, obj: Body, status: Body) -> None:
        # First, so that nothing more is issued for it even where Vault cannot be asked and what it has is given up.
        self._peers.access.DeleteRoleSnapshot(
            watcher_service_pb2.DeleteRoleSnapshotRequest(object=self._cluster.ref(obj))
        )
        if self._catalogue.pop(uid_of(obj), ""):
            self._on_catalogue(key_of(obj))
        self._remove(obj, status)
        self._resume(key_of(obj))

    def _remove(self, obj: Body, status: Body) -> None:
        target = self._logins.known_vault(status["target"])
        request = role_service_pb2.DeleteRoleRequest(
            owner=self._cluster.ref(obj), target=target, mount=status.get("path", "")
        )
        self._peers.roles.DeleteRole(request)


def _fields(target: types_pb2.VaultTarget, snapshot: role_service_pb2.RoleSnapshot) -> dict[str, Any]:
    return {
        "target": status_target(target, digest=snapshot.target.digest) | {"answered": True},
        "path": snapshot.mount,
        "role": snapshot.vault_role,
        "connection": snapshot.definition.db_name,
        "digest": snapshot.digest,
    }
