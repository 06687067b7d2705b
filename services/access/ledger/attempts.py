"""Reads and changes attempts. Each change is one transition of docs/safety.md; no function waits or calls Vault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from services.access.domain import attempt_states as rules
from services.access.domain import names
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, DropBy, Priority
from services.access.ledger.db.database import Tx
from services.access.ledger.db.outcomes import LeaseOutcome, OutcomeKind
from services.access.ledger.db.query import Change, Query
from services.access.ledger.db.schema import attempts, row_of

ISSUING_TIMEOUT_S = 150.0
"""After so long in ISSUING an attempt is recovered; longer than any request to Vault may take."""

ISSUING_GRACE_S = 3.0
"""How long a request for credentials may go on after its attempt is to be revoked, or after its process ended.

Within it the issuing call revokes the lease that it gets. After it the attempt is recovered, which begins with the
revocation of its token. A lease that Vault registers before is revoked with the token; one that Vault registers for a
token that is revoked during the request would stay in Vault's list until its TTL, without a database user.
"""

TOKEN_REVOKE_DELAY_S = 0.25
"""How long after its lease an attempt's token is revoked: the deletion of the object waits for the lease alone."""

_BATCH = 500
"""Values of one statement; SQLite takes at most 32,766."""

_table = attempts.c
OPEN = tuple(state for state in AttemptState if state is not AttemptState.CLOSED)
"""Named one by one in queries: the index on the state does not serve "is not closed"."""

_OPEN = sa.select(attempts).where(_table.state != AttemptState.CLOSED).order_by(_table.sequence)

_GET = Query(Attempt, sa.select(attempts).where(_table.id == sa.bindparam("attempt_id")))
_OPEN_OF = Query(Attempt, _OPEN.where(_table.access_request_id == sa.bindparam("uid")))
_BEGIN = Change(attempts, attempts.insert())
_WITH_DATABASE_USER = tuple(
    state
    for state in OPEN
    if state not in (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.REVOKING_TOKEN)
)


def get(tx: Tx, attempt_id: str) -> Attempt:
    """Return one attempt, which must exist."""
    found = _GET.first(tx, attempt_id=attempt_id)
    if found is None:
        raise LookupError(f"the ledger has no attempt {attempt_id}")
    return found


def open_of(tx: Tx, uid: str) -> list[Attempt]:
    """Return the attempts of an access request that are not closed, oldest first."""
    return _OPEN_OF.all(tx, uid=uid)


