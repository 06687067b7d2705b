"""Recoveries of users without a lease, and the cleanup roles that they need."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access.domain import names
from services.access.domain.models import Attempt, AttemptState, CleanupRole, CleanupRoleState, Recovery
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, cleanup_roles, recoveries, row_of

_table = recoveries.c


def of_attempt(tx: Tx, attempt_id: str) -> list[Recovery]:
    """The recoveries of an attempt, oldest first."""
    query = sa.select(recoveries).where(_table.attempt == attempt_id).order_by(_table.sequence)
    return tx.fetch(Recovery, query)


def commit(tx: Tx, attempt_id: str, *, cleanup_role: str, accessor: str, after: int | None) -> Recovery | None:
    """A recovery is about to begin, with a number that is higher than every earlier one's.

    Args:
        tx: Transaction.
        attempt_id: The attempt, which must be ``RECOVERING``.
        cleanup_role: Name of the cleanup role.
        accessor: Names the cleanup role's token.
        after: For the second recovery, the number of the first, which must still be the newest; None for a first one.

    Returns:
        The recovery, or None if it is refused.
    """
    state = tx.execute(sa.select(attempts.c.state).where(attempts.c.id == attempt_id)).scalar()
    if state is not AttemptState.RECOVERING or (after is not None and newest(tx, attempt_id) != after):
        return None
    made = Recovery(
        sequence=0,
        attempt=attempt_id,
        cleanup_role=cleanup_role,
        accessor=accessor,
        second=after is not None,
        lease_id="",
        done_at=None,
    )
    done = tx.execute(recoveries.insert().values(**row_of(recoveries, made, without=("sequence",))))
    return replace(made, sequence=int(done.inserted_primary_key[0]))  # type: ignore[index]


def newest(tx: Tx, attempt_id: str) -> int | None:
    """Number of the newest recovery of an attempt."""
    found: int | None = tx.execute(sa.select(sa.func.max(_table.sequence)).where(_table.attempt == attempt_id)).scalar()
    return found


def discard_earlier(tx: Tx, attempt_id: str, *, newest: int) -> None:
    """The tokens of all recoveries before the newest are revoked, and need not be again. Those of which no lease is
    known are forgotten.

    (A lease of theirs that nobody learned of has the cleanup role's minute to live, and the newest recovery drops the user
    under it.)

    Without this, each further try of a drop that fails for hours would take a call for every try before it, and at last
    more than it may.
    """
    earlier = (_table.attempt == attempt_id, _table.sequence < newest)
    tx.execute(recoveries.delete().where(*earlier, _table.lease_id == ""))
    tx.execute(recoveries.update().where(*earlier).values(accessor=""))


def commit_lease(tx: Tx, number: int, *, lease_id: str) -> None:
    """The cleanup role has its lease."""
    tx.execute(recoveries.update().where(_table.sequence == number).values(lease_id=lease_id))


def commit_dropped(tx: Tx, number: int, *, at: float | None = None) -> None:
    """The cleanup role's lease was revoked, which dropped the user."""
    tx.execute(
        recoveries.update().where(_table.sequence == number, _table.done_at.is_(None)).values(done_at=at or tx.now)
    )


def require(tx: Tx, attempt: Attempt, *, force_drop: bool) -> CleanupRole:
    """The cleanup role that an attempt needs, which must be ``RECOVERING`` in this transaction; asked for if it is not there."""
    name = cleanup_role_of(attempt, force_drop=force_drop)
    known = find_cleanup_role(tx, name, attempt.target)
    if known and known.state is not CleanupRoleState.UNNEEDED:
        return known
    made = CleanupRole(
        name=name,
        target=attempt.target,
        mount=attempt.mount,
        db_name=attempt.db_name,
        revocation_statements=() if force_drop else attempt.revocation_statements,
        force_drop=force_drop,
        state=CleanupRoleState.NEEDED,
        error="",
    )
    _delete(tx, made)
    tx.execute(cleanup_roles.insert().values(**row_of(cleanup_roles, made)))
    tx.cleanup_roles.add((made.name, made.target))
    return made


