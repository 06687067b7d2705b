"""Attempts: each function is one transition of proofs/attempt_model.py, or the reading of rows. None waits and none calls Vault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from services.access.domain import attempt_states as rules
from services.access.domain import names
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, Priority
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, row_of

ISSUING_TIMEOUT_S = 150.0
"""A read that has been under way for so long has lost its reader; longer than any call to Vault may take."""

ISSUING_GRACE_S = 3.0
"""How long a reader whose attempt was ended may take to revoke by itself what it gets, and a read whose reader is gone
may go on.

After that the attempt is undone by recovery, which begins with the end of its token. A lease that Vault registers
before dies with the token; one that it registers for a token that was ended during the read would stay in its list
until its TTL, without a login.
"""

TOKEN_REVOKE_DELAY_S = 0.25
"""How long after its login an attempt's token is ended: nobody waits for that, and whoever waits for the login's end
goes on meanwhile.
"""

_BATCH = 500
"""Values of one statement; SQLite takes 32,766 and no more."""

_table = attempts.c
OPEN = tuple(state for state in AttemptState if state is not AttemptState.CLOSED)
"""Asked for by name, not by "is not closed", of which the index knows nothing."""

_OPEN = sa.select(attempts).where(_table.state != AttemptState.CLOSED).order_by(_table.sequence)

# The statements of the hot path are built once, so that SQLAlchemy finds their compiled form by their kept cache key.
_GET = sa.select(attempts).where(_table.id == sa.bindparam("attempt_id"))
_OPEN_OF = _OPEN.where(_table.access_request_id == sa.bindparam("uid"))
_REQUEST_OF = sa.select(_table.access_request_id).where(_table.id == sa.bindparam("attempt_id"))
_CHANGE = attempts.update().where(
    _table.id == sa.bindparam("attempt_id"), _table.state.in_(sa.bindparam("states", expanding=True))
)
_CHANGE_IF_ACCESSOR = _CHANGE.where(_table.accessor == sa.bindparam("expected_accessor"))
_CHANGE_AFTER_FAILURE = _CHANGE.values(failures=_table.failures + 1)
_CHANGE_AFTER_RENEWAL_FAILURE = _CHANGE.values(renewal_failures=_table.renewal_failures + 1)
_WITH_LOGIN = tuple(
    state
    for state in OPEN
    if state not in (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.REVOKING_TOKEN)
)


def get(tx: Tx, attempt_id: str) -> Attempt:
    """One attempt, which must be there."""
    found = tx.fetch_first(Attempt, _GET, {"attempt_id": attempt_id})
    if found is None:
        raise LookupError(f"the ledger has no attempt {attempt_id}")
    return found


def open_of(tx: Tx, uid: str) -> list[Attempt]:
    """The attempts of a request that are not closed, oldest first."""
    return tx.fetch(Attempt, _OPEN_OF, {"uid": uid})


def open_of_many(tx: Tx, uids: Sequence[str]) -> dict[str, list[Attempt]]:
    """The same of several requests."""
    found: dict[str, list[Attempt]] = {uid: [] for uid in uids}
    for attempt in tx.fetch(Attempt, _OPEN.where(_table.access_request_id.in_(uids))):
        found[attempt.access_request_id].append(attempt)
    return found


def begin(tx: Tx, *, request: AccessRequest, role: DbRole, sequence: int, due_at: float | None) -> Attempt:
    """Begin an attempt, `new`. With ``due_at`` a worker makes its token, else whoever claims does."""
    attempt_id = names.new_attempt_id()
    display = names.display_name(attempt_id, namespace=request.namespace, role=role.name)
    made = Attempt(
        id=attempt_id,
        access_request_id=request.uid,
        sequence=sequence,
        state=AttemptState.PENDING,
        grant=request.digest,
        role_digest=role.digest,
        target=role.target,
        mount=role.mount,
        vault_role=role.vault_role,
        db_name=role.db_name,
        revocation_statements=role.revocation_statements,
        default_ttl_s=role.default_ttl_s,
        max_ttl_s=role.max_ttl_s,
        database_user=names.database_user_name(display),
        begun_at=tx.now,
        due_at=due_at,
    )
    tx.execute(attempts.insert(), row_of(attempts, made))
    tx.wake(due_at)
    return made


def commit_accessor(tx: Tx, attempt_id: str, *, accessor: str, token_ends_at: float) -> bool:
    """Its token is made: `token`. Refused once the attempt reads or was ended; another accessor is replaced."""
    return _move(
        tx,
        attempt_id,
        AttemptState.PENDING,
        AttemptState.TOKEN_READY,
        to=AttemptState.TOKEN_READY,
        accessor=accessor,
        token_ends_at=token_ends_at,
        begun_at=tx.now,
        due_at=None,
    )


def commit_issuing(
    tx: Tx, attempt_id: str, *, accessor: str, replacing: bool = False, token_ends_at: float | None = None
) -> bool:
    """The read begins, with the token of this accessor: `reading`.

    Args:
        tx: Transaction.
        attempt_id: The attempt.
        accessor: Names the token that will read.
        replacing: Whether this is also the commit of the accessor; else the ledger must hold the same one.
        token_ends_at: With ``replacing``, the end of that token.
    """
    committed: dict[str, Any] = {"accessor": accessor, "token_ends_at": token_ends_at} if replacing else {}
    states = (AttemptState.PENDING, AttemptState.TOKEN_READY) if replacing else (AttemptState.TOKEN_READY,)
    due_at = tx.now + ISSUING_TIMEOUT_S
    return _move(
        tx,
        attempt_id,
        *states,
        to=AttemptState.ISSUING,
        expected_accessor=None if replacing else accessor,
        priority=Priority.REVOKE,
        due_at=due_at,
        **committed,
    )


def commit_lease(
    tx: Tx,
    attempt_id: str,
    *,
    lease_id: str,
    ttl_s: float,
    renewable: bool,
    ends_at: float,
    max_ends_at: float | None,
    issued_at: float,
) -> bool:
    """The credential's lease is known: `issued`. Refused if the attempt was ended or is being undone meanwhile."""
    tx.wake(ends_at)
    lease: dict[str, Any] = {"lease_id": lease_id, "lease_ttl_s": ttl_s, "renewable": renewable}
    times: dict[str, Any] = {"ends_at": ends_at, "max_ends_at": max_ends_at, "issued_at": issued_at}
    return _move(
        tx,
        attempt_id,
        AttemptState.ISSUING,
        to=AttemptState.ISSUED,
        priority=Priority.REVOKE,
        due_at=ends_at,
        **lease,
        **times,
    )


