"""Has the engine service make the mount and connection of a SecretEngine, and remove them with the object.

Nothing is removed, and no database is changed, while leases depend on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import failpoints
from services.common.errors import (
    LeasegateError,
    LeasesInUseError,
    SpecInvalidError,
    VaultAuthMissingError,
)
from watcher.clients.stubs import ServiceStubs
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.finalization import Finalizer, record_failure, record_place
from watcher.reconcilers.role_pauses import RolePauses, call_with_reports
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs import consent
from watcher.specs.appbinding import target_ref
from watcher.specs.cluster import Cluster
from watcher.specs.engine import EngineSpec, connection_settings, engine_spec
from watcher.specs.field_paths import message_of
from watcher.specs.indexes import BY_MOUNT, BY_RECORDED_MOUNT
from watcher.specs.kinds import SECRET_ENGINE
from watcher.specs.status import EngineStatus, TargetStatus

KINDS = {"/config/": "FailedToCreateSecretEngineConfig", "sys/mounts": "FailedToEnableSecretEngine"}
"""KubeVault's reasons for errors of Vault, by a part of the path."""
MOUNT_CHECKED_AFTER_S = 5.0
"""How long a deletion waits for leases before it checks whether the mount that revokes them still exists."""
_OWNERSHIP = {engine_service_pb2.MOUNT_OWNERSHIP_OWNED: "Owned", engine_service_pb2.MOUNT_OWNERSHIP_ADOPTED: "Adopted"}


class ConnectionConflictError(Exception):
    """An older SecretEngine configures the same connection otherwise."""


