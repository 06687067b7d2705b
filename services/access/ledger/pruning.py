"""Deletes what the retention has passed for, in small batches, so that no writer waits long for one.

Each function deletes at most ``limit`` rows that ended before ``before`` (seconds since 1970) and returns how many
there were. They run in this order: an answer may name an attempt, an attempt names its access request, that its
db_role.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from services.access.domain.models import AttemptState
from services.access.ledger import catalog, counts
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import (
    access_requests,
    answers,
    attempts,
    db_roles,
    decisions,
    reassessments,
    recoveries,
)

_HEARTBEAT, HEARTBEATS_KEPT_S = "RenewLease", 3600.0
"""Each heartbeat has a request_id of its own, so that these would be most of the ledger; none is repeated so late."""


def old_answers(tx: Tx, *, before: float, limit: int) -> int:
    """Delete answers to calls; those to heartbeats sooner than the others."""
    a = answers.c
    brief = sa.and_(a.method == _HEARTBEAT, a.answered_at < tx.now - HEARTBEATS_KEPT_S)
    key = sa.tuple_(a.caller, a.method, a.request_id)
    some = sa.select(a.caller, a.method, a.request_id).where(sa.or_(a.answered_at < before, brief)).limit(limit)
    return tx.execute(answers.delete().where(key.in_(some))).rowcount


def closed_attempts(tx: Tx, *, before: float, limit: int) -> int:
    """Delete closed attempts and their recoveries; the recovered ones stay counted."""
    a = attempts.c
    some = (
        sa.select(a.id).where(a.closed_at < before, a.state == AttemptState.CLOSED).order_by(a.closed_at).limit(limit)
    )
    ids = list(tx.execute(some).scalars())
    if ids:
        counts.remember_recovered(tx, ids)
        tx.execute(recoveries.delete().where(recoveries.c.attempt.in_(ids)))
        tx.execute(attempts.delete().where(a.id.in_(ids)))
    return len(ids)


def deleted_requests(tx: Tx, *, before: float, limit: int) -> int:
    """Delete access requests that are deleted and have no attempt left, with their decisions.

    One from Kubernetes stays for as long as its object does: without it, the object would be granted again.
    """
    r = access_requests.c
    unused = ~sa.exists().where(attempts.c.access_request_id == r.uid)
    uids = list(
        tx.execute(sa.select(r.uid).where(r.deleted_at < before, unused).order_by(r.deleted_at).limit(limit)).scalars()
    )
    return _delete_requests(tx, uids)


def _delete_requests(tx: Tx, uids: Collection[str]) -> int:
    if uids:
        tx.execute(decisions.delete().where(decisions.c.access_request_id.in_(uids)))
        tx.execute(access_requests.delete().where(access_requests.c.uid.in_(uids)))
    return len(uids)


def deleted_roles(tx: Tx, *, before: float, limit: int) -> int:
    """Delete db_roles that are deleted from the catalog and that no access request names, whatever ``before`` is."""
    r, asked = db_roles.c, access_requests.c
    names = (
        (asked.cluster, r.cluster),
        (asked.cluster_uid, r.cluster_uid),
        (asked.role_namespace, r.namespace),
        (asked.role_name, r.name),
    )
    named = sa.exists().where(*(mine == theirs for mine, theirs in names))
    left = sa.exists().where(reassessments.c.db_role == r.id)
    some = sa.select(r.id).where(r.deleted.is_(True), ~named, ~left).limit(limit)
    return tx.execute(db_roles.delete().where(r.id.in_(some))).rowcount


TARGETS_KEPT_S = 6 * 3600.0
"""The watcher describes each VaultTarget that is in use again within an hour."""


def unused_targets(tx: Tx, *, before: float, limit: int) -> int:
    """Delete VaultTargets that nothing depends on and that no AppBinding describes any more, whatever ``before`` is."""
    return catalog.drop_unused_targets(tx, before=tx.now - TARGETS_KEPT_S, limit=limit)
