"""Looks for what ledger, Vault and PostgreSQL disagree about, and says of each what to do. It ends nothing.

The ledger is read before and after Vault is asked, so that a lease that comes or goes meanwhile is no finding. Vault lists leases only
for a policy with ``list`` and ``sudo`` on ``sys/leases/lookup/<mount>/creds/*``, which an operator grants or not (deploy/vault); what
could not be looked at is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.access.domain import orphans
from services.access.domain.models import VaultTargetRow
from services.access.domain.orphans import Orphan, Place, SkippedMount
from services.access.ledger import orphans as ledger_orphans
from services.access.ledger.db.database import Ledger
from services.access.vault.clients import VaultClients
from services.common.errors import LeasegateError, VaultAuthMissingError, VaultAuthRefusedError, VaultPolicyMissingError
from services.common.logs import bounded, logger
from services.common.names import CLEANUP_ROLE_PREFIX
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

_LOG = logger(__name__)
MOST_LOGINS = 20_000
_NOT_GRANTED = (
    "its policy does not let Leasegate list leases: grant it with `leasegate-vault-policies setup --list-leases`, or compare by hand"
    " with `vault list sys/leases/lookup/{mount}/creds`"
)


@dataclass(frozen=True, slots=True)
class OrphanReport:
    """What was found.

    Attributes:
        orphans: What is not explained.
        skipped_mounts: What was not compared.
        leases_compared: Leases of Vault.
        database_users_compared: Logins of PostgreSQL that are named as ours.
    """

    orphans: tuple[Orphan, ...]
    skipped_mounts: tuple[SkippedMount, ...]
    leases_compared: int
    database_users_compared: int


class OrphanScanner:
    """Finds orphans.

    Attributes:
        leases_found: How many leases the last look did not explain; None before the first.
        mounts_unlooked: How many mounts it could not compare, or not wholly.
        looked_at: When that was, seconds since 1970.
    """

    def __init__(self, ledger: Ledger, vaults: VaultClients) -> None:
        self._ledger, self._vaults = ledger, vaults
        self._one_at_a_time = threading.Lock()
        self.leases_found: int | None = None
        self.mounts_unlooked = 0
        self.looked_at: float | None = None

    def find(self, logins: Sequence[str] = ()) -> OrphanReport:
        """Compare the ledger with Vault's leases and with these logins.

        Args:
            logins: Names of logins that were seen in PostgreSQL before this call.

        Raises:
            LedgerUnavailable: The ledger cannot be read.
        """
        ids = {attempt_id for login in logins if (attempt_id := orphans.attempt_id(login))}
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
                ended = ledger_orphans.ended(tx, strange)
            found, undecided = orphans.leases(before, after, listed=listed, ended=ended, now=now)
            self.leases_found, self.mounts_unlooked, self.looked_at = (
                len(found),
                len(skipped_mounts) + len(undecided),
                time.time(),
            )
        of_logins = orphans.logins(logins, named)
        compared = sum(len(leases) for leases in listed.values())
        return OrphanReport((*found, *of_logins), (*skipped_mounts, *undecided), compared, len(ids))

    def look(self) -> None:
        """Compare the leases, and say in the log that there are some which nobody explains.

        Raises:
            LedgerUnavailable: The ledger cannot be read.
        """
        if found := self.find().orphans:
            _LOG.warning("leases that are not explained: see `leasegate orphans`", count=len(found))

    def _list(
        self, places: Mapping[Place, tuple[Mapping[int, VaultTargetRow], frozenset[str]]]
    ) -> tuple[dict[Place, set[str]], list[SkippedMount]]:
        listed: dict[Place, set[str]] = {}
        skipped_mounts: list[SkippedMount] = []
        for place, (targets, known) in places.items():
            try:
                listed[place] = self._leases_at(place, targets, known)
            except VaultPolicyMissingError:
                skipped_mounts.append(SkippedMount(place.server, place.mount, _NOT_GRANTED.format(mount=place.mount)))
            except LeasegateError as err:
                skipped_mounts.append(
                    SkippedMount(
                        place.server, place.mount, bounded(f"{err.message}: look again when that is mended", 300)
                    )
                )
        return listed, skipped_mounts

    def _leases_at(self, place: Place, targets: Mapping[int, VaultTargetRow], known: frozenset[str]) -> set[str]:
        """The leases of a mount, by the first login that there is: several teams may name one Vault."""
        missing: LeasegateError = VaultAuthMissingError(f"there is no login for {place.server}", target=place.server)
        for target in targets.values():
            try:
                with self._vaults.at(target) as vault:
                    return set(_leases(vault, place.mount, known))
            except (VaultAuthMissingError, VaultAuthRefusedError) as err:
                missing = err
        raise missing


def _leases(vault: Vault, mount: str, known: frozenset[str]) -> Iterator[str]:
    """The lease ids of Leasegate's roles on a mount; those of roles that others use are none of our business."""
    for role in _keys(vault, f"sys/leases/lookup/{mount}/creds"):
        if role.endswith("/") and orphans.is_ours(role.rstrip("/"), known=known, cleanup_roles=CLEANUP_ROLE_PREFIX):
            for key in _keys(vault, f"sys/leases/lookup/{mount}/creds/{role.rstrip('/')}"):
                yield f"{mount}/creds/{role}{key}"


def _keys(vault: Vault, path: str) -> list[str]:
    try:
        return [str(key) for key in vault.list(path).data.get("keys") or []]
    except VaultNotFoundError:
        return []
