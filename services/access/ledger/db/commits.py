"""Writers of the ledger take turns, and those who queue share one commit: the disk is asked to write once for all of them.

Each of them is a part of its own: it sees what those before it wrote, and if it fails it alone is undone. Who finds nobody waiting
commits, so that a writer alone waits for nobody. Nobody goes on before the commit of his part is durable; where it fails, all of its
parts fail. For ``services.access.ledger.db.database`` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection, RootTransaction

MOST = 32
"""Parts of one commit, lest the first waits too long for the last."""

_PART = "part"


class NotCommittedError(Exception):
    """A commit that a part shared with others failed; the cause says why."""


class _Shared:
    """One transaction and its parts.

    Attributes:
        transaction: It.
        parts: How many were begun.
        over: Whether it was committed or undone.
        error: Why it was undone; None if it was not.
    """

    __slots__ = ("error", "over", "parts", "transaction")

    def __init__(self, transaction: RootTransaction) -> None:
        self.transaction, self.parts = transaction, 0
        self.over = threading.Event()
        self.error: BaseException | None = None


class Commits:
    """The one connection that writes. Safe for threads."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Nothing is connected before the first part.

        Args:
            connect: Makes the connection.
        """
        self._connect = connect
        self._connection: Connection | None = None
        self._turn, self._count = threading.Lock(), threading.Lock()
        self._waiting = 0
        self._shared: _Shared | None = None

    @contextmanager
    def part(self) -> Iterator[Connection]:
        """Write inside; afterwards all of it is durable.

        Raises:
            NotCommittedError: A commit that was shared failed.
            sqlalchemy.exc.DBAPIError: This part's own commit failed.
        """
        self._wait_for_turn()
        shared: _Shared | None = None
        try:
            connection = self._open()
            shared = self._shared = self._shared or _Shared(connection.begin())
            with self._undone_alone(connection, shared):
                yield connection
        finally:
            try:
                if shared is not None and shared is self._shared and (not self._waiting or shared.parts >= MOST):
                    self._commit(shared)
            finally:
                self._turn.release()
        shared.over.wait()
        if shared.error is not None:
            raise NotCommittedError from shared.error

    def close(self) -> None:
        """Close the connection."""
        with self._turn:
            if self._connection:
                self._connection.close()
                self._connection = None

    def _wait_for_turn(self) -> None:
        with self._count:
            self._waiting += 1
        try:
            self._turn.acquire()
        finally:
            with self._count:
                self._waiting -= 1

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @contextmanager
    def _undone_alone(self, connection: Connection, shared: _Shared) -> Iterator[None]:
        """A savepoint; the first part needs none, as it can be undone with the whole."""
        driver, first = _driver(connection), not shared.parts
        shared.parts += 1
        if not first:
            driver.execute(f"SAVEPOINT {_PART}")
        try:
            yield
            if not first:
                driver.execute(f"RELEASE {_PART}")
        except BaseException as err:
            if first or not driver.in_transaction:  # some errors make SQLite undo all of it
                self._undo(shared, err)
            else:
                self._undo_part(driver, shared)
            raise

    def _undo_part(self, driver: Any, shared: _Shared) -> None:
        try:
            driver.execute(f"ROLLBACK TO {_PART}")
            driver.execute(f"RELEASE {_PART}")
        except BaseException as err:
            self._undo(shared, err)
            raise

    def _commit(self, shared: _Shared) -> None:
        try:
            shared.transaction.commit()
        except BaseException as err:
            self._undo(shared, err)
            raise
        self._shared = None
        shared.over.set()

    def _undo(self, shared: _Shared, err: BaseException) -> None:
        """Undo all parts; a connection on which not even that can be done is given up, which undoes them as well."""
        connection, self._shared, shared.error = self._connection, None, err
        try:
            if connection:
                shared.transaction.rollback()
                if _driver(connection).in_transaction:
                    _driver(connection).rollback()
        except BaseException:
            self._connection = None
            if connection:
                connection.invalidate()
            raise
        finally:
            shared.over.set()


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection
