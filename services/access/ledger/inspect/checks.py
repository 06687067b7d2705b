"""Checks whether a ledger is whole (file, version, rows against one another), for ``leasegate ledger check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.access.domain.models import FINAL, AttemptState
from services.access.ledger.db.migrate import revisions
from services.access.ledger.db.schema import access_requests, attempts, meta
from services.access.ledger.inspect.offline import DamagedLedgerError, NoLedgerError, opened, owner

_a, _r = attempts.c, access_requests.c
_LIVE = (AttemptState.ISSUED, AttemptState.ACTIVE, AttemptState.RETIRING, AttemptState.REPLACED)
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """What a check found.

    Attributes:
        ledger_id: Id of the ledger; empty if it has none.
        version: Its newest migration.
        owner: Process id of the service that has it open; None for none.
        access_requests: How many it has, by approval.
        attempts: How many it has, by state.
        problems: What is wrong; empty for a ledger that is whole.
        remarks: What is worth knowing.
    """

    ledger_id: str
    version: str
    owner: str | None
    access_requests: dict[str, int]
    attempts: dict[str, int]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def check(path: Path) -> LedgerCheck:
    """Check a ledger.

    Raises:
        NoLedgerError: It is none.
    """
    try:
        return _check(path)
    except DamagedLedgerError:
        return LedgerCheck("", "", owner(path), {}, {}, ("the file is damaged: not all of it can be read",), ())


def _check(path: Path) -> LedgerCheck:
    with opened(path) as connection:
        problems = [*_file(connection)]
        if problems:  # what its rows say is not to be trusted
            return LedgerCheck("", "", owner(path), {}, {}, tuple(problems), ())
        version = str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or "")
        known = revisions()
        if version not in known:
            raise NoLedgerError(
                f"{path} is a ledger of a newer version ({version or 'none'}): check it with the program that wrote it"
            )
        if version != known[-1]:
            found = (
                f"It is of an older version ({version}); the service migrates it to {known[-1]} at its start."
                " Check it again after that."
            )
            return LedgerCheck(_id(connection), version, owner(path), {}, {}, (), (found,))
        return LedgerCheck(
            _id(connection),
            version,
            owner(path),
            _count(connection, _r.approval),
            _count(connection, _a.state),
            tuple(_rows(connection)),
            tuple(_remarks(connection)),
        )


def _file(connection: Connection) -> Iterator[str]:
    for row in connection.exec_driver_sql(f"PRAGMA integrity_check({_MOST_SHOWN})"):
        if row[0] != "ok":
            yield f"the file is damaged: {row[0]}"
    for row in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_MOST_SHOWN):
        yield f"row {row[1]} of {row[0]} names one of {row[2]} that is not there"


def _id(connection: Connection) -> str:
    return str(connection.execute(sa.select(meta.c.value).where(meta.c.name == "ledger_id")).scalar() or "")


def _count(connection: Connection, column: sa.ColumnElement[str]) -> dict[str, int]:
    return {
        str(row[0]): row[1]
        for row in connection.execute(sa.select(column, sa.func.count()).group_by(column).order_by(column))
    }


def _rows(connection: Connection) -> Iterator[str]:
    if not _id(connection):
        yield "it has no id"
    for text, query in _RULES:
        found = list(connection.execute(query.limit(_MOST_SHOWN + 1)).scalars())
        for name in found[:_MOST_SHOWN]:
            yield text.format(name)
        if len(found) > _MOST_SHOWN:
            yield f"... and more: {text.format('...')}"


_DUE = (AttemptState.REVOKING_TOKEN, AttemptState.REVOKING, AttemptState.RECOVERING)
_LEFT_BEHIND = (AttemptState.PENDING, AttemptState.TOKEN_READY, AttemptState.ISSUING, *_LIVE)
_OF_REQUEST = sa.select(_a.access_request_id).join(access_requests, _r.uid == _a.access_request_id)
_RULES: tuple[tuple[str, sa.Select[tuple[str]]], ...] = (
    ("attempt {} is in use but has no lease", sa.select(_a.id).where(_a.state.in_(_LIVE), _a.lease_id == "")),
    ("attempt {} is in use but has no end", sa.select(_a.id).where(_a.state.in_(_LIVE), _a.ends_at.is_(None))),
    (
        "attempt {} is issuing but has no accessor",
        sa.select(_a.id).where(_a.state == AttemptState.ISSUING, _a.accessor == ""),
    ),
    (
        "attempt {} is to be revoked but no work is due for it",
        sa.select(_a.id).where(_a.state.in_(_DUE), _a.due_at.is_(None)),
    ),
    (
        "attempt {} is closed but still names a token",
        sa.select(_a.id).where(_a.state == AttemptState.CLOSED, _a.accessor != ""),
    ),
    (
        "access request {} has two active credentials",
        sa.select(_a.access_request_id)
        .where(_a.state == AttemptState.ACTIVE)
        .group_by(_a.access_request_id)
        .having(sa.func.count() > 1),
    ),
    (
        "access request {} is closed but an attempt of it goes on",
        _OF_REQUEST.where(_r.approval.in_(FINAL), _a.state.in_(_LEFT_BEHIND)),
    ),
    (
        "access request {} has an attempt of a higher sequence than its last",
        _OF_REQUEST.where(_a.sequence > _r.last_sequence),
    ),
)


def _remarks(connection: Connection) -> Iterator[str]:
    for row in connection.execute(sa.select(meta.c.name, meta.c.value).order_by(meta.c.name)):
        kind, _, other = row.name.partition(":")
        if kind == "paused_for":
            yield f"issuance is paused: a watcher knows the ledger {other}; `leasegate ledger accept-loss` resumes it"
        elif kind == "accepted":
            yield f"the loss of the ledger {other} was accepted"
