"""The catalog: which db_roles exist at which Vaults. Only the watcher and the operator's file name paths of Vault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.access.domain.models import DbRole, VaultTargetRow
from services.access.domain.quotas import no_room
from services.access.ledger import attempts, catalog, pauses, pruning, recoveries, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.changefeed import ChangeFeed
from services.access.vault.clients import VaultClients, row_of
from services.common.errors import (
    CallerNotAllowedError,
    SnapshotStaleError,
    VaultAuthRefusedError,
    VaultNotAllowedError,
)
from services.common.logs import logger
from services.common.vault.target import VaultTarget

_LOG = logger(__name__)
_ENSURED_FRESH_S = 60.0
"""A VaultTarget that is described again so soon is not written again."""


class Catalog:
    """Takes in Vaults, db_roles and reports of cleanup roles."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, feed: ChangeFeed) -> None:
        self._ledger, self._vaults, self._feed = ledger, vaults, feed

    def put_target(self, target: VaultTarget) -> VaultTargetRow:
        """Take in a Vault, and the auth there where the service has none of its own; work that lacked it is due now.

        Raises:
            VaultNotAllowedError: No entry of the operator's file names it.
            QuotaExceededError: Its namespace has as many as it may.
            VaultAuthRefusedError: Vault refused the auth.
            LeasegateError: Vault cannot be reached.
        """
        target = self._vaults.resolve(target)
        row = self._row(target)
        if target.auth is not None:
            self._vaults.put_auth(target)
            self._feed.auth_arrived(row.id)
            with self._ledger.write() as tx:
                attempts.retry_failed_now(tx, row.id)
                requests.retry_failed_now(tx, row.id)
        return row

    def _row(self, target: VaultTarget) -> VaultTargetRow:
        wanted = row_of(target)
        with self._ledger.read() as tx:
            known, now = catalog.find_target(tx, wanted), tx.now
        same = known is not None and known == replace(wanted, id=known.id)
        if known and same and now - known.ensured_at < _ENSURED_FRESH_S:
            return known
        with self._ledger.write() as tx:
            return catalog.put_target(tx, known) if known and same else self._put_target(tx, wanted)

    def _put_target(self, tx: Tx, wanted: VaultTargetRow) -> VaultTargetRow:
        """Store a VaultTarget, in place of what its AppBinding described before.

        Raises:
            QuotaExceededError: Its namespace has as many as it may.
        """
        known = catalog.find_target(tx, wanted)
        if wanted.namespace and known is None:
            if catalog.count_targets(tx, wanted) >= tx.quotas.targets > 0:
                catalog.drop_unused_targets(tx, *catalog.targets_of(wanted), before=tx.now - pruning.TARGETS_KEPT_S)
            count = catalog.count_targets(tx, wanted)
            if 0 < tx.quotas.targets <= count:
                raise no_room(
                    count,
                    tx.quotas.targets,
                    what="Vaults that its AppBindings name",
                    namespace=wanted.namespace,
                    do="delete AppBindings and PostgresRoles that are not needed",
                    option="--max-targets-per-namespace",
                )
        return catalog.put_target(tx, wanted)

    def named_target(self, tx: Tx, target: VaultTarget) -> VaultTargetRow:
        """The Vault that a caller refers to; stored as the reference says if it is new."""
        wanted = row_of(target)
        return catalog.find_target(tx, wanted) or self._put_target(tx, wanted)

    def refresh_targets(self) -> None:
        """Bring all VaultTargets in line with the operator's file, which may have other names and addresses now.

        Nothing moves: their keys stay. One that no entry names any more stays as it was.
        """
        with self._ledger.write() as tx:
            for row in catalog.targets(tx):
                try:
                    now = row_of(self._vaults.recorded(row))
                except (VaultNotAllowedError, VaultAuthRefusedError) as err:
                    _LOG.warning("Vault of the ledger not in --vault-config", vault=row.vault, error=err.message)
                    continue
                now = replace(now, id=row.id, key_digest=row.key_digest, ensured_at=row.ensured_at)
                if now.vault != row.vault:
                    pauses.rename_vault(tx, row.vault, now.vault)
                if now != row:
                    catalog.update_target(tx, now)

    def put_role(self, db_role: DbRole, *, at: VaultTarget, pause_number: int, caller: str) -> bool:
        """Take in a db_role and end its pause; if it changed, its access requests are reassessed.

        A pause does not end while the connection is about to change: the snapshot may be older than the change.

        Args:
            db_role: The db_role as the role service read or wrote it.
            at: Its Vault.
            pause_number: The number of its newest pause that the caller knew before; 0 for none.
            caller: Who puts it.

        Returns:
            Whether it is paused nevertheless.

        Raises:
            CallerNotAllowedError: The operator's catalog file defines it.
            SnapshotStaleError: The snapshot may be older than the newest pause.
        """
        with self._ledger.write() as tx:
            db_role = replace(db_role, target=self.named_target(tx, at).id)
            known = _known(tx, db_role)
            if known and known.configured:
                raise CallerNotAllowedError(
                    f"the role {db_role.name} is defined by --catalog: change it there", service="WatcherService"
                )
            number = known.pause_number if known else 0
            if pause_number != number:
                raise _stale(known, caller)
            changing = pauses.is_changing(tx, db_role)
            if changing:
                since = tx.now if known is None or known.paused_at is None else known.paused_at
                db_role = replace(
                    db_role, paused_at=since, paused_by=caller, pause_shown=bool(known and known.pause_shown)
                )
            self._put(tx, replace(db_role, pause_number=number))
        return changing

    def _put(self, tx: Tx, db_role: DbRole) -> None:
        known = _known(tx, db_role)
        if known != replace(db_role, id=known.id if known else 0):
            reassess.role_changed(tx, catalog.put_role(tx, db_role))

    def drop_role(self, *, cluster: str, cluster_uid: str, namespace: str, name: str, not_allowed: str = "") -> None:
        """Delete a db_role from the catalog; credentials in use expire without being renewed.

        Args:
            cluster: Its cluster.
            cluster_uid: uid of the cluster.
            namespace: Its namespace.
            name: Its name.
            not_allowed: Why its owner may not use its mount or connection any more; empty where it does not exist.
        """
        with self._ledger.write() as tx:
            known = catalog.find_role(tx, cluster, cluster_uid, namespace, name)
            if known and (not known.deleted or known.not_allowed != not_allowed):
                catalog.drop_role(tx, known, not_allowed=not_allowed)
                reassess.role_changed(tx, replace(known, deleted=True, not_allowed=not_allowed))

    def report_cleanup_role(self, name: str, *, at: VaultTarget, digest: str, error: str) -> None:
        """Store that a cleanup role exists, or why it could not be created.

        Args:
            name: Its name.
            at: The Vault.
            digest: The VaultTarget's own digest, which stays if its entry has another name now.
            error: Why it could not be created; empty if it exists.
        """
        with self._ledger.write() as tx:
            own = replace(row_of(at), key_digest=digest)
            asked = catalog.find_target(tx, own) or self.named_target(tx, at)
            known = recoveries.find_cleanup_role(tx, name, asked.id)
            if known:
                recoveries.report(tx, known, error=error)

    def put_configured(self, found: Sequence[tuple[VaultTarget, DbRole]]) -> None:
        """Take in the operator's catalog file, and delete db_roles that only an earlier version of it named."""
        with self._ledger.write() as tx:
            for target, db_role in found:
                self._put(tx, replace(db_role, target=catalog.put_target(tx, row_of(target)).id))
            names = {db_role.name for _, db_role in found}
            for db_role in catalog.configured(tx):
                if db_role.name not in names:
                    catalog.drop_role(tx, db_role)
                    reassess.role_changed(tx, replace(db_role, deleted=True))


def _known(tx: Tx, db_role: DbRole) -> DbRole | None:
    return catalog.find_role(tx, db_role.cluster, db_role.cluster_uid, db_role.namespace, db_role.name)


def _stale(known: DbRole | None, caller: str) -> SnapshotStaleError:
    """The error for a snapshot that may be older; it names the newest pause unless that is another caller's."""
    err = SnapshotStaleError("the snapshot may be older than the newest pause of its role: take another")
    if known is None or not known.paused or known.paused_by == caller:
        err.metadata = {"pause_number": str(known.pause_number if known else 0)}
    return err
