"""Db_roles that changed and whose access requests are not all in line with them yet (ADR 78)."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access.domain.models import DbRole, Reassessment
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import db_roles, reassessments, row_of

_s, _r = reassessments.c, db_roles.c


def begin(tx: Tx, db_role: DbRole, *, leases: bool) -> Reassessment | None:
    """Note that the access requests of a db_role are to be reassessed; None if a pass over them is under way.

    Another pass follows that one: to begin it at once would never reach the last access request of a db_role that
    changes faster than a pass takes.
    """
    tx.reassessments = True
    known = find(tx, db_role.id)
    if known is None:
        begun = Reassessment(db_role.id, since=tx.now, leases=leases)
        tx.execute(reassessments.insert().values(**row_of(reassessments, begun)))
        return begun
    go_on(tx, replace(known, again=True, leases=known.leases or leases))
    return None


def find(tx: Tx, db_role: int) -> Reassessment | None:
    """Return what is left for a db_role; None if nothing is."""
    return tx.fetch_first(Reassessment, sa.select(reassessments).where(_s.db_role == db_role))


def role_of(tx: Tx, left: Reassessment) -> DbRole:
    """Return the db_role, deleted or not."""
    (found,) = tx.fetch(DbRole, sa.select(db_roles).where(_r.id == left.db_role))
    return found


def go_on(tx: Tx, left: Reassessment) -> None:
    """Note what is left now."""
    tx.execute(reassessments.update().where(_s.db_role == left.db_role).values(**row_of(reassessments, left)))


def end(tx: Tx, left: Reassessment) -> None:
    """Note that nothing is left."""
    tx.execute(reassessments.delete().where(_s.db_role == left.db_role))


def next_of_each_namespace(tx: Tx) -> list[int]:
    """Return the db_role of each namespace whose pass began the longest ago."""
    query = sa.select(_s.db_role, _r.cluster_uid, _r.namespace).join(db_roles, _r.id == _s.db_role)
    found: dict[tuple[str, str], int] = {}
    for row in tx.execute(query.order_by(_s.since, _s.db_role)):
        found.setdefault((row.cluster_uid, row.namespace), row.db_role)
    return list(found.values())


def count(tx: Tx) -> int:
    """Return how many db_roles have access requests that are not in line with them yet."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(reassessments)).scalar_one())
