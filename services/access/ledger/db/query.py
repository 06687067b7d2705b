"""Statements of the hot path: SQLAlchemy renders each of them once, and the driver runs it.

SQLAlchemy Core takes some 30 microseconds a statement, of which SQLite needs five, and a credential takes some 50
statements: a burst takes 29 % longer without this module (docs/adr/0051-machinery-removed.md). It uses what SQLAlchemy
documents alone: a compiled statement with named parameters, the driver's connection behind a ``Connection``
(https://docs.sqlalchemy.org/en/21/core/connections.html#working-with-driver-sql-and-raw-dbapi-connections), and the
conversions of the types in ``schema``. A parameter that is missing is an error of the driver. All other statements go
through ``Tx.execute``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from services.access.ledger.db.database import Tx

R = TypeVar("R")

_DIALECT = sqlite.dialect(paramstyle="named")


class Query(Generic[R]):
    """A SELECT whose rows become records with fields of the columns' names.

    Args:
        record: Makes a record of a row.
        select: The statement, with a ``bindparam`` for each value that a call gives.
    """

    def __init__(self, record: Callable[..., R], select: sa.Select[Any]) -> None:
        compiled = select.compile(dialect=_DIALECT)
        self._record, self._sql = record, str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        columns = list(select.selected_columns)
        self._names = [column.name for column in columns]
        self._readers = [
            (number, read) for number, column in enumerate(columns) if (read := _reader(column.type)) is not None
        ]

    def all(self, tx: Tx, **parameters: Any) -> list[R]:
        """Run it and return a record for each row."""
        return [self._made(row) for row in tx.driver.execute(self._sql, self._fixed | parameters)]

    def first(self, tx: Tx, **parameters: Any) -> R | None:
        """Run it and return the record of the first row; None if there is none."""
        row = tx.driver.execute(self._sql, self._fixed | parameters).fetchone()
        return None if row is None else self._made(row)

    def _made(self, row: tuple[Any, ...]) -> R:
        cells = list(row)
        for number, read in self._readers:
            cells[number] = read(cells[number])
        return self._record(**dict(zip(self._names, cells, strict=True)))


class Change:
    """An INSERT or UPDATE; the columns that it sets are given at each run.

    Args:
        table: The table.
        statement: The statement without values, with a ``bindparam`` for each value of its condition.
    """

    def __init__(self, table: sa.Table, statement: sa.Insert | sa.Update) -> None:
        self._table, self._statement = table, statement
        self._rendered: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {}
        self._writers = {column.name: write for column in table.columns if (write := _writer(column.type)) is not None}

    def run(self, tx: Tx, columns: Mapping[str, Any], **parameters: Any) -> int:
        """Set these columns; return how many rows changed."""
        names = tuple(columns)
        sql, fixed = self._rendered.get(names) or self._render(names)
        values = {f"set_{name}": self._written(name, value) for name, value in columns.items()}
        return int(tx.driver.execute(sql, fixed | values | parameters).rowcount)

    def _render(self, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        values = {name: sa.bindparam(f"set_{name}", type_=self._table.c[name].type) for name in names}
        compiled = self._statement.values(values).compile(dialect=_DIALECT)
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        self._rendered[names] = str(compiled), fixed
        return self._rendered[names]

    def _written(self, name: str, value: Any) -> Any:
        write = self._writers.get(name)
        return value if write is None else write(value)


def _writer(kind: sa.types.TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what makes a value for the driver of a value of a column; None where it is the same."""
    if not isinstance(kind, sa.types.TypeDecorator):
        return None
    write: Callable[[Any, Any], Any] = kind.process_bind_param
    if isinstance(kind.impl, sa.JSON):
        return lambda value: json.dumps(write(value, _DIALECT))
    return lambda value: write(value, _DIALECT)


def _reader(kind: sa.types.TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what makes a value of a column of what the driver returns; None where that is the value."""
    if isinstance(kind, sa.Boolean):
        return bool
    if not isinstance(kind, sa.types.TypeDecorator):
        return None
    read: Callable[[Any, Any], Any] = kind.process_result_value
    if isinstance(kind.impl, sa.JSON):
        return lambda stored: read(None if stored is None else json.loads(stored), _DIALECT)
    return lambda stored: read(stored, _DIALECT)
