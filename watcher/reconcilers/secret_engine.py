"""SecretEngines: mount and connection asked of the engine service, and taken down when the object goes and no lease is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import (
    LeasegateError,
    LeasesInUseError,
    SpecInvalidError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
)
from watcher.clients.stubs import ServiceStubs
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.finalization import Finalizer, intended, settled, target_ref
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.reconcilers.vault_targets import VaultTargets, same_vault, status_target
from watcher.specs.cluster import Cluster
from watcher.specs.engine import EngineSpec, connection_settings, engine_spec
from watcher.specs.field_paths import message_of
from watcher.specs.kinds import SECRET_ENGINE
from watcher.specs.status import status_of

KINDS = {"/config/": "FailedToCreateSecretEngineConfig", "sys/mounts": "FailedToEnableSecretEngine"}
PUT_BACK_AFTER_S = 5.0
"""How long a deletion waits for logins before it looks whether what they are dropped by is there at all."""
_OWNERSHIP = {engine_service_pb2.MOUNT_OWNERSHIP_OWNED: "Owned", engine_service_pb2.MOUNT_OWNERSHIP_ADOPTED: "Adopted"}


class ConnectionConflictError(Exception):
    """An older SecretEngine defines the same connection otherwise."""


class SecretEngineReconciler:
    """Reconciles SecretEngines.

    Args:
        objects: The objects.
        logins: Builds targets.
        bindings: Holds AppBindings.
        peers: The services.
        reporter: Says how each stands.
        patience: Since when each fails.
        cluster: Where they are.
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
    ) -> None:
        self._objects, self._logins, self._bindings, self._peers = objects, logins, bindings, peers
        self._reporter, self._patience, self._cluster = reporter, patience, cluster
        self._ending = Finalizer(SECRET_ENGINE, objects=objects, reporter=reporter, patience=patience, kinds=KINDS)
        self._running: set[str] = set()  # uids whose mount is known not to be quiesced
        self._lock = threading.Lock()

    def reconcile(self, key: Key) -> Result:
        """Bring one SecretEngine in order."""
        obj = self._objects.get(SECRET_ENGINE, key)
        if obj is None:
            with (
                self._lock
            ):  # it may have been taken away while attempts were stopped for it: the others of its mount see to that
                self._running.clear()
            return DONE
        if is_deleting(obj):
            return self._ending.end(obj, lambda newest: self._release(newest, status_of(newest)))
        obj = self._objects.add_finalizer(SECRET_ENGINE, obj)
        try:
            self._ensure(obj)
        except PendingError as waiting:
            self._reporter.waiting(obj, waiting)
            return waiting.result
        except ConnectionConflictError as conflict:
            self._reporter.failed(obj, reason="ConnectionConflict", message=str(conflict))
            return Result(requeue=True)
        except LeasegateError as err:
            return self._failed(obj, err)
        self._patience.forget(uid_of(obj))
        return DONE

    def _ensure(self, obj: Body) -> None:
        spec = engine_spec(obj, self._cluster)
        target, database = self._logins.vault(spec.vault), self._logins.database(spec.database)
        self._check_rivals(obj, spec, target)
        self._bindings.hold(spec.vault, spec.database)
        self._leave_former_place(obj, spec, target)
        obj, fresh = intended(
            obj, self._reporter, target=target, path=spec.path, connection=spec.connection.name, database=None
        )
        try:
            answer = self._call(obj, spec, target, database)
        except LeasegateError as err:
            settled(obj, self._reporter, err, fresh=fresh)
            if isinstance(err, VaultAuthRefusedError):
                self._logins.forget(spec.vault)
            raise
        fields: dict[str, Any] = {
            "target": status_target(target, digest=answer.target.digest) | {"answered": True},
            "path": answer.path,
            "connection": answer.connection,
            "database": answer.database or None,
            "mount": {"ownership": _OWNERSHIP.get(answer.ownership, "Owned")},
        }
        if status_of(obj).get("database") not in (None, answer.database):  # written before anything is issued there
            obj = self._reporter.intend(obj, {"database": answer.database})
        self._resume(obj, answer)
        self._reporter.success(obj, fields, notices=answer.notices, changed=answer.changed)
        if answer.drift_corrected:
            self._reporter.put_back(obj, f"connection {answer.connection} of mount {answer.path}")

    def _call(
        self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget, database: types_pb2.Database
    ) -> engine_service_pb2.EnsureEngineResponse:
        request = self._wish(obj, spec, target, database)
        try:
            return self._peers.engine.EnsureEngine(request)
        except LeasesInUseError:
            ref = target_ref(target)
            request.quiesce_report.CopyFrom(self._quiesce(obj, ref, spec.path, spec.connection.name, end_leases=False))
            return self._peers.engine.EnsureEngine(request)

    def _wish(
        self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget, database: types_pb2.Database
    ) -> engine_service_pb2.EnsureEngineRequest:
        connection = engine_service_pb2.PostgresConnection(database=database)
        connection.MergeFrom(spec.connection)
        return engine_service_pb2.EnsureEngineRequest(
            owner=self._cluster.ref(obj),
            target=target,
            path=spec.path,
            adopt_mount=spec.adopt_mount,
            postgres=connection,
            same_database_moved=spec.same_database_moved,
            last_database=str(status_of(obj).get("database") or ""),
        )

    def _quiesce(
        self, obj: Body, ref: types_pb2.VaultTargetRef, mount: str, connection: str, *, end_leases: bool
    ) -> types_pb2.QuiesceReport:
        with self._lock:
            self._running.discard(uid_of(obj))
        request = watcher_service_pb2.QuiesceRequest(
            target=ref, mount=mount, connection=connection, end_leases=end_leases
        )
        answer = self._peers.access.Quiesce(request)
        left = answer.quiesce_report.remaining
        if left:
            why = "; ".join(condition.message for condition in answer.conditions)
            what = (
                "are being ended"
                if end_leases
                else "use the database as it is: the change is made when they have ended"
            )
            text = f"{left} leases or open attempts {what}" + (f" ({why})" if why else "")
            lasted_s = self._patience.lasted_s(uid_of(obj), "quiesce")
            raise PendingError(
                text,
                reason="RevokingLeases" if end_leases else "LeasesInUse",
                requeue_after_s=min(2.0, max(0.05, lasted_s / 4)),
            )
        self._patience.forget(uid_of(obj), "quiesce")
        return answer.quiesce_report

    def _resume(self, obj: Body, answer: engine_service_pb2.EnsureEngineResponse) -> None:
        """Permit attempts after each time that they were stopped, and once for each object, as a former process may
        have stopped them.
        """
        with self._lock:
            if uid_of(obj) in self._running:
                return
        for connection in ("", answer.connection):
            self._peers.access.Resume(
                watcher_service_pb2.ResumeRequest(target=answer.target, mount=answer.path, connection=connection)
            )
        with self._lock:
            self._running.add(uid_of(obj))

    def _check_rivals(self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget) -> None:
        """Refuse what an older SecretEngine has otherwise, instead of each writing over the other: a connection is one
        object in Vault.

        Raises:
            Conflict: Names the other, and what differs.
        """
        for other in others_at(self._objects, obj, target=target, path=spec.path):
            if _age(other) < _age(obj) and (different := differences(spec, other, self._cluster)):
                text = f"SecretEngine {key_of(other)} was made before and has the same connection ({spec.database}) of the mount {spec.path}"
                raise ConnectionConflictError(
                    f"{text} with another {', '.join(different)}: make them equal, or use another path"
                )

    def _leave_former_place(self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget) -> None:
        """Take down what was made at another Vault or for another AppBinding, before the new one is written over it in
        the status.
        """
        status = status_of(obj)
        if not status.get("target"):
            return
        if not same_vault(target, status["target"]):
            self._ending.leave(obj, lambda: self._release(obj, status))
        elif status.get("connection") not in (None, spec.connection.name):
            self._ending.leave(obj, lambda: self._release_connection(obj, status))

    def _release(self, obj: Body, status: Body) -> None:
        request, others = self._deletion(obj, status)
        ref, path = target_ref(request.target), request.path
        if not request.connection_shared:
            request.quiesce_report.CopyFrom(
                self._emptied(obj, request, connection=request.connection if others else "")
            )
        try:
            self._peers.engine.DeleteEngine(request)
        except LeasesInUseError:  # the others of the mount have not become its owners yet, so that all of it goes
            request.quiesce_report.CopyFrom(self._quiesce(obj, ref, path, "", end_leases=True))
            self._peers.engine.DeleteEngine(request)

    def _emptied(
        self, obj: Body, request: engine_service_pb2.DeleteEngineRequest, *, connection: str
    ) -> types_pb2.QuiesceReport:
        """Have all leases ended there. What takes long may wait for an engine that somebody took away by hand: it is
        made again.
        """
        try:
            return self._quiesce(obj, target_ref(request.target), request.path, connection, end_leases=True)
        except PendingError:
            if is_deleting(obj) and self._patience.lasted_s(uid_of(obj), "quiesce") >= PUT_BACK_AFTER_S:
                self._put_back(obj, request)
            raise

    def _put_back(self, obj: Body, request: engine_service_pb2.DeleteEngineRequest) -> None:
        """Make again what is gone of mount and connection: a login of which Vault has no lease cannot be dropped
        without them.

        Raises:
            VaultAuthMissingError: The mount is gone, and what it takes to make it again is gone as well.
            LeasegateError: Vault or the engine service failed.
        """
        try:
            spec = engine_spec(obj, self._cluster)
            target, database = self._logins.vault(spec.vault), self._logins.database(spec.database)
            self._peers.engine.EnsureEngine(self._wish(obj, spec, target, database))
        except (PendingError, LeasegateError) as err:
            try:
                self._peers.engine.DeleteEngine(
                    request
                )  # without a count it does nothing, but tells whether the mount is there
            except LeasesInUseError:
                return
            text = f"The mount {request.path} was removed by somebody, and logins are left that cannot be dropped without it"
            raise VaultAuthMissingError(f"{text}: {err.message}", path=request.path) from err

    def _release_connection(self, obj: Body, status: Body) -> None:
        """Remove the connection to a former database, once no lease needs it; another SecretEngine's is left alone."""
        request, _ = self._deletion(obj, status)
        if request.connection_shared:
            return
        request.connection_only = True
        request.quiesce_report.CopyFrom(
            self._quiesce(obj, target_ref(request.target), request.path, request.connection, end_leases=False)
        )
        self._peers.engine.DeleteEngine(request)

    def _deletion(self, obj: Body, status: Body) -> tuple[engine_service_pb2.DeleteEngineRequest, list[Body]]:
        """Ask for the end of what a status names; answers the other SecretEngines of the mount, too."""
        target, path, connection = (
            self._logins.known_vault(status["target"]),
            status.get("path", ""),
            status.get("connection", ""),
        )
        others = list(others_at(self._objects, obj, target=target, path=path))
        shared = any(status_of(other).get("connection") == connection for other in others)
        request = engine_service_pb2.DeleteEngineRequest(
            owner=self._cluster.ref(obj), target=target, path=path, connection=connection, connection_shared=shared
        )
        return request, others

    def _failed(self, obj: Body, err: LeasegateError) -> Result:
        if not self._patience.hides(uid_of(obj), err):
            self._reporter.failed(obj, reason=reason_of(err, kinds=KINDS), message=message_of(err))
        return result_of(err)