class SecretEngineReconciler:
    """Reconciles SecretEngines.

    Args:
        objects: The objects.
        targets: Builds targets.
        app_bindings: Keeps the AppBindings that are in use.
        services: The services.
        reporter: Reports the state of each.
        failures: Since when each fails.
        cluster: Where they are.
        on_mount_change: Called with a SecretEngine and the mount that it changed.
        on_roles_paused: Called with a mount whose db_roles are paused and need another snapshot.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        targets: VaultTargets,
        app_bindings: AppBindingReconciler,
        services: ServiceStubs,
        reporter: StatusReporter[EngineStatus],
        failures: FailureWindow,
        cluster: Cluster,
        on_mount_change: Callable[[Key, str], None],
        on_roles_paused: Callable[[str], None],
    ) -> None:
        self._on_mount_change = on_mount_change
        self._objects, self._targets, self._app_bindings, self._services = objects, targets, app_bindings, services
        self._reporter, self._failures, self._cluster = reporter, failures, cluster
        self._finalizer = Finalizer(SECRET_ENGINE, objects=objects, reporter=reporter, failures=failures, kinds=KINDS)
        self._resumed: set[str] = set()  # uids for whose mount issuance is known to be running
        self._lock = threading.Lock()
        self._on_roles_paused = on_roles_paused
        self._pauses = RolePauses(services, failures)
        self._changing: dict[Key, str] = {}  # mounts on which a SecretEngine is about to write its connection
        self._changing_lock = threading.Lock()  # held during the calls to access, so that no other one resumes a pause

    def reconcile(self, key: Key) -> Result:
        """Reconcile one SecretEngine."""
        obj = self._objects.get(SECRET_ENGINE, key)
        if obj is None:
            # It may have been deleted while issuance was paused for it: the other SecretEngines of its mount resume it.
            with self._lock:
                self._resumed.clear()
            with self._changing_lock:
                self._changing.pop(key, None)
            return DONE
        if is_deleting(obj):
            return self._finalizer.finalize(obj, self._clean_up)
        try:
            obj = self._objects.add_finalizer(SECRET_ENGINE, obj)
            self._ensure(obj)
        except PendingError as pending:
            self._reporter.report_pending(obj, pending)
            return pending.result
        except ConnectionConflictError as conflict:
            self._reporter.report_failed(obj, reason="ConnectionConflict", message=str(conflict))
            return Result(requeue=True)
        except LeasegateError as err:
            if not self._failures.is_unreported(uid_of(obj), err):
                self._reporter.report_failed(obj, reason=reason_of(err, kinds=KINDS), message=message_of(err))
            return result_of(err)
        self._failures.reset_failures(uid_of(obj))
        return DONE

    def _ensure(self, obj: Body) -> None:
        spec, own = engine_spec(obj, self._cluster), key_of(obj).namespace
        self._check_allowed(obj, spec)
        target, database = self._targets.vault(spec.vault), self._targets.database(spec.database, user=own)
        self._check_conflicts(obj, spec, target)
        self._app_bindings.keep_app_bindings(spec.vault, spec.database)
        self._leave_former_place(obj, spec, target)
        place = replace(
            EngineStatus.from_object(obj),
            target=TargetStatus.of(target),
            path=spec.path,
            connection=spec.connection.name,
            database="",
            identity="",
            plugin="",
            cluster_id="",
            version="",
        )
        obj, first_try = record_place(obj, self._reporter, target=target, place=place)
        try:
            answer = self._targets.call(
                spec.vault, target, lambda authenticated: self._ensure_engine(obj, spec, authenticated, database)
            )
        except LeasegateError as err:
            record_failure(obj, self._reporter, err, first_try=first_try)
            raise
        identity = self._identity(obj, spec, target, answer)
        known = EngineStatus.from_object(obj)
        moved_to = _used_word(spec, known, answer.database)
        now = replace(known, database=answer.database, identity=identity, plugin=answer.plugin, moved_to=moved_to)
        if known.database and now != known:  # recorded before anything is issued there
            obj = self._reporter.record_status(obj, now)
        self._tell_peers(obj, target, now)
        self._resume(obj, answer)
        done = EngineStatus(
            target=TargetStatus.of(target, answered=True),
            path=answer.mount,
            connection=answer.connection,
            database=answer.database,
            identity=identity,
            plugin=answer.plugin,
            moved_to=moved_to,
            ownership=_OWNERSHIP.get(answer.ownership, "Owned"),
            cluster_id=answer.vault_server.cluster_id,
            version=answer.vault_server.version,
        )
        notices = [*answer.notices, *self._targets.notices(spec.vault)]
        self._reporter.report_ready(obj, done, notices=notices, changed=answer.changed)
        if answer.changed:
            self._on_mount_change(key_of(obj), answer.mount)
        if answer.drift_corrected:
            self._reporter.report_drift_corrected(obj, f"connection {answer.connection} of mount {answer.mount}")

    def _check_allowed(self, obj: Body, spec: EngineSpec) -> None:
        """Refuse what operator and owner do not allow to the namespace, before a token is made or a Secret is read."""
        namespace = key_of(obj).namespace
        self._targets.check_own(spec.database, namespace=namespace)
        self._targets.check_use(spec.vault, namespace=namespace, mount=spec.path)
        self._targets.database_allow_from(spec.database, user=namespace)
        if recorded := EngineStatus.from_object(obj).target:
            self._targets.known_place(recorded)

    def _identity(
        self,
        obj: Body,
        spec: EngineSpec,
        target: types_pb2.VaultTarget,
        answer: engine_service_pb2.EnsureEngineResponse,
    ) -> str:
        """The identity of the database that the connection leads to now.

        It is where the connection led at its first success. Another place is another database, unless an operator says
        that the same database moved there.
        """
        known = [
            status
            for status in (EngineStatus.from_object(obj), *self._peers(obj, target, spec.connection.name).values())
            if status.connection == answer.connection and status.identity
        ]
        if same_place := next((status for status in known if status.database == answer.database), None):
            return same_place.identity
        moved = _unused_word(spec, EngineStatus.from_object(obj)) == answer.database
        return known[0].identity if known and moved else answer.database

    def _tell_peers(self, obj: Body, target: types_pb2.VaultTarget, now: EngineStatus) -> None:
        """Record where the connection leads in the other SecretEngines that have it.

        They may fail, or be deleted last, and must not remember another database for it.
        """

        def change(status: EngineStatus) -> EngineStatus:
            return replace(status, database=now.database, identity=now.identity, plugin=now.plugin)

        for key, status in self._peers(obj, target, now.connection).items():
            other = self._objects.get(SECRET_ENGINE, key)
            if other is not None and status.identity and change(status) != status:
                self._reporter.amend_status(other, change)

    def _peers(self, obj: Body, target: types_pb2.VaultTarget, connection: str) -> dict[Key, EngineStatus]:
        """The statuses of the other SecretEngines with the same connection."""
        path = EngineStatus.from_object(obj).path
        found = {key_of(other): EngineStatus.from_object(other) for other in self._others_at(obj, target, path)}
        return {key: status for key, status in found.items() if status.connection == connection}

    def _ensure_engine(
        self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget, database: types_pb2.Database
    ) -> engine_service_pb2.EnsureEngineResponse:
        ref, name = target_ref(target), spec.connection.name
        try:
            answer = call_with_reports(
                self._services.engine.EnsureEngine,
                self._ensure_request(obj, spec, target, database),
                quiesce=lambda: self._quiesce(obj, ref, spec.path, name, revoke_leases=False),
                pause=lambda: self._pause(obj, ref, spec.path, name),
            )
        except LeasegateError:
            if key_of(obj) in self._changing:
                self._on_roles_paused(spec.path)  # which then show why nothing is issued for them
            raise
        failpoints.point("engine.written")
        return answer

    def _pause(self, obj: Body, ref: types_pb2.VaultTargetRef, mount: str, connection: str) -> types_pb2.PauseReport:
        """Have access pause all db_roles of a connection, until each has a snapshot from after it is written."""
        with self._lock:
            self._resumed.discard(uid_of(obj))
        request = watcher_service_pb2.PauseDbRolesRequest(target=ref, mount=mount, connection=connection)
        with self._changing_lock:
            self._changing[key_of(obj)] = mount
            answer = self._pauses.pause(uid_of(obj), request)
        failpoints.point("engine.paused")
        return answer.pause_report

    def _ensure_request(
        self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget, database: types_pb2.Database
    ) -> engine_service_pb2.EnsureEngineRequest:
        connection = engine_service_pb2.PostgresConnection(database=database)
        connection.MergeFrom(spec.connection)
        return engine_service_pb2.EnsureEngineRequest(
            owner=self._cluster.ref(obj),
            target=target,
            mount=spec.path,
            adopt_mount=spec.adopt_mount,
            adopt_from_cluster=spec.adopt_from_cluster,
            postgres=connection,
            same_database_moved=_unused_word(spec, EngineStatus.from_object(obj)),
            last_database=EngineStatus.from_object(obj).database,
            shared_with=consent.shared_with(self._of_namespace(obj, spec.path)),
            connection_allow_from=self._targets.database_allow_from(spec.database, user=key_of(obj).namespace),
        )

    def _of_namespace(self, obj: Body, path: str) -> list[Body]:
        """The SecretEngines of an object's namespace with this path, all of which say who may use the mount."""
        engines = self._objects.cache(SECRET_ENGINE).by_index(BY_MOUNT, path)
        others = [other for other in engines if uid_of(other) != uid_of(obj) and not is_deleting(other)]
        return [obj, *(other for other in others if key_of(other).namespace == key_of(obj).namespace)]

    def _quiesce(
        self, obj: Body, ref: types_pb2.VaultTargetRef, mount: str, connection: str, *, revoke_leases: bool
    ) -> types_pb2.QuiesceReport:
        """Pause issuance on a connection, or on the whole mount, until no lease is left there.

        Raises:
            PendingError: Leases or open attempts are left.
            LeasegateError: access failed.
        """
        with self._lock:
            self._resumed.discard(uid_of(obj))
        request = watcher_service_pb2.QuiesceRequest(
            target=ref, mount=mount, connection=connection, revoke_leases=revoke_leases
        )
        answer = self._services.access.Quiesce(request)
        left = answer.quiesce_report.open_attempts
        if left:
            why = "; ".join(condition.message for condition in answer.conditions)
            what = (
                "are being revoked"
                if revoke_leases
                else "use the database as it is: the change is made when they are revoked or expired"
            )
            text = f"{left} leases or open attempts {what}" + (f" ({why})" if why else "")
            elapsed_s = self._failures.elapsed_s(uid_of(obj), "quiesce")
            raise PendingError(
                text,
                reason="RevokingLeases" if revoke_leases else "LeasesInUse",
                requeue_after_s=min(2.0, max(0.05, elapsed_s / 4)),
            )
        self._failures.reset_failures(uid_of(obj), "quiesce")
        return answer.quiesce_report

    def _resume(self, obj: Body, answer: engine_service_pb2.EnsureEngineResponse) -> None:
        """Resume issuance after each pause, and once for each object, as a former process may have paused it."""
        with self._lock:
            if uid_of(obj) in self._resumed:
                return
        paused = 0
        with self._changing_lock:
            self._changing.pop(key_of(obj), None)
            if answer.mount in self._changing.values():
                return  # another SecretEngine paused the mount and is about to write: it resumes
            for connection in ("", answer.connection):
                request = watcher_service_pb2.ResumeRequest(
                    target=answer.target, mount=answer.mount, connection=connection, connection_written=True
                )
                paused = max(paused, self._services.access.Resume(request).paused_db_roles)
        with self._lock:
            self._resumed.add(uid_of(obj))
        if paused:
            self._on_roles_paused(answer.mount)

    def _check_conflicts(self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget) -> None:
        """Refuse settings that differ from those of a SecretEngine with the same connection that goes first.

        Raises:
            ConnectionConflictError: Names the other SecretEngine, and what differs.
        """
        owner = spec.database.namespace
        for other in self._others_at(obj, target, spec.path):
            goes_first = _precedence(other, owner) < _precedence(obj, owner)
            if goes_first and (different := _differences(spec, other, self._cluster)):
                own = key_of(obj).namespace != owner == key_of(other).namespace
                why = "is of the database's own namespace" if own else "is older"
                raise ConnectionConflictError(
                    f"SecretEngine {key_of(other)} {why} and configures the same connection ({spec.database}) "
                    f"of mount {spec.path} with another {', '.join(different)}: make them equal, or use another path"
                )

    def _others_at(self, obj: Body, target: types_pb2.VaultTarget, path: str) -> list[Body]:
        """The other SecretEngines that have, or are about to have, something on a mount and are not being deleted."""
        return [
            other
            for other in self._objects.cache(SECRET_ENGINE).by_index(BY_RECORDED_MOUNT, path)
            if uid_of(other) != uid_of(obj)
            and not is_deleting(other)
            and (place := EngineStatus.from_object(other).target) is not None
            and self._targets.is_same_vault(place, target)
        ]

    def _leave_former_place(self, obj: Body, spec: EngineSpec, target: types_pb2.VaultTarget) -> None:
        """Remove what is at another Vault or for another AppBinding before the status records the new place."""
        status = EngineStatus.from_object(obj)
        if status.target is None:
            return
        former = self._targets.known_place(status.target)
        if not former.is_same_vault(target):
            self._finalizer.leave_former_place(obj, lambda: self._clean_up(obj, status, former))
        elif status.connection not in ("", spec.connection.name):
            self._finalizer.leave_former_place(obj, lambda: self._delete_connection(obj, status, former))

    def _clean_up(self, obj: Body, status: EngineStatus, recorded: TargetStatus) -> None:
        """Revoke all leases, then remove connection and mount, as far as no other SecretEngine uses them."""
        request, others = self._delete_request(obj, status, recorded)
        ref, path = target_ref(request.target), request.mount
        if not status.ownership and self._owns_nothing(request):
            return
        if not request.connection_shared:
            report = self._revoke_leases(obj, request, connection=request.connection if others else "")
            request.quiesce_report.CopyFrom(report)
        try:
            self._services.engine.DeleteEngine(request)
        except LeasesInUseError:  # the other SecretEngines are no owners of the mount yet, so that all of it is removed
            request.quiesce_report.CopyFrom(self._quiesce(obj, ref, path, "", revoke_leases=True))
            self._services.engine.DeleteEngine(request)

    def _owns_nothing(self, request: engine_service_pb2.DeleteEngineRequest) -> bool:
        """Whether the engine service finds nothing of a SecretEngine that never was Success.

        Its path may be the mount of somebody else, whose leases it must not revoke.
        """
        try:
            self._services.engine.DeleteEngine(request)  # without a quiesce report it removes nothing that is in use
        except LeasesInUseError:
            return False
        return True

    def _revoke_leases(
        self, obj: Body, request: engine_service_pb2.DeleteEngineRequest, *, connection: str
    ) -> types_pb2.QuiesceReport:
        """Have access revoke all leases; where that takes long, restore a mount that somebody removed."""
        try:
            return self._quiesce(obj, target_ref(request.target), request.mount, connection, revoke_leases=True)
        except PendingError:
            if is_deleting(obj) and self._failures.elapsed_s(uid_of(obj), "quiesce") >= MOUNT_CHECKED_AFTER_S:
                self._restore_engine(obj, request)
            raise

    def _restore_engine(self, obj: Body, request: engine_service_pb2.DeleteEngineRequest) -> None:
        """Make mount and connection again: Vault cannot drop a database user without them.

        Raises:
            VaultAuthMissingError: The mount is gone, and so is what it takes to make it again.
            LeasegateError: Vault or the engine service failed.
        """
        try:
            spec = engine_spec(obj, self._cluster)
            database = self._targets.database(spec.database, user=key_of(obj).namespace)
            target = self._targets.vault(spec.vault)
            self._ensure_engine(obj, spec, target, database)
        except (PendingError, LeasegateError) as err:
            try:
                # Without a quiesce report it removes nothing, but its answer shows whether the mount exists.
                self._services.engine.DeleteEngine(request)
            except LeasesInUseError:
                return
            text = (
                f"The mount {request.mount} was removed by somebody, and database users are left that cannot be "
                "dropped without it"
            )
            raise VaultAuthMissingError(f"{text}: {err.message}", path=request.mount) from err

    def _delete_connection(self, obj: Body, status: EngineStatus, recorded: TargetStatus) -> None:
        """Remove the connection to a former database once no lease uses it, unless another SecretEngine does."""
        request, _ = self._delete_request(obj, status, recorded)
        if request.connection_shared:
            return
        request.connection_only = True
        report = self._quiesce(obj, target_ref(request.target), request.mount, request.connection, revoke_leases=False)
        request.quiesce_report.CopyFrom(report)
        self._services.engine.DeleteEngine(request)

    def _delete_request(
        self, obj: Body, status: EngineStatus, recorded: TargetStatus
    ) -> tuple[engine_service_pb2.DeleteEngineRequest, list[Body]]:
        """The request that deletes what a status names, and the other SecretEngines of the mount."""
        target = self._targets.recorded_vault(recorded)
        others = self._others_at(obj, target, status.path)
        shared = any(EngineStatus.from_object(other).connection == status.connection for other in others)
        request = engine_service_pb2.DeleteEngineRequest(
            owner=self._cluster.ref(obj),
            target=target,
            mount=status.path,
            connection=status.connection,
            connection_shared=shared,
        )
        return request, others


