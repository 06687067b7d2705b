"""Adoptions of logins without a lease, and the adopter roles that they need."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access import naming
from services.access.ledger.database import Tx
from services.access.ledger.schema import adopters, adoptions, attempts, row_of
from services.access.records import Adopter, AdopterState, Adoption, Attempt, State

_table = adoptions.c


def of_attempt(tx: Tx, attempt_id: str) -> list[Adoption]:
    """The adoptions of an attempt, oldest first."""
    query = sa.select(adoptions).where(_table.attempt == attempt_id).order_by(_table.number)
    return [Adoption(**row._mapping) for row in tx.execute(query)]


def commit(tx: Tx, attempt_id: str, *, adopter: str, accessor: str, after: int | None) -> Adoption | None:
    """An adoption is about to begin, with a number that is higher than every earlier one's.

    Args:
        tx: Transaction.
        attempt_id: The attempt, which must be `undoing`.
        adopter: Name of the adopter role.
        accessor: Names the adopter's token.
        after: For the second adoption, the number of the first, which must still be the newest; None for a first one.

    Returns:
        The adoption, or None if it is refused.
    """
    state = tx.execute(sa.select(attempts.c.state).where(attempts.c.id == attempt_id)).scalar()
    if state is not State.UNDOING or (after is not None and newest(tx, attempt_id) != after):
        return None
    made = Adoption(number=0, attempt=attempt_id, adopter=adopter, accessor=accessor, second=after is not None, lease_id="", done_at=None)
    done = tx.execute(adoptions.insert().values(**row_of(adoptions, made, without=("number",))))
    return replace(made, number=int(done.inserted_primary_key[0]))  # type: ignore[index]


def newest(tx: Tx, attempt_id: str) -> int | None:
    """Number of the newest adoption of an attempt."""
    found: int | None = tx.execute(sa.select(sa.func.max(_table.number)).where(_table.attempt == attempt_id)).scalar()
    return found


def outdated(tx: Tx, attempt_id: str, *, newest: int) -> None:
    """The tokens of all adoptions before the newest are revoked, and need not be again. Those of which no lease is known are forgotten.

    (A lease of theirs that nobody learned of has the adopter's minute to live, and the newest adoption drops the login under it.)

    Without this, each further try of a drop that fails for hours would take a call for every try before it, and at last more than it may.
    """
    earlier = (_table.attempt == attempt_id, _table.number < newest)
    tx.execute(adoptions.delete().where(*earlier, _table.lease_id == ""))
    tx.execute(adoptions.update().where(*earlier).values(accessor=""))


def commit_lease(tx: Tx, number: int, *, lease_id: str) -> None:
    """The adopter has its lease."""
    tx.execute(adoptions.update().where(_table.number == number).values(lease_id=lease_id))


def dropped(tx: Tx, number: int, *, at: float | None = None) -> None:
    """The adopter's lease was revoked, which dropped the login."""
    tx.execute(adoptions.update().where(_table.number == number, _table.done_at.is_(None)).values(done_at=at or tx.now))


def need(tx: Tx, attempt: Attempt, *, finish: bool) -> Adopter:
    """The adopter that an attempt needs, which must be `undoing` in this transaction; asked for if it is not there."""
    name = adopter_of(attempt, finish=finish)
    known = find(tx, name, attempt.target)
    if known and known.state is not AdopterState.UNNEEDED:
        return known
    made = Adopter(
        name=name,
        target=attempt.target,
        mount=attempt.mount,
        db_name=attempt.db_name,
        revocation_statements=() if finish else attempt.revocation_statements,
        finish=finish,
        state=AdopterState.NEEDED,
        error="",
    )
    _delete(tx, made)
    tx.execute(adopters.insert().values(**row_of(adopters, made)))
    tx.adopters.add((made.name, made.target))
    return made


def adopter_of(attempt: Attempt, *, finish: bool) -> str:
    """Name of the adopter that an attempt needs. Our own statements finish a drop whatever the team's are."""
    statements = () if finish else attempt.revocation_statements
    return naming.adopter_name(mount=attempt.mount, db_name=attempt.db_name, revocation_statements=statements, finish=finish)


def find(tx: Tx, name: str, target: int) -> Adopter | None:
    """An adopter."""
    row = tx.execute(sa.select(adopters).where(adopters.c.name == name, adopters.c.target == target)).one_or_none()
    return Adopter(**row._mapping) if row else None


def wanted(tx: Tx) -> list[Adopter]:
    """What the watcher has to hear of: adopters that are needed and not there, and ones that are needed no longer."""
    states = (AdopterState.NEEDED, AdopterState.UNNEEDED)
    return [Adopter(**row._mapping) for row in tx.execute(sa.select(adopters).where(adopters.c.state.in_(states)))]


def report(tx: Tx, adopter: Adopter, *, error: str) -> None:
    """The watcher says that an adopter is there, or why it is not; whoever waits for it is woken. One that may go already stays so."""
    if adopter.state is AdopterState.UNNEEDED:
        return
    state = AdopterState.NEEDED if error else AdopterState.READY
    _set(tx, adopter, state=state, error=error)
    if not error:
        waiting = (attempts.c.state == State.UNDOING, attempts.c.target == adopter.target, attempts.c.mount == adopter.mount)
        tx.execute(
            attempts.update().where(*waiting, attempts.c.db_name == adopter.db_name, attempts.c.work_at > tx.now).values(work_at=tx.now)
        )
        tx.wake(tx.now)


def missing(tx: Tx, adopter: Adopter) -> None:
    """An adopter that was said to be there is not: ask for it again. One that may go already stays so."""
    if adopter.state is AdopterState.UNNEEDED:
        return
    _set(tx, adopter, state=AdopterState.NEEDED, error="")
    tx.adopters.add((adopter.name, adopter.target))


def release(tx: Tx, attempt: Attempt) -> None:
    """An attempt needs its adopters no longer; those that no other needs may go."""
    for finish in (False, True):
        known = find(tx, adopter_of(attempt, finish=finish), attempt.target)
        if known and known.state is not AdopterState.UNNEEDED and not _used(tx, known):
            _set(tx, known, state=AdopterState.UNNEEDED, error="")
            tx.adopters.add((known.name, known.target))


def forget(tx: Tx, name: str, target: int) -> None:
    """The watcher took note that an adopter may go."""
    tx.execute(adopters.delete().where(adopters.c.name == name, adopters.c.target == target, adopters.c.state == AdopterState.UNNEEDED))


def _used(tx: Tx, adopter: Adopter) -> bool:
    where = (attempts.c.state == State.UNDOING, attempts.c.target == adopter.target, attempts.c.mount == adopter.mount)
    using = tx.execute(sa.select(attempts).where(*where, attempts.c.db_name == adopter.db_name))
    return any(adopter_of(a, finish=a.finish) == adopter.name for a in (Attempt(**row._mapping) for row in using))


def _set(tx: Tx, adopter: Adopter, **columns: object) -> None:
    tx.execute(adopters.update().where(adopters.c.name == adopter.name, adopters.c.target == adopter.target).values(**columns))


def _delete(tx: Tx, adopter: Adopter) -> None:
    tx.execute(adopters.delete().where(adopters.c.name == adopter.name, adopters.c.target == adopter.target))