def cleanup_role_of(attempt: Attempt, *, force_drop: bool) -> str:
    """Name of the cleanup role that an attempt needs. Our own statements finish a drop whatever the team's are."""
    statements = () if force_drop else attempt.revocation_statements
    return names.cleanup_role_name(
        mount=attempt.mount, db_name=attempt.db_name, revocation_statements=statements, force_drop=force_drop
    )


def find_cleanup_role(tx: Tx, name: str, target: int) -> CleanupRole | None:
    """A cleanup role."""
    query = sa.select(cleanup_roles).where(cleanup_roles.c.name == name, cleanup_roles.c.target == target)
    return tx.fetch_first(CleanupRole, query)


def pending(tx: Tx) -> list[CleanupRole]:
    """What the watcher has to hear of: cleanup_roles that are needed and not there, and ones that are needed no longer."""
    states = (CleanupRoleState.NEEDED, CleanupRoleState.UNNEEDED)
    return tx.fetch(CleanupRole, sa.select(cleanup_roles).where(cleanup_roles.c.state.in_(states)))


def report(tx: Tx, cleanup_role: CleanupRole, *, error: str) -> None:
    """The watcher says that a cleanup role is there, or why it is not; whoever waits for it is woken. One that may go
    already stays so.
    """
    if cleanup_role.state is CleanupRoleState.UNNEEDED:
        return
    state = CleanupRoleState.NEEDED if error else CleanupRoleState.READY
    _set(tx, cleanup_role, state=state, error=error)
    if not error:
        waiting = (
            attempts.c.state == AttemptState.RECOVERING,
            attempts.c.target == cleanup_role.target,
            attempts.c.mount == cleanup_role.mount,
        )
        tx.execute(
            attempts.update()
            .where(*waiting, attempts.c.db_name == cleanup_role.db_name, attempts.c.due_at > tx.now)
            .values(due_at=tx.now)
        )
        tx.wake(tx.now)


def mark_missing(tx: Tx, cleanup_role: CleanupRole) -> None:
    """A cleanup role that was said to be there is not: ask for it again. One that may go already stays so."""
    if cleanup_role.state is CleanupRoleState.UNNEEDED:
        return
    _set(tx, cleanup_role, state=CleanupRoleState.NEEDED, error="")
    tx.cleanup_roles.add((cleanup_role.name, cleanup_role.target))


def release(tx: Tx, attempt: Attempt) -> None:
    """An attempt needs its cleanup_roles no longer; those that no other needs may go."""
    for force_drop in (False, True):
        known = find_cleanup_role(tx, cleanup_role_of(attempt, force_drop=force_drop), attempt.target)
        if known and known.state is not CleanupRoleState.UNNEEDED and not _used(tx, known):
            _set(tx, known, state=CleanupRoleState.UNNEEDED, error="")
            tx.cleanup_roles.add((known.name, known.target))


def delete_unneeded(tx: Tx, name: str, target: int) -> None:
    """The watcher took note that a cleanup role may go."""
    tx.execute(
        cleanup_roles.delete().where(
            cleanup_roles.c.name == name,
            cleanup_roles.c.target == target,
            cleanup_roles.c.state == CleanupRoleState.UNNEEDED,
        )
    )


def _used(tx: Tx, cleanup_role: CleanupRole) -> bool:
    where = (
        attempts.c.state == AttemptState.RECOVERING,
        attempts.c.target == cleanup_role.target,
        attempts.c.mount == cleanup_role.mount,
    )
    using = tx.fetch(Attempt, sa.select(attempts).where(*where, attempts.c.db_name == cleanup_role.db_name))
    return any(cleanup_role_of(each, force_drop=each.force_drop) == cleanup_role.name for each in using)


def _set(tx: Tx, cleanup_role: CleanupRole, **columns: object) -> None:
    tx.execute(
        cleanup_roles.update()
        .where(cleanup_roles.c.name == cleanup_role.name, cleanup_roles.c.target == cleanup_role.target)
        .values(**columns)
    )


def _delete(tx: Tx, cleanup_role: CleanupRole) -> None:
    tx.execute(
        cleanup_roles.delete().where(
            cleanup_roles.c.name == cleanup_role.name, cleanup_roles.c.target == cleanup_role.target
        )
    )
