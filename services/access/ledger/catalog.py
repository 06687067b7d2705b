"""VaultTargets and db_roles: what may be issued where."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from services.access.domain.models import AccessRequest, DbRole, VaultTargetRow
from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Query
from services.access.ledger.db.schema import db_roles, row_of, vault_targets

_r = db_roles.c
_TARGET = Query(VaultTargetRow, sa.select(vault_targets).where(vault_targets.c.id == sa.bindparam("target_id")))
_ROLE = Query(
    DbRole,
    sa.select(db_roles).where(
        *(column == sa.bindparam(column.name) for column in (_r.cluster, _r.cluster_uid, _r.namespace, _r.name))
    ),
)


def put_target(tx: Tx, target: VaultTargetRow) -> VaultTargetRow:
    """Insert or update a VaultTarget by its key; ``target.id`` is ignored."""
    columns = row_of(vault_targets, target, without=("id",))
    known = find_target(tx, target.cluster, target.namespace, target.name, target.key_digest)
    if known is None:
        done = tx.execute(vault_targets.insert().values(**columns))
        return replace(target, id=int(done.inserted_primary_key[0]))  # type: ignore[index]
    if known != replace(target, id=known.id):
        tx.execute(vault_targets.update().where(vault_targets.c.id == known.id).values(**columns))
    return replace(target, id=known.id)


def find_target(tx: Tx, cluster: str, namespace: str, name: str, digest: str) -> VaultTargetRow | None:
    """Return a VaultTarget by its key."""
    t = vault_targets.c
    where = (t.cluster == cluster, t.namespace == namespace, t.name == name, t.key_digest == digest)
    return tx.fetch_first(VaultTargetRow, sa.select(vault_targets).where(*where))


def target(tx: Tx, number: int) -> VaultTargetRow:
    """Return a VaultTarget by its id, which must exist."""
    found = _TARGET.first(tx, target_id=number)
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


def same_place(
    tx: Tx, *, cluster: str, namespace: str, name: str, server: str, vault_namespace: str
) -> VaultTargetRow | None:
    """Return the newest VaultTarget of this name at this server, for callers that do not know its auth mount."""
    t = vault_targets.c
    where = (
        t.cluster == cluster,
        t.namespace == namespace,
        t.name == name,
        t.server == server,
        t.vault_namespace == vault_namespace,
    )
    return tx.fetch_first(VaultTargetRow, sa.select(vault_targets).where(*where).order_by(t.id.desc()).limit(1))
