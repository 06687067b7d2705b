"""Attempts: each function is one transition of proofs/attempt_model.py, or the reading of rows. None waits and none calls Vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from services.access import attempts as rules
from services.access import naming
from services.access.ledger.database import Tx
from services.access.ledger.prepared import Query, Statement, given
from services.access.ledger.schema import attempts, row_of
from services.access.records import Attempt, Lane, Request, Role, State

READING_ABANDONED_S = 150.0
"""A read that has been under way for so long has lost its reader; longer than any call to Vault may take."""

READER_GRACE_S = 3.0
"""How long a reader whose attempt was ended may take to revoke by itself what it gets, and a read whose reader is gone may go on.

After that the attempt is undone by adoption, which begins with the end of its token. A lease that Vault registers before dies with the
token; one that it registers for a token that was ended during the read would stay in its list until its TTL, without a login.
"""

TOKEN_AFTER_S = 0.25
"""How long after its login an attempt's token is ended: nobody waits for that, and whoever waits for the login's end goes on meanwhile."""

_BATCH = 500
"""Values of one statement; SQLite takes 32,766 and no more."""

_table = attempts.c
OPEN = tuple(state for state in State if state is not State.CLOSED)
"""Asked for by name, not by "is not closed", of which the index knows nothing."""

_GET = Query(sa.select(attempts).where(_table.id == given(_table.id)), Attempt)
_OPEN_OF = Query(
    sa.select(attempts).where(_table.request == given(_table.request), _table.state != State.CLOSED).order_by(_table.number), Attempt
)
_BEGIN = Statement(attempts.insert().values({column.name: given(column) for column in attempts.columns}))
_WITH_LOGIN = tuple(state for state in OPEN if state not in (State.NEW, State.TOKEN, State.END_TOKEN))


def get(tx: Tx, attempt_id: str) -> Attempt:
    """One attempt, which must be there."""
    found = _GET.first(tx, id_=attempt_id)
    if found is None:
        raise LookupError(f"the ledger has no attempt {attempt_id}")
    return found


def open_of(tx: Tx, uid: str) -> list[Attempt]:
    """The attempts of a request that are not closed, oldest first."""
    return _OPEN_OF.all(tx, request_=uid)


def open_of_many(tx: Tx, uids: Sequence[str]) -> dict[str, list[Attempt]]:
    """The same of several requests."""
    found: dict[str, list[Attempt]] = {uid: [] for uid in uids}
    query = sa.select(attempts).where(_table.request.in_(uids), _table.state != State.CLOSED).order_by(_table.number)
    for row in tx.execute(query):
        found[row.request].append(Attempt(**row._mapping))
    return found


def begin(tx: Tx, *, request: Request, role: Role, number: int, work_at: float | None) -> Attempt:
    """Begin an attempt, `new`. With ``work_at`` a worker makes its token, else whoever claims does."""
    attempt_id = naming.new_attempt_id()
    display = naming.display_name(attempt_id, namespace=request.namespace, role=role.name)
    made = Attempt(
        id=attempt_id,
        request=request.uid,
        number=number,
        state=State.NEW,
        grant=request.digest,
        role_digest=role.digest,
        target=role.target,
        mount=role.mount,
        vault_role=role.vault_role,
        db_name=role.db_name,
        revocation_statements=role.revocation_statements,
        default_ttl_s=role.default_ttl_s,
        max_ttl_s=role.max_ttl_s,
        login=naming.login_name(display),
        begun_at=tx.now,
        work_at=work_at,
    )
    _BEGIN.run(tx, **{f"{name}_": value for name, value in row_of(attempts, made).items()})
    tx.wake(work_at)
    return made


def commit_accessor(tx: Tx, attempt_id: str, *, accessor: str, token_ends_at: float) -> bool:
    """Its token is made: `token`. Refused once the attempt reads or was ended; another accessor is replaced."""
    return _move(
        tx,
        attempt_id,
        State.NEW,
        State.TOKEN,
        to=State.TOKEN,
        accessor=accessor,
        token_ends_at=token_ends_at,
        begun_at=tx.now,
        work_at=None,
    )


def commit_reading(tx: Tx, attempt_id: str, *, accessor: str, replacing: bool = False, token_ends_at: float | None = None) -> bool:
    """The read begins, with the token of this accessor: `reading`.

    Args:
        tx: Transaction.
        attempt_id: The attempt.
        accessor: Names the token that will read.
        replacing: Whether this is also the commit of the accessor; else the ledger must hold the same one.
        token_ends_at: With ``replacing``, the end of that token.
    """
    committed: dict[str, Any] = {"accessor": accessor, "token_ends_at": token_ends_at} if replacing else {}
    states = (State.NEW, State.TOKEN) if replacing else (State.TOKEN,)
    work_at = tx.now + READING_ABANDONED_S
    return _move(
        tx, attempt_id, *states, to=State.READING, holding=None if replacing else accessor, lane=Lane.REVOKE, work_at=work_at, **committed
    )


def commit_lease(
    tx: Tx, attempt_id: str, *, lease_id: str, ttl_s: float, renewable: bool, ends_at: float, max_ends_at: float | None, issued_at: float
) -> bool:
    """The credential's lease is known: `issued`. Refused if the attempt was ended or is being undone meanwhile."""
    tx.wake(ends_at)
    lease: dict[str, Any] = {"lease_id": lease_id, "lease_ttl_s": ttl_s, "renewable": renewable}
    times: dict[str, Any] = {"ends_at": ends_at, "max_ends_at": max_ends_at, "issued_at": issued_at}
    return _move(tx, attempt_id, State.READING, to=State.ISSUED, lane=Lane.REVOKE, work_at=ends_at, **lease, **times)


