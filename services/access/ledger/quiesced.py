"""Places where nothing is issued: a mount, or one connection of it; known by the server's address, whatever names it has."""

from __future__ import annotations

import sqlalchemy as sa

from services.access.ledger.database import Tx
from services.access.ledger.prepared import Query, given
from services.access.ledger.schema import attempts, quiesced, roles, row_of, targets
from services.access.records import Attempt, Quiesced, Role, State

_q = quiesced.c
_COVERING = Query(
    sa.select(_q.mount)
    .join_from(quiesced, targets, sa.and_(_q.server == targets.c.server, _q.vault_namespace == targets.c.vault_namespace))
    .where(
        targets.c.id == given(targets.c.id), _q.mount == given(_q.mount), sa.or_(_q.connection == "", _q.connection == given(_q.connection))
    )
    .limit(1),
    dict[str, str],
)


def add(tx: Tx, place: Quiesced) -> bool:
    """Issue nothing there from now on; answers whether that is new."""
    known = tx.execute(sa.select(quiesced.c.mount).where(*_is(place))).first()
    if known is None:
        tx.execute(quiesced.insert().values(**_columns(place)))
    return known is None


def remove(tx: Tx, place: Quiesced) -> None:
    """Issue there again."""
    tx.execute(quiesced.delete().where(*_is(place)))


def covers(tx: Tx, role: Role) -> bool:
    """Whether nothing may be issued for this role now."""
    return _COVERING.first(tx, id_=role.target, mount_=role.mount, connection_=role.db_name) is not None


def open_attempts(tx: Tx, place: Quiesced) -> list[Attempt]:
    """The attempts of that place that are not closed."""
    same = [targets.c.server == place.server, targets.c.vault_namespace == place.vault_namespace, attempts.c.mount == place.mount]
    if place.connection:
        same.append(attempts.c.db_name == place.connection)
    query = sa.select(attempts).join(targets, targets.c.id == attempts.c.target).where(*same, attempts.c.state != State.CLOSED)
    return [Attempt(**row._mapping) for row in tx.execute(query)]


def roles_at(tx: Tx, place: Quiesced) -> list[Role]:
    """The roles of that place."""
    same = [targets.c.server == place.server, targets.c.vault_namespace == place.vault_namespace, roles.c.mount == place.mount]
    if place.connection:
        same.append(roles.c.db_name == place.connection)
    return [Role(**row._mapping) for row in tx.execute(sa.select(roles).join(targets, targets.c.id == roles.c.target).where(*same))]


def _is(place: Quiesced) -> list[sa.ColumnElement[bool]]:
    return [quiesced.c[name] == value for name, value in _columns(place).items()]


def _columns(place: Quiesced) -> dict[str, str]:
    return row_of(quiesced, place)
