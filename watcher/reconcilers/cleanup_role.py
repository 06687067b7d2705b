"""Makes and removes cleanup roles, which access needs to drop a database user that has no lease.

The role service makes and removes them; the result is reported to access.
"""

from __future__ import annotations

import threading
from typing import TypeAlias

from leasegate.access.v1 import change_pb2, watcher_service_pb2
from leasegate.roles.v1 import role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import logs
from services.common.errors import LeasegateError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.result import DONE, Result
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs.status import TargetStatus

LOG = logs.logger(__name__)
CleanupRoleChange: TypeAlias = change_pb2.CleanupRoleNeeded | change_pb2.CleanupRoleUnneeded


class CleanupRoleReconciler:
    """Makes and removes cleanup roles. Safe for threads.

    Args:
        targets: Builds targets.
        services: The services.
    """

    def __init__(self, *, targets: VaultTargets, services: ServiceStubs) -> None:
        self._targets, self._services = targets, services
        self._changes: dict[str, CleanupRoleChange] = {}  # by name of the cleanup role, until done
        self._lock = threading.Lock()

    def add_change(self, change: CleanupRoleChange) -> str:
        """Take a change that access asks for, in place of an earlier one; returns the key to reconcile, its name."""
        with self._lock:
            self._changes[change.name] = change
        return change.name

    def reconcile(self, name: str) -> Result:
        """Make or remove one cleanup role."""
        change = self._changes.get(name)
        if change is None:
            return DONE
        target = self._targets.recorded_vault(TargetStatus.of_ref(change.target))
        try:
            if isinstance(change, change_pb2.CleanupRoleNeeded):
                self._make(change, target)
            else:
                self._services.roles.DeleteCleanupRole(
                    role_service_pb2.DeleteCleanupRoleRequest(target=target, mount=change.mount, name=name)
                )
        except LeasegateError as err:
            LOG.warning(
                "cleanup role not made or removed, requeueing",
                cleanup_role=name,
                mount=change.mount,
                reason=err.reason,
                error=err.message,
            )
            return Result(requeue=True, requeue_after_s=err.retry_after_s)
        with self._lock:
            if self._changes.get(name) is change:
                del self._changes[name]
        return DONE

    def _make(self, change: change_pb2.CleanupRoleNeeded, target: types_pb2.VaultTarget) -> None:
        request = role_service_pb2.EnsureCleanupRoleRequest(
            target=target,
            mount=change.mount,
            name=change.name,
            connection=change.connection,
            revocation_statements=change.revocation_statements,
            force_drop=change.force_drop,
            keep_owners=change.keep_owners,
        )
        report = watcher_service_pb2.ReportCleanupRoleRequest(
            name=change.name, target=change.target, mount=change.mount
        )
        try:
            self._services.roles.EnsureCleanupRole(request)
        except LeasegateError as err:
            report.error = err.message
            self._services.access.ReportCleanupRole(report)
            raise
        self._services.access.ReportCleanupRole(report)
