"""Pauses of issuance at a mount or one connection of it, known by the name of its Vault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from services.access.domain.models import LONGEST_PAUSE_S, Attempt, AttemptState, DbRole, IssuancePause
from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Query
from services.access.ledger.db.schema import access_requests, attempts, db_roles, issuance_pauses, row_of, vault_targets

_q = issuance_pauses.c
_SELECT_COVERING = (
    sa.select(_q.mount)
    .join_from(
        issuance_pauses,
        vault_targets,
        sa.and_(_q.vault == vault_targets.c.vault, _q.vault_namespace == vault_targets.c.vault_namespace),
    )
    .where(
        vault_targets.c.id == sa.bindparam("target_id"),
        _q.mount == sa.bindparam("mount"),
        sa.or_(_q.connection == "", _q.connection == sa.bindparam("connection")),
        sa.or_(
            _q.cluster_uid == "",
            _q.cluster_uid == sa.bindparam("cluster_uid"),
            sa.bindparam("cluster_uid", type_=sa.String) == "",
        ),
    )
    .limit(1)
)
_COVERING = Query(lambda mount: str(mount), _SELECT_COVERING)
_CHANGING = Query(lambda mount: str(mount), _SELECT_COVERING.where(_q.changing.is_(True)))


def add(tx: Tx, place: IssuancePause) -> bool:
    """Pause issuance there; return whether it was not paused."""
    if is_paused(tx, place):
        return False
    tx.execute(issuance_pauses.insert().values(**_columns(place)))
    return True


def is_paused(tx: Tx, place: IssuancePause) -> bool:
    """Whether exactly this mount or connection is paused."""
    return tx.execute(sa.select(issuance_pauses.c.mount).where(*_is(place))).first() is not None


def remove(tx: Tx, place: IssuancePause) -> None:
    """Resume issuance there."""
    tx.execute(issuance_pauses.delete().where(*_is(place)))


def covers(tx: Tx, role: DbRole) -> bool:
    """Return whether issuance is paused for this db_role."""
    return _COVERING.first(tx, **_place_of(role)) is not None


def is_changing(tx: Tx, role: DbRole) -> bool:
    """Return whether what this db_role runs on is about to change."""
    return _CHANGING.first(tx, **_place_of(role)) is not None


def _place_of(role: DbRole) -> dict[str, Any]:
    return {
        "target_id": role.target,
        "mount": role.mount,
        "connection": role.db_name,
        "cluster_uid": role.cluster_uid,
    }


def count(tx: Tx) -> int:
    """Return how many mounts and connections are paused."""
    return int(tx.execute(sa.select(sa.func.count()).select_from(issuance_pauses)).scalar_one())


def count_roles(tx: Tx) -> tuple[int, int]:
    """Return how many db_roles are paused, and how many of them have been for so long that they count as outdated."""
    since, now = db_roles.c.paused_at, tx.now
    found = tx.execute(sa.select(since).where(since.is_not(None), db_roles.c.deleted.is_(False))).scalars().all()
    outdated = sum(at + LONGEST_PAUSE_S <= now for at in found)
    return len(found) - outdated, outdated


def open_attempts(
    tx: Tx, place: IssuancePause, *, vault_role: str = "", of_every_cluster: bool = False
) -> list[Attempt]:
    """Return the attempts at that place, or of one db_role there, that are not closed.

    Those of other clusters than the one of the place are left out, unless ``of_every_cluster``.
    """
    same = [
        vault_targets.c.vault == place.vault,
        vault_targets.c.vault_namespace == place.vault_namespace,
        attempts.c.mount == place.mount,
    ]
    if place.connection:
        same.append(attempts.c.db_name == place.connection)
    if vault_role:
        same.append(attempts.c.vault_role == vault_role)
    if place.cluster_uid and not of_every_cluster:
        same.append(access_requests.c.cluster_uid.in_((place.cluster_uid, "")))
    query = (
        sa.select(attempts)
        .join(vault_targets, vault_targets.c.id == attempts.c.target)
        .join(access_requests, access_requests.c.uid == attempts.c.access_request_id)
        .where(*same, attempts.c.state != AttemptState.CLOSED)
    )
    return tx.fetch(Attempt, query)


def roles_at(tx: Tx, place: IssuancePause, *, vault_role: str = "") -> list[DbRole]:
    """Return the db_roles of the place's cluster there, or those with one name in Vault, deleted or not."""
    same = [
        vault_targets.c.vault == place.vault,
        vault_targets.c.vault_namespace == place.vault_namespace,
        db_roles.c.mount == place.mount,
    ]
    if place.connection:
        same.append(db_roles.c.db_name == place.connection)
    if vault_role:
        same.append(db_roles.c.vault_role == vault_role)
    if place.cluster_uid:
        same.append(db_roles.c.cluster_uid.in_((place.cluster_uid, "")))
    return tx.fetch(
        DbRole, sa.select(db_roles).join(vault_targets, vault_targets.c.id == db_roles.c.target).where(*same)
    )


def rename_vault(tx: Tx, before: str, after: str) -> None:
    """Keep the pauses of a Vault that is known by another name now."""
    for place in tx.fetch(IssuancePause, sa.select(issuance_pauses).where(_q.vault == before)):
        remove(tx, place)
        add(tx, replace(place, vault=after))


def _is(place: IssuancePause) -> list[sa.ColumnElement[bool]]:
    return [issuance_pauses.c[name] == value for name, value in _columns(place).items()]


def _columns(place: IssuancePause) -> dict[str, Any]:
    return row_of(issuance_pauses, place)
