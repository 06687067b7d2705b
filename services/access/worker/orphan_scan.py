"""The orphan scan compares the ledger with Vault's leases and PostgreSQL's roles. It advises and revokes nothing.

The ledger is read before and after Vault, so that a lease that comes or goes meanwhile is not reported. Vault lists
leases only for a policy with ``list`` and ``sudo`` on ``sys/leases/lookup/<mount>/creds/*``, which an operator may
grant (deploy/vault); mounts that could not be compared are reported as skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from services.access.domain import orphans
from services.access.domain.models import VaultTargetRow
from services.access.domain.orphans import OrphanReport, Place, SkippedMount
from services.access.ledger import orphans as ledger_orphans
from services.access.ledger.db.database import Ledger
from services.access.vault.clients import VaultClients
from services.common.errors import LeasegateError, VaultAuthMissingError, VaultAuthRefusedError, VaultPolicyMissingError
from services.common.logs import bounded, logger
from services.common.names import CLEANUP_ROLE_PREFIX
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

_LOG = logger(__name__)
_NOT_GRANTED = (
    "its policy does not let Leasegate list leases: grant it with `leasegate-vault-policies setup --list-leases`, or"
    " compare by hand with `vault list sys/leases/lookup/{mount}/creds`"
)


class OrphanScanner:
    """Finds orphans.

    Attributes:
        orphaned_leases: How many orphans among the leases the last scan found; None before the first.
        skipped_mounts: How many mounts it could not compare, or not wholly.
        scanned_at: When it ended, seconds since 1970.
    """

    def __init__(self, ledger: Ledger, vaults: VaultClients) -> None:
        self._ledger, self._vaults = ledger, vaults
        self._one_at_a_time = threading.Lock()
        self.orphaned_leases: int | None = None
        self.skipped_mounts = 0
        self.scanned_at: float | None = None

    def find_orphans(self, database_users: Sequence[str] = ()) -> OrphanReport:
        """Compare the ledger with Vault's leases and with these database users.

        Args:
            database_users: Names of PostgreSQL roles that were seen before this call.

        Raises:
            LedgerUnavailableError: The ledger cannot be read.
        """
        ids = {attempt_id for user in database_users if (attempt_id := orphans.attempt_id(user))}
        with self._one_at_a_time:
            with self._ledger.read() as tx:
                places, before = ledger_orphans.places(tx), ledger_orphans.entries(tx)
            listed, skipped_mounts = self._list(places)
            with self._ledger.read() as tx:
                after, now = ledger_orphans.entries(tx), tx.now
                named = ledger_orphans.by_id(tx, ids)
                strange = {lease_id for leases in listed.values() for lease_id in leases} - {
                    entry.lease_id for entry in after
                }
                ended = ledger_orphans.closed(tx, strange)
            found, undecided = orphans.leases(before, after, listed=listed, ended=ended, now=now)
            self.orphaned_leases, self.scanned_at = len(found), time.time()
            self.skipped_mounts = len(skipped_mounts) + len(undecided)
        of_users = orphans.database_users(database_users, named)
        compared = sum(len(leases) for leases in listed.values())
        return OrphanReport((*found, *of_users), (*skipped_mounts, *undecided), compared, len(ids))

    def scan(self) -> None:
        """Compare the leases, and log that there are orphans.

        Raises:
            LedgerUnavailableError: The ledger cannot be read.
        """
        if found := self.find_orphans().orphans:
            _LOG.warning("orphaned leases found: see `leasegate orphans`", count=len(found))

    def _list(
        self, places: Mapping[Place, tuple[Mapping[int, VaultTargetRow], frozenset[str]]]
    ) -> tuple[dict[Place, set[str]], list[SkippedMount]]:
        listed: dict[Place, set[str]] = {}
        skipped_mounts: list[SkippedMount] = []
        for place, (targets, known) in places.items():
            try:
                listed[place] = self._leases_at(place, targets, known)
            except VaultPolicyMissingError:
                skipped_mounts.append(SkippedMount(place.vault, place.mount, _NOT_GRANTED.format(mount=place.mount)))
            except LeasegateError as err:
                skipped_mounts.append(
                    SkippedMount(
                        place.vault, place.mount, bounded(f"{err.message}: scan again once that is resolved", 300)
                    )
                )
        return listed, skipped_mounts

    def _leases_at(self, place: Place, targets: Mapping[int, VaultTargetRow], known: frozenset[str]) -> set[str]:
        """The leases of a mount, listed with the first auth that works: several teams may name one Vault."""
        missing: LeasegateError = VaultAuthMissingError(f"there is no auth for {place.vault}", target=place.vault)
        for target in targets.values():
            try:
                with self._vaults.at(target) as vault:
                    return set(_leases(vault, place.mount, known))
            except (VaultAuthMissingError, VaultAuthRefusedError) as err:
                missing = err
        raise missing


def _leases(vault: Vault, mount: str, known: frozenset[str]) -> Iterator[str]:
    """The lease ids of Leasegate's db_roles on a mount; those of other roles are not Leasegate's to explain."""
    for role in _keys(vault, f"sys/leases/lookup/{mount}/creds"):
        if role.endswith("/") and orphans.is_ours(role.rstrip("/"), known=known, cleanup_roles=CLEANUP_ROLE_PREFIX):
            for key in _keys(vault, f"sys/leases/lookup/{mount}/creds/{role.rstrip('/')}"):
                yield f"{mount}/creds/{role}{key}"


def _keys(vault: Vault, path: str) -> list[str]:
    try:
        return [str(key) for key in vault.list(path).data.get("keys") or []]
    except VaultNotFoundError:
        return []
