"""Opens a ledger's file read-only, beside the service that owns it if there is one: nothing is created or locked."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_MAGIC = b"SQLite format 3\x00"


class NoLedgerError(Exception):
    """The file cannot be looked at: what it is, or why not, in a sentence."""


class DamagedLedgerError(NoLedgerError):
    """It is a ledger, or was one, but cannot be read any more."""


@contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """A connection that can only read, within one transaction.

    Raises:
        NoLedgerError: It is no ledger, or cannot be read.
    """
    _look(path)
    engine = sa.create_engine("sqlite://", creator=lambda: _connect(path.resolve()), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                raise NoLedgerError(f"{path} is an SQLite file, but no ledger of Leasegate")
            yield connection
    except sa.exc.DBAPIError as err:
        if "malformed" in str(err.orig):
            raise DamagedLedgerError(f"{path} is damaged: {err.orig}") from err
        raise NoLedgerError(f"{path} cannot be read as a ledger: {err.orig}") from err
    finally:
        engine.dispose()


def owner(path: Path) -> str | None:
    """Process id of the access service that seems to have the ledger open; None where there is none.

    It is not asked by locking, as a start at that very moment would be refused.
    """
    try:
        file = path.resolve()  # the lock is beside the file itself, by whatever name that is given
        pid = file.with_name(file.name + ".lock").read_text()[:20].strip()
        return pid if _lives(int(pid)) else None
    except (OSError, ValueError):
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # as somebody else
    except ProcessLookupError:
        return False
    return True


def _look(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as err:
        raise NoLedgerError(f"{path} cannot be read: {(err.strerror or str(err)).lower()}") from err
    if not head:
        raise NoLedgerError(f"{path} is empty: it is no ledger")
    if head != _MAGIC:
        raise NoLedgerError(f"{path} is no ledger: it is no SQLite file")


def _connect(path: Path) -> sqlite3.Connection:
    """Connect read-only.

    Without a write-ahead log, and so without a service that has the file open, nothing is written beside it either.
    """
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, check_same_thread=False)
