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

from services.access import compare
from services.access.compare import Kind, Orphan, Place, Unlooked
from services.access.ledger import lookups
from services.access.ledger.database import Ledger
from services.access.records import TargetRow
from services.access.vaults import Vaults
from services.common.errors import LeasegateError, LoginMissing, LoginRefused, VaultPolicyMissing
from services.common.logs import bounded, logger
from services.common.names import ADOPTER_PREFIX
from services.common.vault.answer import NotThere
from services.common.vault.client import Vault

__all__ = ["MOST_LOGINS", "Finder", "Kind", "Orphan", "Report"]

_LOG = logger(__name__)
MOST_LOGINS = 20_000
_NOT_GRANTED = (
    "its policy does not let Leasegate list leases: grant it with `leasegate-vault-policies setup --list-leases`, or compare by hand"
    " with `vault list sys/leases/lookup/{mount}/creds`"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        orphans: What is not explained.
        unlooked: What was not compared.
        leases_compared: Leases of Vault.
        logins_compared: Logins of PostgreSQL that are named as ours.
    """

    orphans: tuple[Orphan, ...]
    unlooked: tuple[Unlooked, ...]
    leases_compared: int
    logins_compared: int


class Finder:
    """Finds orphans.

    Attributes:
        leases_found: How many leases the last look did not explain; None before the first.
        mounts_unlooked: How many mounts it could not compare, or not wholly.
        looked_at: When that was, seconds since 1970.
    """

    def __init__(self, ledger: Ledger, vaults: Vaults) -> None:
        self._ledger, self._vaults = ledger, vaults
        self._one_at_a_time = threading.Lock()
        self.leases_found: int | None = None
        self.mounts_unlooked = 0
        self.looked_at: float | None = None

    def find(self, logins: Sequence[str] = ()) -> Report:
        """Compare the ledger with Vault's leases and with these logins.

        Args:
            logins: Names of logins that were seen in PostgreSQL before this call.

        Raises:
            LedgerUnavailable: The ledger cannot be read.
        """
        ids = {found for login in logins if (found := compare.attempt_id(login))}
        with self._one_at_a_time:
            with self._ledger.read() as tx:
                places, before = lookups.places(tx), lookups.entries(tx)
            listed, unlooked = self._list(places)
            with self._ledger.read() as tx:
                after, now = lookups.entries(tx), tx.now
                named = lookups.by_id(tx, ids)
                strange = {lease_id for leases in listed.values() for lease_id in leases} - {entry.lease_id for entry in after}
                ended = lookups.ended(tx, strange)
            orphans, undecided = compare.leases(before, after, listed=listed, ended=ended, now=now)
            self.leases_found, self.mounts_unlooked, self.looked_at = len(orphans), len(unlooked) + len(undecided), time.time()
        of_logins = compare.logins(logins, named)
        compared = sum(len(leases) for leases in listed.values())
        return Report((*orphans, *of_logins), (*unlooked, *undecided), compared, len(ids))

    def look(self) -> None:
        """Compare the leases, and say in the log that there are some which nobody explains.

        Raises:
            LedgerUnavailable: The ledger cannot be read.
        """
        if found := self.find().orphans:
            _LOG.warning("leases that are not explained: see `leasegate orphans`", count=len(found))

    def _list(self, places: Mapping[Place, tuple[Mapping[int, TargetRow], frozenset[str]]]) -> tuple[dict[Place, set[str]], list[Unlooked]]:
        listed: dict[Place, set[str]] = {}
        unlooked: list[Unlooked] = []
        for place, (targets, known) in places.items():
            try:
                listed[place] = self._leases_at(place, targets, known)
            except VaultPolicyMissing:
                unlooked.append(Unlooked(place.server, place.mount, _NOT_GRANTED.format(mount=place.mount)))
            except LeasegateError as err:
                unlooked.append(Unlooked(place.server, place.mount, bounded(f"{err.message}: look again when that is mended", 300)))
        return listed, unlooked

    def _leases_at(self, place: Place, targets: Mapping[int, TargetRow], known: frozenset[str]) -> set[str]:
        """The leases of a mount, by the first login that there is: several teams may name one Vault."""
        missing: LeasegateError = LoginMissing(f"there is no login for {place.server}", target=place.server)
        for target in targets.values():
            try:
                with self._vaults.at(target) as vault:
                    return set(_leases(vault, place.mount, known))
            except (LoginMissing, LoginRefused) as err:
                missing = err
        raise missing


def _leases(vault: Vault, mount: str, known: frozenset[str]) -> Iterator[str]:
    """The lease ids of Leasegate's roles on a mount; those of roles that others use are none of our business."""
    for role in _keys(vault, f"sys/leases/lookup/{mount}/creds"):
        if role.endswith("/") and compare.is_ours(role.rstrip("/"), known=known, adopters=ADOPTER_PREFIX):
            for key in _keys(vault, f"sys/leases/lookup/{mount}/creds/{role.rstrip('/')}"):
                yield f"{mount}/creds/{role}{key}"


def _keys(vault: Vault, path: str) -> list[str]:
    try:
        return [str(key) for key in vault.list(path).data.get("keys") or []]
    except NotThere:
        return []