def _differences(spec: EngineSpec, other: Body, cluster: Cluster) -> list[str]:
    """The settings that another SecretEngine asks for otherwise; none for another connection or a wrong spec."""
    try:
        theirs = engine_spec(other, cluster)
    except SpecInvalidError:
        return []
    if theirs.connection.name != spec.connection.name:
        return []
    return [name for name, value in connection_settings(spec).items() if connection_settings(theirs)[name] != value]


def _unused_word(spec: EngineSpec, status: EngineStatus) -> str:
    """The operator's word that the same database moved, unless it was used: it counts once."""
    return "" if spec.same_database_moved == status.moved_to else spec.same_database_moved


def _used_word(spec: EngineSpec, status: EngineStatus, database: str) -> str:
    """The word that counts no more: the connection leads where it says, or did since the word was given."""
    return spec.same_database_moved if spec.same_database_moved in (database, status.moved_to) else ""


def _precedence(engine: Body, owner: str) -> tuple[bool, str, str]:
    """Sorts SecretEngines of the database's own namespace first, then older ones, and any two in one order.

    A namespace that may use a database has no say in how its owner uses it.
    """
    made = str(engine["metadata"].get("creationTimestamp", ""))
    return key_of(engine).namespace != owner, made, uid_of(engine)


def provides_connection(engine: Body, *, target: types_pb2.VaultTarget, mount: str, connection: str | None) -> bool:
    """Whether a SecretEngine has made the connection that a role needs; None for any connection of the mount."""
    status = EngineStatus.from_object(engine)
    if is_deleting(engine) or not status.ownership:
        return False
    return status.is_at(target, mount) and connection in (None, status.connection)


def provided_connection(engine: Body) -> object:
    """What of a SecretEngine decides whether roles find their connection; equal as long as nothing of it changes."""
    return is_deleting(engine), replace(EngineStatus.from_object(engine), observed_generation=0, database="")