def others_at(objects: Objects, obj: Body, *, target: types_pb2.VaultTarget, path: str) -> Iterator[Body]:
    """The other SecretEngines that have made, or begun to make, something on a mount and stay."""
    for other in objects.cache(SECRET_ENGINE):
        there = status_of(other)
        if uid_of(other) == uid_of(obj) or is_deleting(other) or not there.get("target"):
            continue
        if there.get("path") == path and same_vault(target, there["target"]):
            yield other


def differences(spec: EngineSpec, other: Body, cluster: Cluster) -> list[str]:
    """What another SecretEngine asks otherwise of the same connection; nothing if it is another one, or asks for
    nothing usable.
    """
    try:
        theirs = engine_spec(other, cluster)
    except SpecInvalidError:
        return []
    if theirs.connection.name != spec.connection.name:
        return []
    return [name for name, value in connection_settings(spec).items() if connection_settings(theirs)[name] != value]


def _age(engine: Body) -> tuple[str, str]:
    """Compares as older engines before newer ones, and any two in one order."""
    return str(engine["metadata"].get("creationTimestamp", "")), uid_of(engine)


def ready_connection(engine: Body, *, target: types_pb2.VaultTarget, mount: str, connection: str | None) -> bool:
    """Whether a SecretEngine has made the connection that a role needs; None for a connection that is not an
    AppBinding's.
    """
    status = status_of(engine)
    if is_deleting(engine) or not status.get("mount") or not status.get("target"):
        return False
    return (
        status.get("path") == mount
        and same_vault(target, status["target"])
        and connection in (None, status.get("connection"))
    )


def key_and_status(engine: Body) -> tuple[Key, Body]:
    """What tells whether roles of an engine have to look again."""
    status = status_of(engine)
    return key_of(engine), {name: status.get(name) for name in ("target", "path", "connection", "mount", "phase")}