def activate(tx: Tx, attempt: Attempt, *, work_at: float) -> bool:
    """Acknowledged: `active`."""
    tx.wake(work_at)
    return _move(tx, attempt.id, State.ISSUED, to=State.ACTIVE, acked_at=tx.now, lane=Lane.RENEW, work_at=work_at)


def retire(tx: Tx, attempt: Attempt, *, overlap_ends_at: float, work_at: float) -> bool:
    """A later one was acknowledged: `old`, until the overlap is over. ``work_at`` is then, or when its lease has to be prolonged before."""
    tx.wake(work_at)
    change: dict[str, Any] = {"lane": _lane_of_old(work_at, overlap_ends_at), "renew_tries": 0}
    change |= {"overlap_ends_at": overlap_ends_at, "work_at": work_at}
    return _move(tx, attempt.id, State.ACTIVE, State.SUPERSEDED, to=State.OLD, **change)


def supersede(tx: Tx, attempt: Attempt) -> bool:
    """Answered but never acknowledged, and another is begun: `superseded`, until its end or a later one's acknowledge."""
    tx.wake(attempt.ends_at)
    return _move(tx, attempt.id, State.ISSUED, to=State.SUPERSEDED, lane=Lane.REVOKE, work_at=attempt.ends_at)


def end(tx: Tx, attempt: Attempt, *, to: State, why: str, error: str = "") -> bool:
    """Have it ended: `end`, or `endt` if no read was begun. At once, or after the reader's grace where there may be one.

    Args:
        tx: Transaction.
        attempt: As it was read in this transaction.
        to: One of the two.
        why: What people are told of it, also when it is closed.
        error: What failed, if something did.
    """
    due = tx.now + (READER_GRACE_S if attempt.state is State.READING and to is State.END else 0.0)
    tx.wake(due)
    return _move(tx, attempt.id, attempt.state, to=to, lane=Lane.REVOKE, work_at=due, tries=0, error=error, why=why)


def end_all(tx: Tx, uid: str, mapping: Mapping[State, State], *, why: str) -> None:
    """Have a request's attempts ended as ``mapping`` says."""
    for attempt in open_of(tx, uid):
        if attempt.state in mapping:
            end(tx, attempt, to=mapping[attempt.state], why=why)


