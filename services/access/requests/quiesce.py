"""Pausing issuance at a mount or connection that is about to change or be deleted, and counting what is left."""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.attempt_states import ENDING, LIVE, PREPARED
from services.access.domain.models import Attempt, IssuancePause
from services.access.domain.request_view import Condition
from services.access.ledger import attempts, pauses
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.catalog import TargetName

VALID_S = 30.0
"""How long a count is valid: nothing is issued there meanwhile, so it only falls."""


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


class IssuancePauses:
    """Pauses and resumes issuance at a mount or connection."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def quiesce(self, at: TargetName, *, mount: str, connection: str, revoke_leases: bool) -> Count:
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

    def resume(self, at: TargetName, *, mount: str, connection: str) -> None:
        """Resume issuance; without a pause there is nothing to do."""
        place = _place(at, mount, connection)
        with self._ledger.read() as tx:
            if not pauses.is_paused(tx, place):
                return
        with self._ledger.write() as tx:
            pauses.remove(tx, place)
            reassess.place_changed(tx, pauses.roles_at(tx, place))


def _place(at: TargetName, mount: str, connection: str) -> IssuancePause:
    return IssuancePause(
        server=at.server, vault_namespace=at.vault_namespace.strip("/"), mount=mount, connection=connection
    )


def _count(tx: Tx, place: IssuancePause) -> Count:
    left = [attempt for attempt in pauses.open_attempts(tx, place) if attempt.may_have_database_user]
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