def activate(tx: Tx, attempt: Attempt, *, due_at: float) -> bool:
    """Acknowledged: `active`."""
    tx.wake(due_at)
    return _move(
        tx,
        attempt.id,
        AttemptState.ISSUED,
        to=AttemptState.ACTIVE,
        acknowledged_at=tx.now,
        priority=Priority.RENEW,
        due_at=due_at,
    )


def retire(tx: Tx, attempt: Attempt, *, overlap_ends_at: float, due_at: float) -> bool:
    """A later one was acknowledged: `old`, until the overlap is over. ``due_at`` is then, or when its lease has to be
    prolonged before.
    """
    tx.wake(due_at)
    change: dict[str, Any] = {"priority": _lane_of_old(due_at, overlap_ends_at), "renewal_failures": 0}
    change |= {"overlap_ends_at": overlap_ends_at, "due_at": due_at}
    return _move(tx, attempt.id, AttemptState.ACTIVE, AttemptState.REPLACED, to=AttemptState.RETIRING, **change)


def replace(tx: Tx, attempt: Attempt) -> bool:
    """Answered but never acknowledged, and another is begun: `superseded`, until its end or a later one's acknowledge."""
    tx.wake(attempt.ends_at)
    return _move(
        tx, attempt.id, AttemptState.ISSUED, to=AttemptState.REPLACED, priority=Priority.REVOKE, due_at=attempt.ends_at
    )


def revoke(tx: Tx, attempt: Attempt, *, to: AttemptState, end_reason: str, error: str = "") -> bool:
    """Have it ended: `end`, or `endt` if no read was begun. At once, or after the reader's grace where there may be
    one.

    Args:
        tx: Transaction.
        attempt: As it was read in this transaction.
        to: One of the two.
        end_reason: What people are told of it, also when it is closed.
        error: What failed, if something did.
    """
    due = tx.now + (ISSUING_GRACE_S if attempt.state is AttemptState.ISSUING and to is AttemptState.REVOKING else 0.0)
    tx.wake(due)
    return _move(
        tx,
        attempt.id,
        attempt.state,
        to=to,
        priority=Priority.REVOKE,
        due_at=due,
        failures=0,
        error=error,
        end_reason=end_reason,
    )


