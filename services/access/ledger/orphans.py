"""Reads for the orphan scan: everything open, and single closed attempts by lease or database user."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from services.access.domain.models import AttemptState, VaultTargetRow
from services.access.domain.orphans import LeaseEntry, Place
from services.access.ledger.db.database import Tx
from services.access.ledger.db.schema import attempts, db_roles, recoveries, vault_targets

_a, _t = attempts.c, vault_targets.c
_COLUMNS = (
    _t.vault,
    _t.vault_namespace,
    _a.mount,
    _a.vault_role,
    _a.lease_id,
    _a.database_user,
    _a.access_request_id,
    _a.state,
    _a.ends_at,
)
_OF = sa.select(_a.id, *_COLUMNS).join(vault_targets, _t.id == _a.target)
_BATCH = 500


def places(tx: Tx) -> dict[Place, tuple[dict[int, VaultTargetRow], frozenset[str]]]:
    """Return every mount that the ledger names, with its VaultTargets by id and the Vault roles known there."""
    targets_by_id = {each.id: each for each in tx.fetch(VaultTargetRow, sa.select(vault_targets))}
    named = sa.union(
        sa.select(_a.target, _a.mount, _a.vault_role),
        sa.select(db_roles.c.target, db_roles.c.mount, db_roles.c.vault_role),
    )
    found: dict[Place, tuple[dict[int, VaultTargetRow], frozenset[str]]] = {}
    for row in tx.execute(named):
        target = targets_by_id[row.target]
        place = Place(target.vault, target.vault_namespace, row.mount)
        there, known = found.get(place, ({}, frozenset()))
        found[place] = (there | {target.id: target}, known | {row.vault_role})
    return found


def entries(tx: Tx) -> list[LeaseEntry]:
    """Return what is open: attempts, and the leases of their cleanup roles."""
    found = [_entry(row) for row in tx.execute(_OF.where(_a.state != AttemptState.CLOSED))]
    d = recoveries.c
    cleanup = sa.select(*_COLUMNS, d.cleanup_role, d.lease_id.label("cleanup_roles_lease")).join(
        vault_targets, _t.id == _a.target
    )
    for row in tx.execute(
        cleanup.join(recoveries, d.attempt == _a.id).where(_a.state != AttemptState.CLOSED, d.done_at.is_(None))
    ):
        found.append(_entry(row, role=row.cleanup_role, lease_id=row.cleanup_roles_lease))
    return found


def closed(tx: Tx, lease_ids: Collection[str]) -> dict[str, LeaseEntry]:
    """Return those of these leases whose attempts are closed, by lease id."""
    found: dict[str, LeaseEntry] = {}
    for some in _batches(lease_ids):
        for row in tx.execute(_OF.where(_a.state == AttemptState.CLOSED, _a.lease_id.in_(some))):
            found[row.lease_id] = _entry(row)
    return found


def by_id(tx: Tx, attempt_ids: Collection[str]) -> dict[str, LeaseEntry]:
    """Return these attempts, closed or not, as far as they exist."""
    return {row.id: _entry(row) for some in _batches(attempt_ids) for row in tx.execute(_OF.where(_a.id.in_(some)))}


def _batches(found: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(found)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]


def _entry(row: sa.Row[tuple[object, ...]], *, role: str | None = None, lease_id: str | None = None) -> LeaseEntry:
    return LeaseEntry(
        place=Place(row.vault, row.vault_namespace, row.mount),
        role=row.vault_role if role is None else role,
        lease_id=row.lease_id if lease_id is None else lease_id,
        database_user=row.database_user,
        access_request_id=row.access_request_id,
        state=row.state,
        ends_at=row.ends_at,
    )