def begin_undo(tx: Tx, attempt: Attempt, *, finish: bool) -> bool:
    """From here on lease commit and acknowledge refuse the attempt, however alive its reader may be: `undoing`."""
    return _move(tx, attempt.id, State.READING, State.END, to=State.UNDOING, finish=attempt.finish or finish)


def dropped(tx: Tx, attempt: Attempt) -> bool:
    """Vault has dropped its login, by lease id: its token is all that is left, `endt`, or nothing, `closed`.

    The token is ended a moment later, and nobody is woken for it: the worker that dropped the login looks next at what is due.
    """
    if not attempt.accessor:
        return close(tx, attempt.id, State.END)
    tx.changed.add(attempt.request)
    due = tx.now + TOKEN_AFTER_S
    return _move(tx, attempt.id, State.END, to=State.END_TOKEN, lane=Lane.REVOKE, work_at=due, tries=0, error="")


def close(tx: Tx, attempt_id: str, *states: State) -> bool:
    """No login of it is left: `closed`."""
    done = _move(tx, attempt_id, *states, to=State.CLOSED, closed_at=tx.now, work_at=None, accessor="", error="")
    if done and states != (State.END_TOKEN,):  # of a token's end nobody has to hear
        tx.changed.add(tx.execute(sa.select(_table.request).where(_table.id == attempt_id)).scalar_one())
    return done


def put_off(tx: Tx, attempt: Attempt, *, until: float, error: str = "", failed: bool = True, finish: bool = False) -> bool:
    """Try again later, if it is still in the state in which it was read; answers whether it is.

    Args:
        tx: Transaction.
        attempt: As it was read.
        until: When.
        error: What to tell its owner, bounded.
        failed: Whether this counts as a failure in a row.
        finish: Whether our own statements have to drop the login.
    """
    change: dict[str, Any] = {"work_at": until, "error": error}
    if failed:
        change["tries"] = _table.tries + 1
    if finish:
        change["finish"] = True
    tx.wake(until)
    return _update(tx, attempt.id, (attempt.state,), change)


def prolong(tx: Tx, renewed: Attempt) -> bool:
    """Vault prolonged the lease of an active attempt: keep its times, and when to look at it again."""
    tx.wake(renewed.work_at)
    names = ("lease_ttl_s", "ends_at", "max_ends_at", "renewed_at", "work_at")
    change = {name: getattr(renewed, name) for name in names}
    return _update(tx, renewed.id, (State.ACTIVE,), {"renew_tries": 0, "lane": Lane.RENEW, **change})


def keep_old(tx: Tx, attempt: Attempt) -> bool:
    """Store how a replaced attempt's lease goes on, and when a worker has to look at it again: ``attempt`` is as it is to be."""
    tx.wake(attempt.work_at)
    names = ("lease_ttl_s", "ends_at", "renewed_at", "renew_tries", "work_at")
    change = {name: getattr(attempt, name) for name in names}
    return _update(tx, attempt.id, (State.OLD,), {"lane": _lane_of_old(attempt.work_at, attempt.overlap_ends_at), **change})


def _lane_of_old(work_at: float | None, overlap_ends_at: float | None) -> Lane:
    return Lane.RENEW if work_at is not None and overlap_ends_at is not None and work_at < overlap_ends_at else Lane.REVOKE


def schedule(tx: Tx, attempt_id: str, *, work_at: float | None, lane: Lane = Lane.RENEW, renew_failed: bool = False) -> None:
    """Say when a worker has to look at an active attempt again."""
    change: dict[str, Any] = {"work_at": work_at, "lane": lane}
    if renew_failed:
        change["renew_tries"] = _table.renew_tries + 1
    _update(tx, attempt_id, (State.ACTIVE,), change)
    tx.wake(work_at)


