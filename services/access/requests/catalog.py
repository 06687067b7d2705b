"""The catalogue: which roles there are and at which Vaults, as the watcher or the operator's file says. Nobody else names paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.access.domain.models import DbRole, VaultTargetRow
from services.access.ledger import attempts, catalog, recoveries, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.changefeed import ChangeFeed
from services.access.vault.clients import VaultClients, row_of
from services.common.vault.address import Address
from services.common.vault.target import VaultTarget


@dataclass(frozen=True, slots=True)
class TargetName:
    """A Vault as a caller names one that it does not describe: ``leasegate.types.v1.VaultTargetRef``."""

    cluster: str
    namespace: str
    name: str
    digest: str
    address: str
    vault_namespace: str

    @property
    def server(self) -> str:
        """The address in the one form in which two can be compared."""
        return str(Address.parse(self.address))


class Catalog:
    """Takes in Vaults, roles and cleanup roles."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, feed: ChangeFeed) -> None:
        self._ledger, self._vaults, self._feed = ledger, vaults, feed

    def put_target(self, target: VaultTarget) -> VaultTargetRow:
        """Take in a Vault, and its login where the service has none of its own; what waits for a login goes on.

        Raises:
            VaultAuthRefused: Vault refused the login.
            LeasegateError: Vault cannot be reached.
        """
        row = self._row(target)
        if target.login is not None:
            self._vaults.give(target)
            self._feed.login_given(row.id)
            with self._ledger.write() as tx:
                attempts.retry_failed_now(tx, row.id)
                requests.retry_failed_now(tx, row.id)
        return row

    def _row(self, target: VaultTarget) -> VaultTargetRow:
        wanted = row_of(target)
        with self._ledger.read() as tx:
            known = catalog.find_target(tx, wanted.cluster, wanted.namespace, wanted.name, wanted.key_digest)
            if known is None and not target.mount:  # who has no login to give does not know its mount
                known = _same_place(tx, wanted)
        if known and (known == replace(wanted, id=known.id) or not target.mount):
            return known
        with self._ledger.write() as tx:
            return catalog.put_target(tx, wanted)

    def named(self, tx: Tx, name: TargetName) -> VaultTargetRow:
        """The Vault that a caller names; noted as it is named if it is new."""
        found = catalog.find_target(tx, name.cluster, name.namespace, name.name, name.digest)
        if found:
            return found
        described = VaultTarget(
            name=name.name,
            cluster=name.cluster,
            namespace=name.namespace,
            address=name.address,
            vault_namespace=name.vault_namespace,
        )
        return catalog.put_target(tx, row_of(described, digest=name.digest))

    def put_role(self, role: DbRole, *, at: TargetName) -> None:
        """Take in a role; its requests are looked at again if it is not what it was."""
        with self._ledger.write() as tx:
            self._put(tx, replace(role, target=self.named(tx, at).id))

    def _put(self, tx: Tx, role: DbRole) -> None:
        known = catalog.find_role(tx, role.cluster, role.cluster_uid, role.namespace, role.name)
        if known != replace(role, id=known.id if known else 0):
            reassess.role_changed(tx, catalog.put_role(tx, role))

    def drop_role(self, *, cluster: str, cluster_uid: str, namespace: str, name: str) -> None:
        """Take a role out; what was issued runs to its end."""
        with self._ledger.write() as tx:
            known = catalog.find_role(tx, cluster, cluster_uid, namespace, name)
            if known and not known.deleted:
                catalog.drop_role(tx, known)
                reassess.role_changed(tx, replace(known, deleted=True))

    def report_cleanup_role(self, name: str, *, at: TargetName, error: str) -> None:
        """A cleanup role is there, or could not be made."""
        with self._ledger.write() as tx:
            known = recoveries.find_cleanup_role(tx, name, self.named(tx, at).id)
            if known:
                recoveries.report(tx, known, error=error)

    def configure(self, found: Sequence[tuple[VaultTarget, DbRole]]) -> None:
        """Take in what the operator's file says; roles that it named at an earlier start and does not any more are
        taken out.
        """
        with self._ledger.write() as tx:
            for target, role in found:
                self._put(tx, replace(role, target=catalog.put_target(tx, row_of(target)).id))
            names = {role.name for _, role in found}
            for role in catalog.configured(tx):
                if role.name not in names:
                    catalog.drop_role(tx, role)
                    reassess.role_changed(tx, replace(role, deleted=True))


def _same_place(tx: Tx, wanted: VaultTargetRow) -> VaultTargetRow | None:
    return catalog.same_place(
        tx,
        cluster=wanted.cluster,
        namespace=wanted.namespace,
        name=wanted.name,
        server=wanted.server,
        vault_namespace=wanted.vault_namespace,
    )
