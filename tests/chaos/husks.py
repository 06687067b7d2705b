"""Leases in Vault without a database user, which no attempt of the ledger owns. Each is proven harmless, or it is lost.

Vault registers a lease under a token that was revoked while it read, and keeps that lease to its TTL (tests/model has
this fault, too). Recovery drops the database user, if there is one. Such a lease is allowed only if

- one read whose outcome the ledger never learned explains it, of an attempt that a recovery closed (or of a cleanup
  role of it): of the same db_role, under way when the lease was made, and each read explains one lease at most; or it
  is the attempt's own lease, whose team's statements failed for good, so that the cleanup role dropped the user; and
- Vault revokes it at once when asked, and that changes nothing in PostgreSQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.agreement import LOST, Eyes, open_attempts

SLACK_S = 5.0
"""Between this clock and Vault's, and for what goes on at Vault after its caller gave up."""

_SECOND = "SELECT 1 FROM recoveries d WHERE d.attempt = a.id AND d.second AND d.done_at IS NOT NULL"
_RECOVERED = f"a.state = 'closed' AND EXISTS ({_SECOND})"
_READS = f"""SELECT a.mount || '/creds/' || a.vault_role || '/', a.begun_at, a.closed_at
FROM attempts a WHERE a.lease_id = '' AND {_RECOVERED}"""  # noqa: S608
_CLEANUP_ROLES = f"""SELECT DISTINCT a.mount || '/creds/' || d.cleanup_role || '/', a.begun_at, a.closed_at
FROM recoveries d JOIN attempts a ON a.id = d.attempt WHERE {_RECOVERED}"""  # noqa: S608
_UNKNOWN = """SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'recoveries'), 0)
- (SELECT count(*) FROM recoveries WHERE lease_id <> '')"""
"""Recoveries whose lease the ledger never learned; pruned with their tokens, but a sequence is never given twice."""
_REFUSED = f"SELECT a.lease_id FROM attempts a WHERE a.drop_by <> 'team' AND a.lease_id <> '' AND {_RECOVERED}"  # noqa: S608


@dataclass(slots=True)
class Read:
    """A read whose outcome the ledger never learned.

    Attributes:
        below: What the id of its lease begins with.
        since: When it may have begun, seconds since 1970.
        until: When it was over for good.
    """

    below: str
    since: float
    until: float

    def fits(self, lease_id: str, at: float) -> bool:
        """Whether a lease of that time may have come of it."""
        return lease_id.startswith(self.below) and self.since <= at <= self.until


@dataclass
class Found:
    """What became of leases that the ledger does not own.

    Attributes:
        ended: How many were explained and ended.
        wrong: What was not.
    """

    ended: int = 0
    wrong: list[str] = field(default_factory=list)


def end_husks(
    eyes: Eyes, beyond: Collection[str], *, ledger: Path, real: Callable[[float], float] = lambda counts: counts
) -> Found:
    """Explain and end leases that Vault has beyond the ledger's.

    Args:
        eyes: Root's.
        beyond: Ids of these leases.
        ledger: Its file.
        real: Makes real time of the ledger's.
    """
    found, known = Found(), _Known(ledger, real)
    for at, lease_id in sorted(
        (at, lease_id) for lease_id in beyond if (at := eyes.lease_issued_at(lease_id)) is not None
    ):
        if not known.explains(lease_id, at):
            found.wrong.append(
                f"{LOST} Vault has a lease of {_role(lease_id)} that no recovery explains, made at {at:.1f}"
            )
        elif why := _harm(eyes, lease_id, ledger):
            found.wrong.append(f"{LOST} a lease of {_role(lease_id)}: {why}")
        else:
            found.ended += 1
    return found


class _Known:
    """What the ledger knows of reads whose outcome it never learned; each explains one lease."""

    def __init__(self, ledger: Path, real: Callable[[float], float]) -> None:
        with closing(sqlite3.connect(ledger)) as connection:
            self._refused = {str(row[0]) for row in connection.execute(_REFUSED)}
            self._reads, self._cleanup_roles = (
                [
                    Read(str(below), real(since) - SLACK_S, real(until) + SLACK_S)
                    for below, since, until in connection.execute(query)
                ]
                for query in (_READS, _CLEANUP_ROLES)
            )
            (self._recoveries_left,) = connection.execute(_UNKNOWN).fetchone()

    def explains(self, lease_id: str, at: float) -> bool:
        """Whether a recovery explains a lease of that time; the first of those that fit is used up."""
        if lease_id in self._refused:
            return True
        if self._recoveries_left and any(read.fits(lease_id, at) for read in self._cleanup_roles):
            self._recoveries_left -= 1
            return True
        fitting = [read for read in self._reads if read.fits(lease_id, at)]
        if fitting:
            self._reads.remove(min(fitting, key=lambda read: read.until))
        return bool(fitting)


def _harm(eyes: Eyes, lease_id: str, ledger: Path) -> str:
    """Why a lease is not harmless; empty if it is."""
    rows, database_users = set(open_attempts(ledger)), eyes.database_users()
    status = eyes.revoke(lease_id)
    changed = database_users.items() ^ eyes.database_users().items()
    meanwhile = {row.database_user for row in rows ^ set(open_attempts(ledger))}
    if not 200 <= status < 300:
        return f"Vault answers {status} when it is to end it"
    harmed = {user for user, _ in changed} - meanwhile
    return f"its end changed {', '.join(sorted(harmed))}" if harmed else ""


def _role(lease_id: str) -> str:
    return lease_id.partition("/creds/")[2].partition("/")[0]
