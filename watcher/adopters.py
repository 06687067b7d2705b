"""Adopters, which access asks for when it has to drop a login without a lease.

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
from watcher.kinds import Body
from watcher.logins import Logins
from watcher.outcome import DONE, Again, Outcome
from watcher.peers import Peers

LOG = logs.logger(__name__)
Wish: TypeAlias = watcher_service_pb2.AdopterNeeded | watcher_service_pb2.AdopterUnneeded


class Adopters:
    """Makes and removes adopters. Safe for threads.

    Args:
        logins: Builds targets.
        peers: The services.
    """

    def __init__(self, *, logins: Logins, peers: Peers) -> None:
        self._logins, self._peers = logins, peers
        self._wishes: dict[str, Wish] = {}
        self._lock = threading.Lock()

    def wish(self, wish: Wish) -> str:
        """Note what is wanted of an adopter, in place of what was wanted before; answers its name, which is the key to reconcile."""
        with self._lock:
            self._wishes[wish.name] = wish
        return wish.name

    def reconcile(self, name: str) -> Outcome:
        """Make or remove one adopter."""
        wish = self._wishes.get(name)
        if wish is None:
            return DONE
        target = self._logins.known_vault(_status(wish.target))
        try:
            if isinstance(wish, watcher_service_pb2.AdopterNeeded):
                self._make(wish, target)
            else:
                self._peers.roles.DeleteAdopter(role_service_pb2.DeleteAdopterRequest(target=target, mount=wish.mount, name=name))
        except LeasegateError as err:
            LOG.warning("adopter not made or removed yet", adopter=name, mount=wish.mount, reason=err.reason, error=err.message)
            return Again(err.retry_after_s)
        with self._lock:
            if self._wishes.get(name) is wish:
                del self._wishes[name]
        return DONE

    def _make(self, wish: watcher_service_pb2.AdopterNeeded, target: types_pb2.VaultTarget) -> None:
        request = role_service_pb2.EnsureAdopterRequest(
            target=target,
            mount=wish.mount,
            name=wish.name,
            db_name=wish.db_name,
            revocation_statements=wish.revocation_statements,
            finish=wish.finish,
        )
        report = watcher_service_pb2.ReportAdopterRequest(name=wish.name, target=wish.target, mount=wish.mount)
        try:
            self._peers.roles.EnsureAdopter(request)
        except LeasegateError as err:
            report.error = err.message
            self._peers.access.ReportAdopter(report)
            raise
        self._peers.access.ReportAdopter(report)


def _status(ref: types_pb2.TargetRef) -> Body:
    """A target as ``Logins.known_vault`` takes it."""
    found: Mapping[str, Any] = {"namespace": ref.namespace, "name": ref.name, "address": ref.address, "vaultNamespace": ref.vault_namespace}
    return dict(found)
