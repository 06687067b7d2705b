"""Statements that are built and compiled once and then run on the driver's own cursor.

SQLAlchemy builds, keys and wraps a statement anew at each call, which takes ten times what SQLite does (measured: 0.25 ms and more against
0.02 ms). The statements that every credential needs go this way; all others the ordinary one, ``Tx.execute``. Types, dialect and errors
are SQLAlchemy's own either way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from services.access.ledger.db.database import Tx

R = TypeVar("R")
_Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as text.

    Attributes:
        sql: For the driver.
        binds: Of each place in order its name, a value that the statement itself brought, and what makes the driver's
            value of ours.
    """

    sql: str
    binds: tuple[tuple[str, Any, _Processor | None], ...]

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """The driver's values, in order."""
        get = given.get
        return [
            get(name, fixed) if process is None else process(get(name, fixed)) for name, fixed, process in self.binds
        ]


def _compile(statement: sa.Executable, dialect: Dialect) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    binds = [(name, compiled.binds[name]) for name in compiled.positiontup]
    return _Compiled(str(compiled), tuple((name, bind.value, _to_driver(bind.type, dialect)) for name, bind in binds))


def _to_driver(kind: sa.types.TypeEngine[Any], dialect: Dialect) -> _Processor | None:
    return _remembered(kind, kind.dialect_impl(dialect).bind_processor(dialect))


def _remembered(kind: sa.types.TypeEngine[Any], process: _Processor | None) -> _Processor | None:
    """Values of our own types (words, numbers, texts, subjects) are few and never change: each is made once, not at
    each row.
    """
    return lru_cache(maxsize=1024)(process) if process and isinstance(kind, sa.types.TypeDecorator) else process


class Statement:
    """A statement that changes rows; its ``bindparam``s are given by name at each run."""

    def __init__(self, statement: sa.Executable) -> None:
        """Keep it; it is compiled when it is first run."""
        self._statement, self._compiled = statement, dict[str, _Compiled]()

    def run(self, tx: Tx, **values: Any) -> int:
        """Run it; answers how many rows it changed."""
        return int(self._execute(tx, values).rowcount)

    def _execute(self, tx: Tx, values: Mapping[str, Any]) -> Any:
        dialect = tx.connection.dialect
        compiled = self._compiled.get(dialect.name) or self._compiled.setdefault(
            dialect.name, _compile(self._statement, dialect)
        )
        parameters = compiled.values(values)
        try:
            return tx.driver.execute(compiled.sql, parameters)
        except dialect.loaded_dbapi.Error as err:
            raise sa.exc.DBAPIError.instance(
                compiled.sql, parameters, err, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
            ) from err


class Query(Statement, Generic[R]):
    """A SELECT whose rows become records with fields of the columns' names."""

    def __init__(self, statement: sa.Select[Any], record: Callable[..., R]) -> None:
        """Keep it; it is compiled when it is first run."""
        super().__init__(statement)
        self._columns, self._record = list(statement.selected_columns), record
        self._names = [column.name for column in self._columns]
        self._processors: list[tuple[int, _Processor]] | None = None

    def all(self, tx: Tx, **values: Any) -> list[R]:
        """All rows."""
        return [self._made(tx, row) for row in self._execute(tx, values).fetchall()]

    def first(self, tx: Tx, **values: Any) -> R | None:
        """The first row; None if there is none."""
        row = self._execute(tx, values).fetchone()
        return None if row is None else self._made(tx, row)

    def _made(self, tx: Tx, row: tuple[Any, ...]) -> R:
        if self._processors is None:
            self._processors = _processors(self._columns, tx.connection.dialect)
        cells = list(row)
        for number, process in self._processors:
            cells[number] = process(cells[number])
        return self._record(**dict(zip(self._names, cells, strict=True)))


def _processors(columns: list[Any], dialect: Dialect) -> list[tuple[int, _Processor]]:
    def processor(kind: sa.types.TypeEngine[Any]) -> _Processor | None:
        return _remembered(kind, kind.dialect_impl(dialect).result_processor(dialect, None))

    found = ((number, processor(column.type)) for number, column in enumerate(columns))
    return [(number, process) for number, process in found if process]


def given(column: sa.Column[Any]) -> sa.BindParameter[Any]:
    """The value of a column as it is given at each run: under its name and an underscore, as the bare name is the
    column that is set.
    """
    return sa.bindparam(f"{column.name}_", type_=column.type)