def look_again(tx: Tx, uids: Sequence[str]) -> None:
    """Have the active attempts of these requests looked at now, as their role changed."""
    for start in range(0, len(uids), _BATCH):
        of_these = (_table.request.in_(uids[start : start + _BATCH]), _table.state == State.ACTIVE)
        tx.execute(attempts.update().where(*of_these).values(work_at=tx.now, lane=Lane.RENEW))
    tx.wake(tx.now)


def hurry(tx: Tx, target: int) -> None:
    """Have everything that failed at this Vault tried now, as there is a fresh login."""
    waiting = (State.NEW, State.END_TOKEN, State.END, State.UNDOING)
    where = (_table.target == target, _table.state.in_(waiting), _table.tries > 0, _table.work_at > tx.now)
    tx.execute(attempts.update().where(*where).values(work_at=tx.now))
    tx.wake(tx.now)


def abandon_readers(tx: Tx) -> int:
    """At the start of the process: whoever was reading is dead. Answers how many there were."""
    over = tx.now + READER_GRACE_S  # Vault may still be at what they asked for
    done = tx.execute(attempts.update().where(_table.state == State.READING).values(work_at=over, lane=Lane.REVOKE))
    tx.execute(attempts.update().where(_table.state == State.END, _table.tries > 0, _table.work_at > tx.now).values(work_at=tx.now))
    return done.rowcount


def ids_with_login(tx: Tx) -> list[str]:
    """Attempts that may have a login."""
    return list(tx.execute(sa.select(_table.id).where(_table.state.in_(_WITH_LOGIN))).scalars())


def page(tx: Tx, *states: State, after: tuple[float, str] | None, limit: int) -> list[Attempt]:
    """Attempts in these states that have a lease, newest first, after the one with this time of issue and id."""
    query = sa.select(attempts).where(_table.state.in_(states), _table.issued_at.is_not(None))
    if after:
        query = query.where(sa.tuple_(_table.issued_at, _table.id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1])))
    return [Attempt(**row._mapping) for row in tx.execute(query.order_by(_table.issued_at.desc(), _table.id.desc()).limit(limit))]


def count_by_state(tx: Tx) -> dict[State, int]:
    """How many there are in each state but `closed`."""
    found = tx.execute(sa.select(_table.state, sa.func.count().label("number")).where(_table.state.in_(OPEN)).group_by(_table.state))
    return {row.state: row.number for row in found}


def _move(tx: Tx, attempt_id: str, *states: State, to: State, holding: str | None = None, **columns: Any) -> bool:
    """The one place where a state changes: only from the states given, each of which the rules let go to ``to``.

    With ``holding`` only if the ledger holds this accessor.
    """
    forbidden = [state for state in states if to not in rules.ALLOWED[state]]
    if forbidden:
        raise ValueError(f"no rule leads from {', '.join(forbidden)} to {to}")
    return _update(tx, attempt_id, states, {"state": to, **columns}, holding=holding)


def _update(tx: Tx, attempt_id: str, states: Sequence[State], columns: dict[str, Any], *, holding: str | None = None) -> bool:
    if any(isinstance(value, sa.ClauseElement) for value in columns.values()):
        return tx.execute(attempts.update().where(_table.id == attempt_id, _table.state.in_(states)).values(**columns)).rowcount == 1
    values = {f"{name}_": value for name, value in columns.items()}
    return _changing(tuple(states), holding is not None, *columns).run(tx, id_=attempt_id, held_accessor=holding, **values) == 1


@cache
def _changing(states: tuple[State, ...], held: bool, *names: str) -> Statement:
    """The statement that changes these columns of one attempt in one of these states, if need be only of one accessor."""
    where = [_table.id == given(_table.id), sa.or_(*(_table.state == state for state in states))]
    if held:
        where.append(_table.accessor == sa.bindparam("held_accessor", type_=sa.String))
    return Statement(attempts.update().where(*where).values({name: given(_table[name]) for name in names}))