def open_of_many(tx: Tx, uids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Return the same of several access requests, by uid."""
    found: dict[str, list[Attempt]] = {uid: [] for uid in uids}
    for attempt in tx.fetch(Attempt, _OPEN.where(_table.access_request_id.in_(uids))):
        found[attempt.access_request_id].append(attempt)
    return found


def count_of_tenant(tx: Tx, tenant: str, states: Iterable[AttemptState], *, most: int) -> int:
    """Return how many attempts of a tenant are in these states, counting to ``most``."""
    some = sa.select(_table.state).where(_table.tenant == tenant, _table.state.in_(tuple(states))).limit(most)
    return int(tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def begun_since(tx: Tx, uid: str, since: float) -> list[float]:
    """Return when the attempts of an access request began that began after a time, oldest first."""
    query = sa.select(_table.begun_at).where(_table.access_request_id == uid, _table.begun_at > since)
    return sorted(tx.execute(query).scalars())


def begin(tx: Tx, *, request: AccessRequest, role: DbRole, sequence: int, due_at: float | None) -> Attempt:
    """Begin an attempt, PENDING. With ``due_at`` a worker creates its token, else the call that claims does."""
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
        tenant=request.tenant,
    )
    _BEGIN.run(tx, row_of(attempts, made))
    tx.wake(due_at)
    return made


def commit_accessor(tx: Tx, attempt_id: str, *, accessor: str, token_ends_at: float) -> bool:
    """Store the accessor of its token: TOKEN_READY. An earlier accessor is replaced; refused from ISSUING on."""
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
    """Store that credentials are about to be requested with the token of this accessor: ISSUING.

    Args:
        tx: Transaction.
        attempt_id: The attempt.
        accessor: Names the token that requests them.
        replacing: Whether this also stores the accessor; else the ledger must have the same one.
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
    """Store the lease: ISSUED. Refused if the attempt is to be revoked or recovered meanwhile."""
    tx.wake(ends_at)
    lease: dict[str, Any] = {"lease_id": lease_id, "lease_ttl_s": ttl_s, "renewable": renewable}
    times: dict[str, Any] = {"ends_at": ends_at, "max_ends_at": max_ends_at, "issued_at": issued_at}
    done = _move(
        tx,
        attempt_id,
        AttemptState.ISSUING,
        to=AttemptState.ISSUED,
        priority=Priority.REVOKE,
        due_at=ends_at,
        **lease,
        **times,
    )
    if done:
        tx.outcomes.append(LeaseOutcome(OutcomeKind.ISSUED))
    return done


def activate(tx: Tx, attempt: Attempt, *, due_at: float) -> bool:
    """Store that it is acknowledged: ACTIVE."""
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
    """Store that a later one is acknowledged: RETIRING, until the overlap ends.

    ``due_at`` is that time, or when its lease has to be renewed before.
    """
    tx.wake(due_at)
    change: dict[str, Any] = {"priority": _priority_of_retiring(due_at, overlap_ends_at), "renewal_failures": 0}
    change |= {"overlap_ends_at": overlap_ends_at, "due_at": due_at}
    return _move(tx, attempt.id, AttemptState.ACTIVE, AttemptState.REPLACED, to=AttemptState.RETIRING, **change)


def replace(tx: Tx, attempt: Attempt) -> bool:
    """Store that another is begun before this was acknowledged: REPLACED, until its end or that one's acknowledge."""
    tx.wake(attempt.ends_at)
    return _move(
        tx, attempt.id, AttemptState.ISSUED, to=AttemptState.REPLACED, priority=Priority.REVOKE, due_at=attempt.ends_at
    )


def revoke(tx: Tx, attempt: Attempt, *, to: AttemptState, end_reason: str, error: str = "") -> bool:
    """Schedule its revocation: REVOKING, or REVOKING_TOKEN where no credentials were requested.

    It is due at once; for an attempt that is ISSUING after ``ISSUING_GRACE_S``.

    Args:
        tx: Transaction.
        attempt: As it was read in this transaction.
        to: One of the two states.
        end_reason: Why, for people; kept when it is closed.
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
        revocation_due_at=due if to is AttemptState.REVOKING else None,
    )


def revoke_all(tx: Tx, uid: str, mapping: Mapping[AttemptState, AttemptState], *, end_reason: str) -> None:
    """Schedule the revocation of an access request's attempts, each to the state that ``mapping`` gives for its own."""
    for attempt in open_of(tx, uid):
        if attempt.state in mapping:
            revoke(tx, attempt, to=mapping[attempt.state], end_reason=end_reason)


def begin_recovery(tx: Tx, attempt: Attempt, *, drop_by: DropBy) -> bool:
    """Begin to recover: RECOVERING. From here on ``commit_lease`` and ``activate`` refuse the attempt."""
    return _move(
        tx,
        attempt.id,
        AttemptState.ISSUING,
        AttemptState.REVOKING,
        to=AttemptState.RECOVERING,
        drop_by=drop_by,
        revocation_due_at=tx.now if attempt.revocation_due_at is None else attempt.revocation_due_at,
    )


def commit_locked_out(tx: Tx, attempt_id: str) -> None:
    """Store that its database user is locked out; its owner is shown why it is not dropped yet."""
    attempt = get(tx, attempt_id)
    if attempt.locked_out_at is None and _update(tx, attempt_id, (AttemptState.RECOVERING,), {"locked_out_at": tx.now}):
        tx.changed.add(attempt.access_request_id)


def commit_revoked(tx: Tx, attempt: Attempt) -> bool:
    """Store that Vault revoked its lease, which dropped the database user: REVOKING_TOKEN, or CLOSED without a token.

    The token is revoked a moment later. No worker is woken for it: the one that revoked the lease looks next at what is
    due.
    """
    if attempt.accessor:
        due = tx.now + TOKEN_REVOKE_DELAY_S
        done = _move(
            tx,
            attempt.id,
            AttemptState.REVOKING,
            to=AttemptState.REVOKING_TOKEN,
            priority=Priority.REVOKE,
            due_at=due,
            failures=0,
            error="",
        )
        tx.changed.add(attempt.access_request_id)
    else:
        done = close(tx, attempt.id, AttemptState.REVOKING)
    if done:
        _count_revoked(tx, attempt)
    return done


def close(tx: Tx, attempt_id: str, *states: AttemptState) -> bool:
    """Store that nothing of it is left: CLOSED."""
    done = _move(tx, attempt_id, *states, to=AttemptState.CLOSED, closed_at=tx.now, due_at=None, accessor="", error="")
    if done and states != (AttemptState.REVOKING_TOKEN,):  # the owner does not look at the end of a token
        attempt = get(tx, attempt_id)
        tx.changed.add(attempt.access_request_id)
        if states == (AttemptState.RECOVERING,):
            _count_revoked(tx, attempt)
    return done


def _count_revoked(tx: Tx, attempt: Attempt) -> None:
    since = tx.now if attempt.revocation_due_at is None else attempt.revocation_due_at
    tx.outcomes.append(LeaseOutcome(OutcomeKind.REVOKED, max(0.0, tx.now - since)))


def postpone(
    tx: Tx, attempt: Attempt, *, until: float, error: str = "", failed: bool = True, drop_by: DropBy | None = None
) -> bool:
    """Schedule another try, if the attempt is still in the state in which it was read; return whether it is.

    Args:
        tx: Transaction.
        attempt: As it was read.
        until: When.
        error: What its owner is shown, bounded.
        failed: Whether this counts as a failure in a row.
        drop_by: Whose statements drop the database user from now on; None for the same as before.
    """
    change: dict[str, Any] = {"due_at": until, "error": error}
    if drop_by:
        change["drop_by"] = drop_by
    tx.wake(until)
    return _update(tx, attempt.id, (attempt.state,), change, counting="failures" if failed else "")


def commit_renewal(tx: Tx, renewed: Attempt) -> bool:
    """Store the times of an active attempt whose lease Vault renewed, and when a worker looks at it again."""
    tx.wake(renewed.due_at)
    names = ("lease_ttl_s", "ends_at", "max_ends_at", "renewed_at", "due_at")
    change = {name: getattr(renewed, name) for name in names}
    change |= {"renewal_failures": 0, "priority": Priority.RENEW}
    done = _update(tx, renewed.id, (AttemptState.ACTIVE,), change)
    if done:
        tx.outcomes.append(LeaseOutcome(OutcomeKind.RENEWED))
    return done


def keep_retiring(tx: Tx, attempt: Attempt) -> bool:
    """Store the times of a retiring attempt, given as it is to be: its lease was renewed, was not, or need not be."""
    tx.wake(attempt.due_at)
    before = get(tx, attempt.id)
    names = ("lease_ttl_s", "ends_at", "renewed_at", "renewal_failures", "due_at")
    change = {name: getattr(attempt, name) for name in names}
    change["priority"] = _priority_of_retiring(attempt.due_at, attempt.overlap_ends_at)
    done = _update(tx, attempt.id, (AttemptState.RETIRING,), change)
    if done and attempt.renewed_at != before.renewed_at:
        tx.outcomes.append(LeaseOutcome(OutcomeKind.RENEWED))
    elif done and attempt.renewal_failures > before.renewal_failures:
        tx.outcomes.append(LeaseOutcome(OutcomeKind.RENEWAL_FAILED))
    return done


def _priority_of_retiring(due_at: float | None, overlap_ends_at: float | None) -> Priority:
    return (
        Priority.RENEW
        if due_at is not None and overlap_ends_at is not None and due_at < overlap_ends_at
        else Priority.REVOKE
    )


def schedule(
    tx: Tx, attempt_id: str, *, due_at: float | None, priority: Priority = Priority.RENEW, renew_failed: bool = False
) -> None:
    """Schedule when a worker looks at an active attempt again; with ``renew_failed`` its renewal has failed."""
    change: dict[str, Any] = {"due_at": due_at, "priority": priority}
    counting = "renewal_failures" if renew_failed else ""
    if _update(tx, attempt_id, (AttemptState.ACTIVE,), change, counting=counting) and renew_failed:
        tx.outcomes.append(LeaseOutcome(OutcomeKind.RENEWAL_FAILED))
    tx.wake(due_at)


def schedule_now(tx: Tx, uids: Sequence[str]) -> None:
    """Schedule the active attempts of these access requests for now, as their db_role changed."""
    for start in range(0, len(uids), _BATCH):
        of_these = (_table.access_request_id.in_(uids[start : start + _BATCH]), _table.state == AttemptState.ACTIVE)
        tx.execute(attempts.update().where(*of_these).values(due_at=tx.now, priority=Priority.RENEW))
    tx.wake(tx.now)


def retry_failed_now(tx: Tx, target: int) -> None:
    """Schedule all work that failed at this Vault for now, as there is a new session."""
    waiting = (AttemptState.PENDING, AttemptState.REVOKING_TOKEN, AttemptState.REVOKING, AttemptState.RECOVERING)
    where = (_table.target == target, _table.state.in_(waiting), _table.failures > 0, _table.due_at > tx.now)
    tx.execute(attempts.update().where(*where).values(due_at=tx.now))
    tx.wake(tx.now)


def schedule_interrupted(tx: Tx) -> int:
    """Schedule recovery of issuances that the previous process left in flight; return how many there are."""
    over = tx.now + ISSUING_GRACE_S  # Vault may still work on their requests
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
    """Return the ids of the attempts that may have a database user."""
    return list(tx.execute(sa.select(_table.id).where(_table.state.in_(_WITH_DATABASE_USER))).scalars())


def page(tx: Tx, *states: AttemptState, after: tuple[float, str] | None, limit: int) -> list[Attempt]:
    """Return attempts in these states that were issued, newest first, after the one with this time of issue and id."""
    query = sa.select(attempts).where(_table.state.in_(states), _table.issued_at.is_not(None))
    if after:
        query = query.where(
            sa.tuple_(_table.issued_at, _table.id) < sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
        )
    return tx.fetch(Attempt, query.order_by(_table.issued_at.desc(), _table.id.desc()).limit(limit))


def count_by_state(tx: Tx) -> dict[AttemptState, int]:
    """Return how many attempts are in each state but CLOSED."""
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
    """Change the state, if the attempt is in one of ``states``; return whether it was. No other function changes it.

    With ``expected_accessor`` only if the ledger has this accessor.

    Raises:
        ValueError: The rules let no attempt go from one of ``states`` to ``to``.
    """
    forbidden = [state for state in states if to not in rules.ALLOWED[state]]
    if forbidden:
        raise ValueError(f"no rule leads from {', '.join(forbidden)} to {to}")
    change, expected = {"state": to, **columns}, {"attempt_id": attempt_id}
    if expected_accessor is not None:
        expected["expected_accessor"] = expected_accessor
    return _change_in(states, if_accessor=expected_accessor is not None).run(tx, change, **expected) == 1


def _update(
    tx: Tx, attempt_id: str, states: tuple[AttemptState, ...], change: dict[str, Any], *, counting: str = ""
) -> bool:
    """Change columns, if the attempt is in one of these states; return whether it was. ``counting`` goes up by one."""
    return _change_in(states, counting=counting).run(tx, change, attempt_id=attempt_id) == 1


@cache
def _change_in(states: tuple[AttemptState, ...], *, if_accessor: bool = False, counting: str = "") -> Change:
    """Make the change of an attempt that is in one of these states and, if asked for, has an accessor."""
    where = [_table.id == sa.bindparam("attempt_id"), sa.or_(*(_table.state == state for state in states))]
    where += [_table.accessor == sa.bindparam("expected_accessor")] if if_accessor else []
    statement = attempts.update().where(*where)
    return Change(attempts, statement.values({counting: _table[counting] + 1}) if counting else statement)
