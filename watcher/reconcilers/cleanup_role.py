"""CleanupRoles, which access asks for when it has to drop a login without a lease.

The role service makes and removes them; what became of that is reported back to access.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeAlias

from leasegate.access.v1 import watcher_service_pb2
from leasegate.roles.v1 import role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import logs
from services.common.errors import LeasegateError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.resources import Body
from watcher.kube.result import DONE, Result
from watcher.reconcilers.vault_targets import VaultTargets

LOG = logs.logger(__name__)
CleanupRoleChange: TypeAlias = watcher_service_pb2.CleanupRoleNeeded | watcher_service_pb2.CleanupRoleUnneeded


class CleanupRoleReconciler:
    """Makes and removes cleanup roles. Safe for threads.

    Args:
        logins: Builds targets.
        peers: The services.
    """

    def __init__(self, *, logins: VaultTargets, peers: ServiceStubs) -> None:
        self._logins, self._peers = logins, peers
        self._wishes: dict[str, CleanupRoleChange] = {}
        self._lock = threading.Lock()

    def wish(self, wish: CleanupRoleChange) -> str:
        """Note what is wanted of a cleanup role, in place of what was wanted before; answers its name, which is the key to
        reconcile.
        """
        with self._lock:
            self._wishes[wish.name] = wish
        return wish.name

    def reconcile(self, name: str) -> Result:
        """Make or remove one cleanup role."""
        wish = self._wishes.get(name)
        if wish is None:
            return DONE
        target = self._logins.known_vault(_status(wish.target))
        try:
            if isinstance(wish, watcher_service_pb2.CleanupRoleNeeded):
                self._make(wish, target)
            else:
                self._peers.roles.DeleteCleanupRole(
                    role_service_pb2.DeleteCleanupRoleRequest(target=target, mount=wish.mount, name=name)
                )
        except LeasegateError as err:
            LOG.warning(
                "cleanup role not made or removed yet",
                cleanup_role=name,
                mount=wish.mount,
                reason=err.reason,
                error=err.message,
            )
            return Result(requeue=True, requeue_after_s=err.retry_after_s)
        with self._lock:
            if self._wishes.get(name) is wish:
                del self._wishes[name]
        return DONE

    def _make(self, wish: watcher_service_pb2.CleanupRoleNeeded, target: types_pb2.VaultTarget) -> None:
        request = role_service_pb2.EnsureCleanupRoleRequest(
            target=target,
            mount=wish.mount,
            name=wish.name,
            db_name=wish.db_name,
            revocation_statements=wish.revocation_statements,
            force_drop=wish.force_drop,
        )
        report = watcher_service_pb2.ReportCleanupRoleRequest(name=wish.name, target=wish.target, mount=wish.mount)
        try:
            self._peers.roles.EnsureCleanupRole(request)
        except LeasegateError as err:
            report.error = err.message
            self._peers.access.ReportCleanupRole(report)
            raise
        self._peers.access.ReportCleanupRole(report)


def _status(ref: types_pb2.VaultTargetRef) -> Body:
    """A target as ``Logins.known_vault`` takes it."""
    found: Mapping[str, Any] = {
        "namespace": ref.namespace,
        "name": ref.name,
        "address": ref.address,
        "vaultNamespace": ref.vault_namespace,
    }
    return dict(found)