def revoke_all(tx: Tx, uid: str, mapping: Mapping[AttemptState, AttemptState], *, end_reason: str) -> None:
    """Have a request's attempts ended as ``mapping`` says."""
    for attempt in open_of(tx, uid):
        if attempt.state in mapping:
            revoke(tx, attempt, to=mapping[attempt.state], end_reason=end_reason)


def begin_recovery(tx: Tx, attempt: Attempt, *, force_drop: bool) -> bool:
    """From here on lease commit and acknowledge refuse the attempt, however alive its reader may be: `undoing`."""
    return _move(
        tx,
        attempt.id,
        AttemptState.ISSUING,
        AttemptState.REVOKING,
        to=AttemptState.RECOVERING,
        force_drop=attempt.force_drop or force_drop,
    )


def commit_revoked(tx: Tx, attempt: Attempt) -> bool:
    """Vault has dropped its login, by lease id: its token is all that is left, `endt`, or nothing, `closed`.

    The token is ended a moment later, and nobody is woken for it: the worker that dropped the login looks next at what
    is due.
    """
    if not attempt.accessor:
        return close(tx, attempt.id, AttemptState.REVOKING)
    tx.changed.add(attempt.access_request_id)
    due = tx.now + TOKEN_REVOKE_DELAY_S
    return _move(
        tx,
        attempt.id,
        AttemptState.REVOKING,
        to=AttemptState.REVOKING_TOKEN,
        priority=Priority.REVOKE,
        due_at=due,
        failures=0,
        error="",
    )


def close(tx: Tx, attempt_id: str, *states: AttemptState) -> bool:
    """No login of it is left: `closed`."""
    done = _move(tx, attempt_id, *states, to=AttemptState.CLOSED, closed_at=tx.now, due_at=None, accessor="", error="")
    if done and states != (AttemptState.REVOKING_TOKEN,):  # of a token's end nobody has to hear
        tx.changed.add(tx.execute(_REQUEST_OF, {"attempt_id": attempt_id}).scalar_one())
    return done


def postpone(
    tx: Tx, attempt: Attempt, *, until: float, error: str = "", failed: bool = True, force_drop: bool = False
) -> bool:
    """Try again later, if it is still in the state in which it was read; answers whether it is.

    Args:
        tx: Transaction.
        attempt: As it was read.
        until: When.
        error: What to tell its owner, bounded.
        failed: Whether this counts as a failure in a row.
        force_drop: Whether our own statements have to drop the login.
    """
    change: dict[str, Any] = {"due_at": until, "error": error}
    if force_drop:
        change["force_drop"] = True
    tx.wake(until)
    return _update(tx, attempt.id, (attempt.state,), change, statement=_CHANGE_AFTER_FAILURE if failed else _CHANGE)


def commit_renewal(tx: Tx, renewed: Attempt) -> bool:
    """Vault prolonged the lease of an active attempt: keep its times, and when to look at it again."""
    tx.wake(renewed.due_at)
    names = ("lease_ttl_s", "ends_at", "max_ends_at", "renewed_at", "due_at")
    change = {name: getattr(renewed, name) for name in names}
    return _update(
        tx, renewed.id, (AttemptState.ACTIVE,), {"renewal_failures": 0, "priority": Priority.RENEW, **change}
    )


def keep_retiring(tx: Tx, attempt: Attempt) -> bool:
    """Store how a replaced attempt's lease goes on, and when a worker has to look at it again: ``attempt`` is as it is
    to be.
    """
    tx.wake(attempt.due_at)
    names = ("lease_ttl_s", "ends_at", "renewed_at", "renewal_failures", "due_at")
    change = {name: getattr(attempt, name) for name in names}
    return _update(
        tx,
        attempt.id,
        (AttemptState.RETIRING,),
        {"priority": _lane_of_old(attempt.due_at, attempt.overlap_ends_at), **change},
    )


def _lane_of_old(due_at: float | None, overlap_ends_at: float | None) -> Priority:
    return (
        Priority.RENEW
        if due_at is not None and overlap_ends_at is not None and due_at < overlap_ends_at
        else Priority.REVOKE
    )


