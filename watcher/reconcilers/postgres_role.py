"""Writes the db_role of a PostgresRole once its connection exists, and puts it into access' catalog.

Both are removed with the object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from leasegate.access.v1 import watcher_service_pb2
from leasegate.roles.v1 import db_role_pb2, role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import failpoints
from services.common.bounded import BoundedMap
from services.common.errors import LeasegateError, NotAllowedFromError, SnapshotStaleError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.conditions import Condition
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, is_deleting, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.appbinding import AppBindingReconciler
from watcher.reconcilers.change_pace import ChangePace
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.finalization import Finalizer, record_failure, record_place
from watcher.reconcilers.role_pauses import RolePauses, call_with_reports, changing_condition
from watcher.reconcilers.secret_engine import provides_connection
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs import consent
from watcher.specs.appbinding import target_ref
from watcher.specs.cluster import Cluster
from watcher.specs.consent import NOT_ALLOWED
from watcher.specs.db_role import DbRoleSpec, db_role_spec
from watcher.specs.field_paths import message_of
from watcher.specs.indexes import BY_DB_ROLE, BY_RECORDED_MOUNT
from watcher.specs.kinds import ACCESS_REQUEST, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.status import EngineStatus, RoleStatus, TargetStatus, conditions_of

KINDS = {"/roles/": "FailedToCreateDatabaseRole", "sys/mounts": "FailedToCreateDatabaseRole"}
"""KubeVault's reasons for errors of Vault, by a part of the path."""

_MOST = 50_000


