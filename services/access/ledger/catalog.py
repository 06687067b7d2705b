"""VaultTargets and db_roles: what may be issued where."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access.domain.models import AccessRequest, DbRole, VaultTargetRow
from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Query
from services.access.ledger.db.schema import TARGET_KEY, attempts, cleanup_roles, db_roles, row_of, vault_targets

_r = db_roles.c
_TARGET = Query(VaultTargetRow, sa.select(vault_targets).where(vault_targets.c.id == sa.bindparam("target_id")))
_ROLE = Query(
    DbRole,
    sa.select(db_roles).where(
        *(column == sa.bindparam(column.name) for column in (_r.cluster, _r.cluster_uid, _r.namespace, _r.name))
    ),
)


def put_target(tx: Tx, target: VaultTargetRow) -> VaultTargetRow:
    """Insert or update a VaultTarget by its key, as of now; ``target.id`` is ignored."""
    target = replace(target, ensured_at=tx.now)
    columns = row_of(vault_targets, target, without=("id",))
    known = find_target(tx, target)
    if known is None:
        done = tx.execute(vault_targets.insert().values(**columns))
        return replace(target, id=int(done.inserted_primary_key[0]))  # type: ignore[index]
    tx.execute(vault_targets.update().where(vault_targets.c.id == known.id).values(**columns))
    return replace(target, id=known.id)


def count_targets(tx: Tx, target: VaultTargetRow) -> int:
    """Return how many VaultTargets the namespace of this one has described."""
    same = targets_of(target)
    return int(tx.execute(sa.select(sa.func.count()).select_from(vault_targets).where(*same)).scalar_one())


def drop_unused_targets(tx: Tx, *where: sa.ColumnElement[bool], before: float, limit: int = -1) -> int:
    """Delete VaultTargets of AppBindings that nothing depends on and that are described otherwise now, or no more.

    Args:
        tx: Transaction.
        where: Which ones come into question.
        before: One that was described last before this time is described no more.
        limit: At most so many; all if negative.
    """
    t, newer = vault_targets.c, vault_targets.alias()
    same = (newer.c[name] == t[name] for name in TARGET_KEY[:4])
    later = sa.tuple_(newer.c.ensured_at, newer.c.id) > sa.tuple_(t.ensured_at, t.id)
    replaced = sa.exists().where(*same, later).correlate(vault_targets)
    used = (sa.select(table.c.target) for table in (db_roles, attempts, cleanup_roles))
    unused = (t.id.not_in(query) for query in used)
    some = sa.select(t.id).where(*where, t.namespace != "", sa.or_(replaced, t.ensured_at < before), *unused)
    return tx.execute(vault_targets.delete().where(t.id.in_(some.limit(limit)))).rowcount


def targets_of(target: VaultTargetRow) -> tuple[sa.ColumnElement[bool], ...]:
    """Match the VaultTargets that the namespace of this one has described."""
    return tuple(vault_targets.c[name] == getattr(target, name) for name in TARGET_KEY[:3])


def find_target(tx: Tx, target: VaultTargetRow) -> VaultTargetRow | None:
    """Return the VaultTarget with the same key."""
    same = (vault_targets.c[name] == getattr(target, name) for name in TARGET_KEY)
    return tx.fetch_first(VaultTargetRow, sa.select(vault_targets).where(*same))


def find_target_by_id(tx: Tx, number: int) -> VaultTargetRow | None:
    """Return a VaultTarget by its id; None once it is pruned."""
    return _TARGET.first(tx, target_id=number)


def target(tx: Tx, number: int) -> VaultTargetRow:
    """Return a VaultTarget by its id, which must exist."""
    found = find_target_by_id(tx, number)
    if found is None:
        raise LookupError(f"the ledger has no target {number}")
    return found


def put_role(tx: Tx, role: DbRole) -> DbRole:
    """Insert or update a db_role by its name; ``role.id`` is ignored."""
    columns = row_of(db_roles, role, without=("id",))
    known = find_role(tx, role.cluster, role.cluster_uid, role.namespace, role.name)
    if known is None:
        done = tx.execute(db_roles.insert().values(**columns))
        return replace(role, id=int(done.inserted_primary_key[0]))  # type: ignore[index]
    tx.execute(db_roles.update().where(db_roles.c.id == known.id).values(**columns))
    return replace(role, id=known.id)


def pause_role(tx: Tx, role: DbRole, *, number: int, by: str) -> DbRole:
    """Pause a db_role, or give its pause another number; return it as it is now."""
    paused = replace(
        role, pause_number=number, paused_by=by, paused_at=tx.now if role.paused_at is None else role.paused_at
    )
    return put_role(tx, paused)


def show_pause(tx: Tx, role: DbRole) -> None:
    """Note that the access requests of a db_role show its pause."""
    tx.execute(db_roles.update().where(db_roles.c.id == role.id).values(pause_shown=True))


def drop_role(tx: Tx, role: DbRole, *, not_allowed: str = "") -> None:
    """Mark a db_role as deleted, and why its owner may not use it where that is the reason; its digest is kept."""
    tx.execute(db_roles.update().where(db_roles.c.id == role.id).values(deleted=True, not_allowed=not_allowed))


def find_role(tx: Tx, cluster: str, cluster_uid: str, namespace: str, name: str) -> DbRole | None:
    """Return a db_role, deleted or not."""
    return _ROLE.first(tx, cluster=cluster, cluster_uid=cluster_uid, namespace=namespace, name=name)


def role_of(tx: Tx, request: AccessRequest) -> DbRole | None:
    """Return the db_role that an access request names, deleted or not."""
    return find_role(tx, request.cluster, request.cluster_uid, request.role_namespace, request.role_name)


def configured(tx: Tx) -> list[DbRole]:
    """Return the db_roles of the operator's catalog file, as of the last start, that are not deleted."""
    where = (db_roles.c.configured.is_(True), db_roles.c.deleted.is_(False))
    return tx.fetch(DbRole, sa.select(db_roles).where(*where))


def targets(tx: Tx) -> list[VaultTargetRow]:
    """Return all VaultTargets."""
    return tx.fetch(VaultTargetRow, sa.select(vault_targets))


def update_target(tx: Tx, target: VaultTargetRow) -> None:
    """Store what is known of a VaultTarget now; its key stays."""
    key = ("id", "cluster", "cluster_uid", "namespace", "name", "key_digest")
    columns = row_of(vault_targets, target, without=key)
    tx.execute(vault_targets.update().where(vault_targets.c.id == target.id).values(**columns))
