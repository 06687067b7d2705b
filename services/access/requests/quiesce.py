"""Pausing issuance where something is about to change or be deleted, and counting what is left.

``quiesce`` is for a mount or connection that leases depend on. ``pause_db_roles`` is for what an approval covers: the
db_roles themselves and what they run on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.access.domain.attempt_states import ENDING, LIVE, PREPARED
from services.access.domain.models import Attempt, AttemptState, DbRole, IssuancePause
from services.access.domain.request_view import Condition, role_changing
from services.access.ledger import attempts, catalog, pauses
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.common.vault.pause_report import LeaseRevocation
from services.common.vault.target import VaultTarget

VALID_S = 30.0
"""How long a count is valid: nothing is issued there meanwhile, so it only falls."""

READS_MAY_TAKE_S = 5.0
"""How long a change waits for a credential that is being read. After it the attempt is recovered, so that whatever the
read still creates is refused and dropped.
"""

SHOWN_AFTER_S = 1.0
"""How long a pause lasts before the access requests of its db_roles show it: most last for some milliseconds."""

_CHANGING = "its role or connection is about to change"


@dataclass(frozen=True, slots=True)
class Count:
    """What is left at a mount or connection.

    Attributes:
        remaining: Attempts whose database user may exist.
        counted_at: When they were counted.
        conditions: Why something is left.
    """

    remaining: int
    counted_at: float
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """Db_roles that are paused.

    Attributes:
        number: The number of this pause; 0 if there is no such db_role.
        under_way: Calls to Vault that began before the pause and have not ended.
        revoked_otherwise: Open attempts of the one db_role that were begun with another revocation than it will have.
        counted_at: When they were counted.
        conditions: What the owner of a db_role should know.
    """

    number: int
    under_way: int
    revoked_otherwise: int
    counted_at: float
    conditions: tuple[Condition, ...]


class IssuancePauses:
    """Pauses and resumes issuance.

    Args:
        ledger: The ledger.
        renewals: Counts the renewals under way of a mount, connection and db_role in Vault; the last two "" for any.
    """

    def __init__(self, ledger: Ledger, *, renewals: Callable[[str, str, str], int] = lambda *_at: 0) -> None:
        self._ledger, self._renewals = ledger, renewals

    def pause_db_roles(
        self,
        at: VaultTarget,
        *,
        mount: str,
        connection: str,
        vault_role: str,
        revocation: LeaseRevocation | None = None,
        caller: str,
    ) -> Paused:
        """Pause db_roles until a snapshot of each from after this call, and count the calls under way.

        Tokens that were made ahead are revoked, as a claim under way could read with them.

        Args:
            at: The Vault.
            mount: Path of the mount.
            connection: The connection whose db_roles are paused. Until it is written, a snapshot of one of them ends no
                pause, as it may be older than that. Empty for any connection.
            vault_role: Name in Vault of the one db_role; empty for all.
            revocation: How leases of the one db_role will end; None where that does not change.
            caller: Who pauses them.
        """
        place = _place(at, mount, connection, changing=True)
        with self._ledger.write() as tx:
            if not vault_role:
                pauses.add(tx, place)
            roles = pauses.roles_at(tx, place, vault_role=vault_role)
            number = 1 + max((db_role.pause_number for db_role in roles), default=-1)
            paused = [catalog.pause_role(tx, db_role, number=number, by=caller) for db_role in roles]
            self._show(tx, paused)
            found = pauses.open_attempts(tx, place, vault_role=vault_role)
            reading = _end_unread(tx, found)
            otherwise = _revoked_otherwise(found, revocation) if revocation else 0
            if any(tx.now - (db_role.paused_at or tx.now) >= READS_MAY_TAKE_S for db_role in paused):
                _recover(tx, reading)
                reading = []
            conditions = tuple(condition for db_role in paused[:1] if (condition := role_changing(db_role, now=tx.now)))
        # Counted after the commit: a renewal registers itself before it looks whether its db_role is paused.
        under_way = len(reading) + self._renewals(mount, connection, vault_role)
        return Paused(number, under_way, otherwise, tx.now, conditions)

    def _show(self, tx: Tx, paused: list[DbRole]) -> None:
        """Tell the access requests of a pause that lasts, once."""
        lasting = [
            db_role
            for db_role in paused
            if db_role.paused_at is not None and not db_role.pause_shown and tx.now - db_role.paused_at >= SHOWN_AFTER_S
        ]
        for db_role in lasting:
            catalog.show_pause(tx, db_role)
        reassess.place_changed(tx, lasting)

    def quiesce(self, at: VaultTarget, *, mount: str, connection: str, revoke_leases: bool) -> Count:
        """Pause issuance until ``resume``, and count what is left.

        Args:
            at: The Vault.
            mount: Path of the mount.
            connection: Name of the connection; empty for the whole mount.
            revoke_leases: Whether leases in use are revoked, too; else they are only counted.
        """
        place = _place(at, mount, connection)
        with self._ledger.write() as tx:
            if pauses.add(tx, place):
                reassess.place_changed(tx, pauses.roles_at(tx, place))
            for attempt in pauses.open_attempts(tx, place):
                if attempt.state in ENDING and (revoke_leases or attempt.state in PREPARED):
                    attempts.revoke(
                        tx,
                        attempt,
                        to=ENDING[attempt.state],
                        end_reason="its secret engine or connection is about to change or be deleted",
                    )
                    tx.changed.add(attempt.access_request_id)
            return _count(tx, place)

    def resume(self, at: VaultTarget, *, mount: str, connection: str, written: bool = False) -> int:
        """Resume issuance; without a pause there is nothing to do.

        Args:
            at: The Vault.
            mount: Path of the mount.
            connection: Name of the connection; empty for the whole mount.
            written: Whether the connection is in Vault as it was asked for. From now on a snapshot ends the pause of a
                db_role there; an earlier one may be older than the connection and does not. What the operator's catalog
                file defines has no snapshot.

        Returns:
            How many db_roles there wait for a snapshot.
        """
        place = _place(at, mount, connection)
        ends = [place, replace(place, changing=True)] if written else [place]
        with self._ledger.read() as tx:
            roles = pauses.roles_at(tx, place)
            ends = [each for each in ends if pauses.is_paused(tx, each)]
        if ends:
            with self._ledger.write() as tx:
                for each in ends:
                    pauses.remove(tx, each)
                roles = pauses.roles_at(tx, place)
                if ends[-1].changing:
                    roles = [
                        catalog.put_role(tx, _written(db_role)) if db_role.paused else db_role for db_role in roles
                    ]
                reassess.place_changed(tx, roles)
        return sum(db_role.paused and not db_role.deleted for db_role in roles)


def _written(db_role: DbRole) -> DbRole:
    """A paused db_role whose connection was written: earlier snapshots are stale."""
    db_role = replace(db_role, pause_number=db_role.pause_number + 1)
    return replace(db_role, paused_at=None, paused_by="", pause_shown=False) if db_role.configured else db_role


def _end_unread(tx: Tx, found: list[Attempt]) -> list[Attempt]:
    """End the attempts that have not read yet; return those whose credential is being read."""
    for attempt in found:
        if attempt.state in PREPARED:
            attempts.revoke(tx, attempt, to=ENDING[attempt.state], end_reason=_CHANGING)
    return [attempt for attempt in found if attempt.state is AttemptState.ISSUING]


def _revoked_otherwise(found: list[Attempt], revocation: LeaseRevocation) -> int:
    """How many attempts Vault would end with statements, or in a database, that are not those of their approval."""
    wanted = (revocation.connection, revocation.statements)
    return sum(
        attempt.may_have_database_user and (attempt.db_name, attempt.revocation_statements) != wanted
        for attempt in found
    )


def _recover(tx: Tx, reading: list[Attempt]) -> None:
    for attempt in reading:
        attempts.revoke(tx, attempt, to=ENDING[attempt.state], end_reason=_CHANGING)
        tx.changed.add(attempt.access_request_id)


def _place(at: VaultTarget, mount: str, connection: str, *, changing: bool = False) -> IssuancePause:
    return IssuancePause(
        vault=at.identity,
        vault_namespace=at.vault_namespace.strip("/"),
        mount=mount,
        connection=connection,
        changing=changing,
        cluster_uid=at.cluster_uid,
    )


def _count(tx: Tx, place: IssuancePause) -> Count:
    found = pauses.open_attempts(tx, place, of_every_cluster=True)
    left = [attempt for attempt in found if attempt.may_have_database_user]
    return Count(len(left), tx.now, _reasons(left))


def _reasons(left: list[Attempt]) -> tuple[Condition, ...]:
    if not left:
        return ()
    in_use = sum(attempt.state in LIVE for attempt in left)
    error = next((attempt.error for attempt in left if attempt.error), "")
    text = f"{in_use} credential(s) in use, {len(left) - in_use} database user(s) not dropped yet" + (
        f": {error}" if error else ""
    )
    return (Condition("Quiescing", True, "LeasesLeft", text),)