def schedule(
    tx: Tx, attempt_id: str, *, due_at: float | None, priority: Priority = Priority.RENEW, renew_failed: bool = False
) -> None:
    """Say when a worker has to look at an active attempt again."""
    change: dict[str, Any] = {"due_at": due_at, "priority": priority}
    statement = _CHANGE_AFTER_RENEWAL_FAILURE if renew_failed else _CHANGE
    _update(tx, attempt_id, (AttemptState.ACTIVE,), change, statement=statement)
    tx.wake(due_at)


def schedule_now(tx: Tx, uids: Sequence[str]) -> None:
    """Have the active attempts of these requests looked at now, as their role changed."""
    for start in range(0, len(uids), _BATCH):
        of_these = (_table.access_request_id.in_(uids[start : start + _BATCH]), _table.state == AttemptState.ACTIVE)
        tx.execute(attempts.update().where(*of_these).values(due_at=tx.now, priority=Priority.RENEW))
    tx.wake(tx.now)


def retry_failed_now(tx: Tx, target: int) -> None:
    """Have everything that failed at this Vault tried now, as there is a fresh login."""
    waiting = (AttemptState.PENDING, AttemptState.REVOKING_TOKEN, AttemptState.REVOKING, AttemptState.RECOVERING)
    where = (_table.target == target, _table.state.in_(waiting), _table.failures > 0, _table.due_at > tx.now)
    tx.execute(attempts.update().where(*where).values(due_at=tx.now))
    tx.wake(tx.now)


def schedule_interrupted(tx: Tx) -> int:
    """At the start of the process: whoever was reading is dead. Answers how many there were."""
    over = tx.now + ISSUING_GRACE_S  # Vault may still be at what they asked for
    done = tx.execute(
        attempts.update().where(_table.state == AttemptState.ISSUING).values(due_at=over, priority=Priority.REVOKE)
    )
    tx.execute(
        attempts.update()
        .where(_table.state == AttemptState.REVOKING, _table.failures > 0, _table.due_at > tx.now)
        .values(due_at=tx.now)
    )
    return done.rowcount


def ids_with_database_user(tx: Tx) -> list[str]:
    """Attempts that may have a login."""
    return list(tx.execute(sa.select(_table.id).where(_table.state.in_(_WITH_LOGIN))).scalars())


def page(tx: Tx, *states: AttemptState, after: tuple[float, str] | None, limit: int) -> list[Attempt]:
    """Attempts in these states that have a lease, newest first, after the one with this time of issue and id."""
    query = sa.select(attempts).where(_table.state.in_(states), _table.issued_at.is_not(None))
    if after:
        query = query.where(
            sa.tuple_(_table.issued_at, _table.id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
        )
    return tx.fetch(Attempt, query.order_by(_table.issued_at.desc(), _table.id.desc()).limit(limit))


def count_by_state(tx: Tx) -> dict[AttemptState, int]:
    """How many there are in each state but `closed`."""
    found = tx.execute(
        sa.select(_table.state, sa.func.count().label("number")).where(_table.state.in_(OPEN)).group_by(_table.state)
    )
    return {row.state: row.number for row in found}


def _move(
    tx: Tx,
    attempt_id: str,
    *states: AttemptState,
    to: AttemptState,
    expected_accessor: str | None = None,
    **columns: Any,
) -> bool:
    """Change the state, the one place that does: only from the states given, each of which the rules let go to ``to``.

    With ``expected_accessor`` only if the ledger has this accessor.
    """
    forbidden = [state for state in states if to not in rules.ALLOWED[state]]
    if forbidden:
        raise ValueError(f"no rule leads from {', '.join(forbidden)} to {to}")
    change = {"state": to, **columns}
    if expected_accessor is None:
        return _update(tx, attempt_id, states, change)
    change["expected_accessor"] = expected_accessor
    return _update(tx, attempt_id, states, change, statement=_CHANGE_IF_ACCESSOR)


def _update(
    tx: Tx, attempt_id: str, states: Sequence[AttemptState], change: dict[str, Any], *, statement: sa.Update = _CHANGE
) -> bool:
    """Change columns of an attempt that is in one of these states; answers whether it was."""
    return tx.execute(statement, {"attempt_id": attempt_id, "states": states, **change}).rowcount == 1
