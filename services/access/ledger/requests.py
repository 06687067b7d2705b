"""Reads and changes access requests and their decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import sqlalchemy as sa

from services.access.domain.models import AccessRequest, Approval, DbRole, Decision, Origin
from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Change, Query
from services.access.ledger.db.schema import access_requests, db_roles, decisions, row_of
from services.common.errors import VaultAuthMissingError, VaultAuthRefusedError

_table, _r = access_requests.c, db_roles.c
_DECISION = tuple(f.name for f in fields(Decision))
_FIND = Query(AccessRequest, sa.select(access_requests).where(_table.uid == sa.bindparam("of_uid")))
_INSERT = Change(access_requests, access_requests.insert())
_CHANGE = Change(access_requests, access_requests.update().where(_table.uid == sa.bindparam("of_uid")))
_DECIDE = Change(decisions, decisions.insert())
_DECISIONS = Query(
    Decision,
    sa.select(*(decisions.c[name] for name in _DECISION))
    .where(decisions.c.access_request_id == sa.bindparam("of_uid"))
    .order_by(decisions.c.id),
)


def find(tx: Tx, uid: str) -> AccessRequest | None:
    """Return one access request; None if it does not exist."""
    return _FIND.first(tx, of_uid=uid)


def find_many(tx: Tx, uids: Sequence[str]) -> list[AccessRequest]:
    """Return several access requests in the order of ``uids``, without those that do not exist."""
    if not uids:
        return []
    found = {each.uid: each for each in tx.fetch(AccessRequest, sa.select(access_requests).where(_table.uid.in_(uids)))}
    return [found[uid] for uid in uids if uid in found]


def insert(tx: Tx, request: AccessRequest) -> None:
    """Insert a new access request."""
    _INSERT.run(tx, row_of(access_requests, request))
    tx.changed.add(request.uid)


def update(tx: Tx, request: AccessRequest, **changes: Any) -> AccessRequest:
    """Change columns and publish the change; return the access request as it is now."""
    update_silently(tx, request.uid, **changes)
    tx.changed.add(request.uid)
    return replace(request, **changes)


def update_silently(tx: Tx, uid: str, **changes: Any) -> None:
    """Change columns without publishing the change."""
    _CHANGE.run(tx, changes, of_uid=uid)


def open_uids(tx: Tx, *, cluster_uid: str | None = None) -> list[str]:
    """Return the uids of the access requests that are not closed, of one cluster or of all."""
    query = sa.select(_table.uid).where(_table.approval.in_((Approval.PENDING, Approval.APPROVED)))
    if cluster_uid is not None:
        query = query.where(_table.cluster_uid == cluster_uid)
    return list(tx.execute(query).scalars())


def raise_sequence(tx: Tx, uid: str, sequence: int) -> None:
    """Make the sequence of the next attempt higher than ``sequence``."""
    tx.execute(
        access_requests.update()
        .where(_table.uid == uid, _table.last_sequence < sequence)
        .values(last_sequence=sequence)
    )


def limit_access(tx: Tx, access_s: float) -> int:
    """Limit access that has begun to ``access_s`` seconds; return how many access requests were to end later."""
    ends_at, open_ones = _table.first_issued_at + access_s, (Approval.PENDING, Approval.APPROVED)
    longer = sa.or_(_table.ends_at.is_(None), _table.ends_at > ends_at)
    begun = (_table.first_issued_at.is_not(None), _table.approval.in_(open_ones))
    return tx.execute(access_requests.update().where(*begun, longer).values(ends_at=ends_at, due_at=ends_at)).rowcount


def decisions_of(tx: Tx, uid: str) -> list[Decision]:
    """Return the decisions on an access request, oldest first."""
    return _DECISIONS.all(tx, of_uid=uid)


def decisions_of_many(tx: Tx, uids: Sequence[str]) -> dict[str, list[Decision]]:
    """Return the same of several access requests, by uid."""
    found: dict[str, list[Decision]] = {uid: [] for uid in uids}
    columns = [decisions.c[name] for name in _DECISION]
    for row in tx.execute(
        sa.select(decisions.c.access_request_id, *columns)
        .where(decisions.c.access_request_id.in_(uids))
        .order_by(decisions.c.id)
    ):
        found[row.access_request_id].append(Decision(**{name: getattr(row, name) for name in _DECISION}))
    return found


def count_open(tx: Tx, request: AccessRequest, *, most: int) -> int:
    """Return how many access requests its tenant has open, counting to ``most``."""
    mine = sa.and_(_table.namespace == request.namespace, _table.cluster_uid == request.cluster_uid)
    if not request.namespace:
        mine = sa.and_(mine, _table.owner == request.owner)
    open_ones = _table.approval.in_((Approval.PENDING, Approval.APPROVED))
    some = sa.select(_table.uid).where(mine, open_ones).limit(most)
    return int(tx.execute(sa.select(sa.func.count()).select_from(some.subquery())).scalar_one())


def decide(tx: Tx, uid: str, made: Sequence[Decision]) -> None:
    """Add decisions; none is ever changed or removed alone."""
    for each in made:
        _DECIDE.run(tx, {"access_request_id": uid, **{name: getattr(each, name) for name in _DECISION}})


def of_role(tx: Tx, role: DbRole, *, after: str = "", limit: int = -1) -> list[AccessRequest]:
    """Return the access requests for a db_role that are not closed, in the order of their uids.

    Args:
        tx: Transaction.
        role: The db_role.
        after: Those with a later uid alone.
        limit: At most so many; all if negative.
    """
    open_ones = (Approval.PENDING, Approval.APPROVED)
    same = (
        _table.cluster == role.cluster,
        _table.cluster_uid == role.cluster_uid,
        _table.role_namespace == role.namespace,
        _table.role_name == role.name,
    )
    query = sa.select(access_requests).where(*same, _table.uid > after, _table.approval.in_(open_ones))
    return tx.fetch(AccessRequest, query.order_by(_table.uid).limit(limit))


def unverified(tx: Tx) -> list[AccessRequest]:
    """Return the access requests that are not closed and of which it is not known who is behind them."""
    open_ones = _table.approval.in_((Approval.PENDING, Approval.APPROVED))
    claimed = sa.and_(_table.on_behalf_of != "", _table.verified_by == "")
    unknown = sa.and_(_table.origin == Origin.KUBERNETES, sa.or_(_table.requester == "", claimed))
    return tx.fetch(AccessRequest, sa.select(access_requests).where(open_ones, unknown))


def retry_failed_now(tx: Tx, target: int) -> None:
    """Let access requests be claimed now whose last claim found no session at this Vault, as there is a new one."""
    same = ((_table.cluster, _r.cluster), (_table.cluster_uid, _r.cluster_uid), (_table.role_namespace, _r.namespace))
    of_target = sa.exists().where(
        _r.target == target, _table.role_name == _r.name, *(mine == theirs for mine, theirs in same)
    )
    wanting = (
        _table.error_reason.in_((VaultAuthMissingError.reason, VaultAuthRefusedError.reason)),
        _table.retry_at > tx.now,
    )
    for uid in list(tx.execute(sa.select(_table.uid).where(*wanting, of_target)).scalars()):
        update_silently(tx, uid, retry_at=None)
        tx.changed.add(uid)


def page(
    tx: Tx, *where: sa.ColumnElement[bool], after: tuple[float, str] | None, limit: int, newest_first: bool
) -> list[AccessRequest]:
    """Return access requests that match ``where``, by time of creation, after the one with this time and uid."""
    key, query = sa.tuple_(_table.created_at, _table.uid), sa.select(access_requests).where(*where)
    if after:
        at = sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
        query = query.where(key < at if newest_first else key > at)
    order = (_table.created_at.desc(), _table.uid.desc()) if newest_first else (_table.created_at, _table.uid)
    return tx.fetch(AccessRequest, query.order_by(*order).limit(limit))


def owned_by(owner: str) -> sa.ColumnElement[bool]:
    """Match the access requests of one caller."""
    return _table.owner == owner


def undecided() -> sa.ColumnElement[bool]:
    """Match the access requests that nobody has decided."""
    return _table.approval == Approval.PENDING
