"""Opens the ledger's file for one process alone, and runs transactions.

A file that cannot be trusted is refused with a sentence that says why, never replaced: a lost ledger must not look like
a first start.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from services.access.domain.quotas import Quotas
from services.access.ledger.db import files, schema
from services.access.ledger.db.outcomes import LeaseOutcome
from services.access.ledger.db.shared_commit import NotCommittedError, SharedCommits
from services.access.ledger.db.version import NewerVersionError, bring_up
from services.common import failpoints
from services.common.bounded import BoundedMap
from services.common.config import StartupRefusedError
from services.common.errors import LedgerUnavailableError
from services.common.logs import bounded

Clock = Callable[[], float]
"""Returns seconds since 1970."""

R = TypeVar("R")

SOON_S = 5.0
"""Workers look for due work at least this often."""

_BUSY_MS = 5000
_POOL_SIZE, _MAX_CONNECTIONS = 4, 128
_CACHE_KIB = 512  # of each connection; the system caches the file anyway
_WRITES = "leasegate_writes"

_ROOMS = 10_000


@dataclass(slots=True)
class Tx:
    """One transaction.

    Attributes:
        connection: For the modules of this package.
        now: Time of the transaction.
        quotas: What one tenant may have.
        verified_only: Whether an access request gets nothing while it is not known who is behind it.
        room: How many more of a kind a tenant has room for at least, for ``services.access.ledger.quotas`` alone.
        changed: Access requests that changed for their owners; published after the commit.
        work: Whether there may be work that is due soon; the workers are woken after the commit.
        reassessments: Whether access requests of a db_role are left to reassess; that goes on after the commit.
        outcomes: What it did to leases; counted after the commit.
        cleanup_roles: Cleanup roles, by name and target, that are now needed or no longer needed; published after the
            commit.
    """

    connection: Connection
    now: float
    quotas: Quotas = field(default_factory=Quotas)
    verified_only: bool = False
    room: MutableMapping[tuple[str, str], int] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    work: bool = False
    reassessments: bool = False
    cleanup_roles: set[tuple[str, int]] = field(default_factory=set)
    outcomes: list[LeaseOutcome] = field(default_factory=list)

    @property
    def driver(self) -> Any:
        """The driver's connection, for ``services.access.ledger.db.query`` alone."""
        return self.connection.connection.dbapi_connection

    def wake(self, at: float | None) -> None:
        """Wake the workers after the commit, if work is due before they look next."""
        self.work |= at is not None and at - self.now < SOON_S

    def answer_change(self, uid: str) -> None:
        """Keep a change out of the change feed, as the answer of this call says it to the owner already."""
        self.changed.discard(uid)

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        """Run one statement."""
        return self.connection.execute(statement, parameters)

    def fetch(self, record: Callable[..., R], query: sa.Select[Any], parameters: Any = None) -> list[R]:
        """Run a query and return a record for each row; its fields are named as the columns."""
        return [record(**row) for row in self.execute(query, parameters).mappings()]

    def fetch_first(self, record: Callable[..., R], query: sa.Select[Any], parameters: Any = None) -> R | None:
        """Run a query and return the record of the first row; None if there is none."""
        row = self.execute(query, parameters).mappings().first()
        return None if row is None else record(**row)


Listener = Callable[[Tx], None]


