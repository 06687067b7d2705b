"""Recoveries of database users without a lease, and the cleanup roles that they need."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access.domain import names
from services.access.domain.models import Attempt, AttemptState, CleanupRole, CleanupRoleState, DropBy, Recovery
from services.access.ledger import attempts as attempts_in_ledger
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, cleanup_roles, recoveries, row_of

_table = recoveries.c


def of_attempt(tx: Tx, attempt_id: str) -> list[Recovery]:
    """Return the recoveries of an attempt, oldest first."""
    query = sa.select(recoveries).where(_table.attempt == attempt_id).order_by(_table.sequence)
    return tx.fetch(Recovery, query)


def commit(
    tx: Tx, attempt_id: str, *, cleanup_role: str, accessor: str, after: int | None, lease_id: str = ""
) -> Recovery | None:
    """Store that a recovery is about to begin, with a sequence above every earlier one's.

    Args:
        tx: Transaction.
        attempt_id: The attempt, which must be RECOVERING.
        cleanup_role: Name of the cleanup role.
        accessor: Names the cleanup role's token.
        after: For the second recovery, the sequence of the first, which must still be the newest; None for a first one.
        lease_id: The lease of the cleanup role that an earlier recovery got, which this one takes over.

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
        lease_id=lease_id,
        done_at=None,
    )
    if lease_id:
        of_earlier = (_table.attempt == attempt_id, _table.lease_id == lease_id)
        tx.execute(recoveries.update().where(*of_earlier).values(lease_id=""))
    done = tx.execute(recoveries.insert().values(**row_of(recoveries, made, without=("sequence",))))
    return replace(made, sequence=int(done.inserted_primary_key[0]))  # type: ignore[index]


def newest(tx: Tx, attempt_id: str) -> int | None:
    """Return the sequence of the newest recovery of an attempt."""
    found: int | None = tx.execute(sa.select(sa.func.max(_table.sequence)).where(_table.attempt == attempt_id)).scalar()
    return found


def discard_earlier(tx: Tx, attempt_id: str, *, newest: int) -> None:
    """Store that the tokens of all recoveries before the newest are revoked, and delete those without a known lease.

    A lease of theirs that was never stored lives for the cleanup role's minute, and the newest recovery drops its
    database user. Without this, each further try of a drop that fails for hours would take a request for every try
    before it, and at last more than its deadline allows.
    """
    earlier = (_table.attempt == attempt_id, _table.sequence < newest)
    tx.execute(recoveries.delete().where(*earlier, _table.lease_id == ""))
    tx.execute(recoveries.update().where(*earlier).values(accessor=""))


def commit_lease(tx: Tx, recovery: Recovery, *, lease_id: str) -> None:
    """Store the lease of the cleanup role: from here on the database user is locked out."""
    tx.execute(recoveries.update().where(_table.sequence == recovery.sequence).values(lease_id=lease_id))
    attempts_in_ledger.commit_locked_out(tx, recovery.attempt)


def commit_dropped(tx: Tx, sequence: int, *, at: float | None = None) -> None:
    """Store that the lease of the cleanup role was revoked, which dropped the database user."""
    tx.execute(
        recoveries.update().where(_table.sequence == sequence, _table.done_at.is_(None)).values(done_at=at or tx.now)
    )


def require(tx: Tx, attempt: Attempt, *, drop_by: DropBy) -> CleanupRole:
    """Return the cleanup role that a RECOVERING attempt needs; the watcher is asked for it if it does not exist."""
    name = cleanup_role_of(attempt, drop_by=drop_by)
    known = find_cleanup_role(tx, name, attempt.target)
    if known and known.state is not CleanupRoleState.UNNEEDED:
        return known
    made = CleanupRole(
        name=name,
        target=attempt.target,
        mount=attempt.mount,
        db_name=attempt.db_name,
        revocation_statements=attempt.revocation_statements if drop_by is DropBy.TEAM else (),
        drop_by=drop_by,
        state=CleanupRoleState.NEEDED,
        error="",
    )
    _delete(tx, made)
    tx.execute(cleanup_roles.insert().values(**row_of(cleanup_roles, made)))
    tx.cleanup_roles.add((made.name, made.target))
    return made


def cleanup_role_of(attempt: Attempt, *, drop_by: DropBy) -> str:
    """Return the name of the cleanup role of an attempt that has the statements of ``drop_by``."""
    statements = attempt.revocation_statements if drop_by is DropBy.TEAM else ()
    return names.cleanup_role_name(
        mount=attempt.mount, db_name=attempt.db_name, revocation_statements=statements, drop_by=drop_by
    )


def find_cleanup_role(tx: Tx, name: str, target: int) -> CleanupRole | None:
    """Return a cleanup role; None if it is not known."""
    query = sa.select(cleanup_roles).where(cleanup_roles.c.name == name, cleanup_roles.c.target == target)
    return tx.fetch_first(CleanupRole, query)


def pending(tx: Tx) -> list[CleanupRole]:
    """Return the cleanup roles that the watcher has to create or delete."""
    states = (CleanupRoleState.NEEDED, CleanupRoleState.UNNEEDED)
    return tx.fetch(CleanupRole, sa.select(cleanup_roles).where(cleanup_roles.c.state.in_(states)))


def report(tx: Tx, cleanup_role: CleanupRole, *, error: str) -> None:
    """Store that a cleanup role exists, or why it does not, and schedule the attempts that wait for it.

    One that is unneeded stays so.
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
    """Ask for a cleanup role again that was reported and does not exist; one that is unneeded stays so."""
    if cleanup_role.state is CleanupRoleState.UNNEEDED:
        return
    _set(tx, cleanup_role, state=CleanupRoleState.NEEDED, error="")
    tx.cleanup_roles.add((cleanup_role.name, cleanup_role.target))


def release(tx: Tx, attempt: Attempt) -> None:
    """Mark the cleanup roles of an attempt as unneeded, unless another attempt needs them."""
    for drop_by in DropBy:
        known = find_cleanup_role(tx, cleanup_role_of(attempt, drop_by=drop_by), attempt.target)
        if known and known.state is not CleanupRoleState.UNNEEDED and not _used(tx, known):
            _set(tx, known, state=CleanupRoleState.UNNEEDED, error="")
            tx.cleanup_roles.add((known.name, known.target))


def delete_unneeded(tx: Tx, name: str, target: int) -> None:
    """Delete a cleanup role that is unneeded, once the watcher knows."""
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
    return any(cleanup_role_of(each, drop_by=each.drop_by) == cleanup_role.name for each in using)


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