class PostgresRoleReconciler:
    """Reconciles PostgresRoles.

    Args:
        objects: The objects.
        targets: Builds targets.
        app_bindings: Keeps the AppBindings that are in use.
        services: The services.
        reporter: Reports the state of each.
        failures: Since when each fails.
        cluster: Where they are.
        on_catalog_change: Called with a role whose entry in access' catalog changed or is removed.
        pace: How often one role may change.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        targets: VaultTargets,
        app_bindings: AppBindingReconciler,
        services: ServiceStubs,
        reporter: StatusReporter[RoleStatus],
        failures: FailureWindow,
        cluster: Cluster,
        on_catalog_change: Callable[[Key], None],
        pace: ChangePace,
    ) -> None:
        self._objects, self._targets, self._app_bindings, self._services = objects, targets, app_bindings, services
        self._reporter, self._failures, self._cluster = reporter, failures, cluster
        self._on_catalog_change, self._pace = on_catalog_change, pace
        self._finalizer = Finalizer(POSTGRES_ROLE, objects=objects, reporter=reporter, failures=failures, kinds=KINDS)
        # Digest, database and plugin in access' catalog by uid, as this process put them there.
        self._catalog = BoundedMap[str, tuple[str, str, str]](_MOST)
        self._paused: dict[Key, watcher_service_pb2.ResumeRequest] = {}  # what resumes issuance that a role paused
        self._pauses = RolePauses(services, failures)
        self._pause_numbers = BoundedMap[str, int](_MOST)  # by uid: the newest pause that this process knows of
        self._changing = BoundedMap[str, list[Condition]](_MOST)  # by uid: what a role shows until its change is made

    def reconcile(self, key: Key) -> Result:
        """Reconcile one PostgresRole."""
        obj = self._objects.get(POSTGRES_ROLE, key)
        if obj is None:
            self._resume(key)  # it may have been deleted while it waited
            return DONE
        if is_deleting(obj):
            return self._finalizer.finalize(obj, self._clean_up)
        if wait_s := self._pace.wait_s(obj):
            return Result(requeue_after_s=wait_s)
        try:
            obj = self._objects.add_finalizer(POSTGRES_ROLE, obj)
            self._ensure(obj)
        except PendingError as pending:
            self._reporter.report_pending(obj, pending, also=self._changing_of(obj))
            return pending.result
        except LeasegateError as err:
            if not self._failures.is_unreported(uid_of(obj), err):
                self._reporter.report_failed(
                    obj, reason=reason_of(err, kinds=KINDS), message=message_of(err), also=self._changing_of(obj)
                )
            return result_of(err)
        self._failures.reset_failures(uid_of(obj))
        return DONE

    def _changing_of(self, obj: Body) -> list[Condition]:
        """The condition that the role is paused: what access said, or what an earlier process reported of it."""
        return self._changing.get(uid_of(obj)) or [
            Condition("RoleChanging", status=True, reason=str(found.get("reason")), message=str(found.get("message")))
            for found in conditions_of(obj)
            if found.get("type") == "RoleChanging"
        ]

    def forget_catalog(self) -> None:
        """Have the next reconcile of each role put it into access' catalog, which may have lost all."""
        self._catalog.clear()

    def _ensure(self, obj: Body) -> None:
        spec = db_role_spec(obj, self._cluster)
        self._check_allowed(obj, spec)
        allow_from = self._connection_allow_from(obj, spec)
        target = self._targets.vault(spec.vault)
        self._wait_for_connection(spec, target)
        self._app_bindings.keep_app_bindings(spec.vault)
        self._leave_former_place(obj, spec, target)
        status = RoleStatus.from_object(obj)
        place = replace(status, target=TargetStatus.of(target), path=spec.mount, connection="", digest="")
        obj, first_try = record_place(obj, self._reporter, target=target, place=place)
        try:
            answer = self._targets.call(
                spec.vault,
                target,
                lambda authenticated: self._ensure_db_role(obj, spec, authenticated, allow_from=allow_from),
            )
        except LeasegateError as err:
            record_failure(obj, self._reporter, err, first_try=first_try)
            if isinstance(err, NotAllowedFromError):
                self._withdraw(obj, err.message)
            raise
        self._resume(key_of(obj))
        self._app_bindings.register_target(spec.vault, target)
        failpoints.point("role.written")
        snapshot = self._put_into_catalog(
            obj,
            answer.snapshot,
            target,
            read=lambda: self._ensure_db_role(obj, spec, target, allow_from=allow_from).snapshot,
        )
        known = RoleStatus.from_object(obj).digest
        done = RoleStatus(
            target=TargetStatus.of(target, answered=True),
            path=snapshot.mount,
            connection=snapshot.definition.db_name,
            db_role=snapshot.vault_role,
            digest=snapshot.digest,
        )
        notices = [*answer.notices, *self._targets.notices(spec.vault)]
        self._reporter.report_ready(obj, done, notices=notices, changed=answer.changed)
        if answer.changed and known == snapshot.digest:  # the same was written before
            self._reporter.report_drift_corrected(obj, f"role {snapshot.vault_role}")

    def _connection_allow_from(self, obj: Body, spec: DbRoleSpec) -> tuple[str, ...]:
        """The namespaces that may use the role's connection, after checking that the role's may.

        Raises:
            PendingError: The owner of the database does not allow it; nothing more is issued for the role.
        """
        if spec.connection_owner is None:
            return ()
        try:
            return self._targets.database_allow_from(spec.connection_owner, user=key_of(obj).namespace)
        except PendingError as pending:
            if pending.reason == NOT_ALLOWED:
                self._withdraw(obj, pending.message)
            raise

    def _withdraw(self, obj: Body, why: str) -> None:
        """Have access issue and renew nothing more for a role whose mount or connection its owner shares no more."""
        request = watcher_service_pb2.DeleteDbRoleSnapshotRequest(object=self._cluster.ref(obj), not_allowed=why)
        self._services.access.DeleteDbRoleSnapshot(request)
        self._catalog.pop(uid_of(obj), None)

    def _check_allowed(self, obj: Body, spec: DbRoleSpec) -> None:
        """Refuse a Vault that the operator does not name, before a token is made for it."""
        self._targets.check_use(spec.vault, namespace=key_of(obj).namespace, mount="")
        if recorded := RoleStatus.from_object(obj).target:
            self._targets.known_place(recorded)

    def _wait_for_connection(self, spec: DbRoleSpec, target: types_pb2.VaultTarget) -> None:
        connection = spec.definition.db_name if spec.connection_owner else None  # an operator's has no SecretEngine
        engines = self._objects.cache(SECRET_ENGINE).by_index(BY_RECORDED_MOUNT, spec.mount)
        if any(
            provides_connection(engine, target=target, mount=spec.mount, connection=connection) for engine in engines
        ):
            return
        to = f" to AppBinding {spec.connection_owner}" if spec.connection_owner else ""
        raise PendingError(
            f"No SecretEngine with path {spec.mount} and a connection{to} is Success on Vault {spec.vault}: "
            "apply one, or see what its status says",
            reason="EngineNotReady",
        )

    def _ensure_db_role(
        self, obj: Body, spec: DbRoleSpec, target: types_pb2.VaultTarget, *, allow_from: Sequence[str]
    ) -> role_service_pb2.EnsureDbRoleResponse:
        request = role_service_pb2.EnsureDbRoleRequest(
            owner=self._cluster.ref(obj),
            target=target,
            mount=spec.mount,
            definition=spec.definition,
            last_db_name=RoleStatus.from_object(obj).connection,
            connection_allow_from=allow_from,
        )
        return call_with_reports(
            self._services.roles.EnsureDbRole,
            request,
            quiesce=lambda: self._quiesce(obj, target, spec),
            pause=lambda: self._pause(obj, target_ref(target), spec.mount, to=spec.definition),
        )

    def _pause(
        self, obj: Body, ref: types_pb2.VaultTargetRef, mount: str, *, to: db_role_pb2.DbRoleDefinition
    ) -> types_pb2.PauseReport:
        """Have access pause the role; its next snapshot ends that, whoever puts it.

        Raises:
            PendingError: Calls to Vault are under way, or leases of before would not end as they were approved.
            LeasegateError: access failed.
        """
        revocation = types_pb2.LeaseRevocation(connection=to.db_name, statements=to.revocation_statements)
        request = watcher_service_pb2.PauseDbRolesRequest(
            target=ref, mount=mount, vault_role=self._cluster.vault_name(key_of(obj)), revocation=revocation
        )
        answer = self._pauses.pause(uid_of(obj), request)
        self._pause_numbers[uid_of(obj)] = answer.pause_number
        self._changing[uid_of(obj)] = changing_condition(answer)
        self._pauses.check_revocations(uid_of(obj), answer)
        failpoints.point("role.paused")
        return answer.pause_report

    def _quiesce(self, obj: Body, target: types_pb2.VaultTarget, spec: DbRoleSpec) -> types_pb2.QuiesceReport:
        """Pause issuance on the connection that the role leaves; on the whole mount if that is not known."""
        connection, ref = RoleStatus.from_object(obj).connection, target_ref(target)
        request = watcher_service_pb2.QuiesceRequest(target=ref, mount=spec.mount, connection=connection)
        self._paused[key_of(obj)] = watcher_service_pb2.ResumeRequest(
            target=ref, mount=spec.mount, connection=connection
        )
        answer = self._services.access.Quiesce(request)
        if left := answer.quiesce_report.open_attempts:
            text = (
                f"{left} leases or open attempts use the database that the role leaves: "
                "the role is changed when they are revoked or expired"
            )
            raise PendingError(text, reason="LeasesInUse", requeue_after_s=2.0)
        return answer.quiesce_report

    def _resume(self, key: Key) -> None:
        """Resume issuance that was paused for this role; the SecretEngine resumes what a former process paused."""
        if request := self._paused.get(key):
            self._services.access.Resume(request)
            del self._paused[key]

    def _put_into_catalog(
        self,
        obj: Body,
        snapshot: db_role_pb2.DbRoleSnapshot,
        target: types_pb2.VaultTarget,
        *,
        read: Callable[[], db_role_pb2.DbRoleSnapshot],
    ) -> db_role_pb2.DbRoleSnapshot:
        """Put a snapshot into the catalog; ``read`` takes another where this one may be older than a pause.

        Returns:
            The snapshot that is in the catalog.

        Raises:
            PendingError: The role is paused nevertheless.
            LeasegateError: access failed.
        """
        try:
            answer = self._put_snapshot(obj, snapshot, target)
        except SnapshotStaleError as stale:
            if number := stale.metadata.get("pause_number"):
                self._pause_numbers[uid_of(obj)] = int(number)
            else:
                self._pause(obj, snapshot.target, snapshot.mount, to=snapshot.definition)
            snapshot = read()
            answer = self._put_snapshot(obj, snapshot, target)
        asking = self._objects.cache(ACCESS_REQUEST).keys_by_index(BY_DB_ROLE, key_of(obj))
        self._pace.note_applied(obj, concerned=len(asking))
        known, now = self._catalog.get(uid_of(obj)), (snapshot.digest, snapshot.database, snapshot.plugin)
        self._catalog[uid_of(obj)] = now
        if now != known and (known or RoleStatus.from_object(obj).digest != snapshot.digest):
            self._on_catalog_change(key_of(obj))
        if answer.paused:
            text = "The connection of the role is about to change: nothing is issued for the role until it is changed"
            raise PendingError(text, reason="RoleChanging")
        self._changing.pop(uid_of(obj), None)
        return snapshot

    def _put_snapshot(
        self, obj: Body, snapshot: db_role_pb2.DbRoleSnapshot, target: types_pb2.VaultTarget
    ) -> watcher_service_pb2.PutDbRoleSnapshotResponse:
        self._add_database(snapshot, target)
        snapshot.allow_from[:] = consent.allow_from(obj)
        snapshot.allow_subjects_from[:] = consent.allow_subjects_from(obj)
        number = self._pause_numbers.get(uid_of(obj), 0)
        request = watcher_service_pb2.PutDbRoleSnapshotRequest(snapshot=snapshot, pause_number=number)
        return self._services.access.PutDbRoleSnapshot(request)

    def _add_database(self, snapshot: db_role_pb2.DbRoleSnapshot, target: types_pb2.VaultTarget) -> None:
        """Add to which database the connection leads, as its SecretEngines remember it."""
        statuses = [
            EngineStatus.from_object(engine)
            for engine in self._objects.cache(SECRET_ENGINE).by_index(BY_RECORDED_MOUNT, snapshot.mount)
            if provides_connection(engine, target=target, mount=snapshot.mount, connection=snapshot.definition.db_name)
        ]
        snapshot.database = ", ".join(sorted({status.identity for status in statuses}))
        snapshot.plugin = ", ".join(sorted({status.plugin for status in statuses}))

    def _leave_former_place(self, obj: Body, spec: DbRoleSpec, target: types_pb2.VaultTarget) -> None:
        status = RoleStatus.from_object(obj)
        if status.target is None:
            return
        former = self._targets.known_place(status.target)
        if not replace(status, target=former).is_at(target, spec.mount):
            self._finalizer.leave_former_place(obj, lambda: self._delete_db_role(obj, status, former))

    def _clean_up(self, obj: Body, status: RoleStatus, target: TargetStatus) -> None:
        # The catalog first, so that nothing more is issued for the role even where Vault cannot be cleaned up.
        self._services.access.DeleteDbRoleSnapshot(
            watcher_service_pb2.DeleteDbRoleSnapshotRequest(object=self._cluster.ref(obj))
        )
        self._pause_numbers.pop(uid_of(obj), None)
        self._changing.pop(uid_of(obj), None)
        if self._catalog.pop(uid_of(obj), None):
            self._on_catalog_change(key_of(obj))
        self._delete_db_role(obj, status, target)
        self._resume(key_of(obj))

    def _delete_db_role(self, obj: Body, status: RoleStatus, recorded: TargetStatus) -> None:
        target = self._targets.recorded_vault(recorded)
        request = role_service_pb2.DeleteDbRoleRequest(owner=self._cluster.ref(obj), target=target, mount=status.path)
        self._services.roles.DeleteDbRole(request)