class Ledger:
    """The open ledger; safe for many threads, owned by one process."""

    def __init__(self, engine: Engine, *, lock: IO[str], clock: Clock) -> None:
        """For ``open_ledger`` alone."""
        self._engine, self._lock_file, self.clock = engine, lock, clock
        self._commits = SharedCommits(self._connect_writer)
        self.listeners: list[Listener] = []
        self.quotas, self.verified_only = Quotas(), False
        self._room = BoundedMap[tuple[str, str], int](_ROOMS)
        self._closed = False
        self.id = self._identify()

    def _identify(self) -> str:
        with self.write() as tx:
            found = tx.execute(sa.select(schema.meta.c.value).where(schema.meta.c.name == "ledger_id")).scalar()
            if found is None:
                found = uuid.uuid4().hex
                tx.execute(schema.meta.insert().values(name="ledger_id", value=found))
            return str(found)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """Write in one transaction, committed durably at the end of the block, rolled back if it raises.

        Writers take turns, and share a commit where they queue. Listeners are called after the commit, in this thread.

        Raises:
            LedgerUnavailableError: Nothing was committed: the disk is full, or the file is locked or broken.
        """
        with _translated():
            failpoints.point("ledger.begin")
            with self._commits.part() as connection:
                tx = Tx(connection, self.clock(), self.quotas, self.verified_only, self._room)
                yield tx
                failpoints.point("ledger.commit")
        failpoints.point("ledger.committed")
        for listener in self.listeners:
            listener(tx)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Read in one transaction, of one moment; does not wait for writers.

        Raises:
            LedgerUnavailableError: The file cannot be read.
        """
        self._check_open()
        with _translated(), self._engine.connect() as connection:
            connection.begin()
            try:
                yield Tx(connection, self.clock(), self.quotas, self.verified_only)
            except (sa.exc.DBAPIError, sqlite3.Error):
                connection.invalidate()  # the next reader opens the file again
                raise

    def _connect_writer(self) -> Connection:
        self._check_open()
        return self._engine.connect().execution_options(**{_WRITES: True})

    def _check_open(self) -> None:
        """Keep a thread that outlives the service from opening the file again, which the next process owns by then."""
        if self._closed:
            raise LedgerUnavailableError("the ledger is closed")

    def close(self) -> None:
        """Close the file and give up its lock."""
        with self._commits.turn():
            self._closed = True
        self._engine.dispose()
        self._lock_file.close()


def open_ledger(path: Path, *, clock: Clock) -> Ledger:
    """Open the ledger, created or migrated where necessary, and own it until it is closed or the process ends.

    Raises:
        StartupRefusedError: Another process owns it, it is broken, of a newer version, or its folder cannot be written.
    """
    path = path.resolve()  # it is one file, and has one lock, by whatever name
    lock = _lock(path)
    try:
        files.check_links(path)
        _check_kind(path)
        files.secure_files(path)
        engine = _engine(path)
        with engine.connect() as connection:
            _check_whole(connection, path)
            bring_up(connection)
        return Ledger(engine, lock=lock, clock=clock)
    except NewerVersionError as err:
        raise _unlocked(
            lock, StartupRefusedError(f"{path}: {err}; start the version that wrote it, or a later one")
        ) from err
    except (sqlite3.Error, sa.exc.DBAPIError, LedgerUnavailableError) as err:
        raise _unlocked(
            lock, StartupRefusedError(f"{path}: the ledger cannot be opened: {_text_of(err)}{_remedy(err)}")
        ) from err
    except BaseException:
        lock.close()
        raise


def _unlocked(lock: IO[str], err: StartupRefusedError) -> StartupRefusedError:
    lock.close()
    return err


def _lock(path: Path) -> IO[str]:
    """Lock ``FILE.lock``; the kernel unlocks it when the process ends, however it does."""
    file = files.open_lock(path.with_name(path.name + ".lock"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        file.seek(0)
        owner = file.read(20).strip()
        file.close()
        raise StartupRefusedError(
            f"{path}: another access service (pid {owner or 'unknown'}) owns this ledger; only one may"
        ) from err
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _engine(path: Path) -> Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"check_same_thread": False, "timeout": _BUSY_MS / 1000},
        poolclass=sa.QueuePool,
        pool_use_lifo=True,  # the connection that was used last has the newest pages in its cache
        pool_size=_POOL_SIZE,
        max_overflow=_MAX_CONNECTIONS - _POOL_SIZE,
    )
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_MS}",
        f"cache_size=-{_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    driver.execute("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


def _check_kind(path: Path) -> None:
    """Refuse the database of another program, before anything is written to it."""
    if not path.exists() or not path.stat().st_size:
        return
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "alembic_version" not in tables:
        raise StartupRefusedError(f"{path} is an SQLite database, but no ledger of Leasegate; it is left as it is")


def _remedy(err: Exception) -> str:
    text = _text_of(err)
    if "malformed" in text or "not a database" in text:
        return "; it is corrupt: keep it, and restore a copy that `leasegate ledger check` finds whole"
    return "; make room on its disk" if "full" in text or "I/O" in text else ""


def _check_whole(connection: Connection, path: Path) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    connection.rollback()
    if found != "ok":
        raise StartupRefusedError(
            f"{path}: the ledger is corrupt ({bounded(str(found), 100)}): keep it, and restore a copy that is whole"
        )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError):
        raise  # a defect of the code
    except NotCommittedError as err:
        raise LedgerUnavailableError(f"the ledger cannot be used: {_text_of(err.__cause__ or err)}") from err
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error) as err:
        raise LedgerUnavailableError(f"the ledger cannot be used: {_text_of(err)}") from err


def _text_of(err: BaseException) -> str:
    return bounded(str(getattr(err, "orig", None) or err), 200)
