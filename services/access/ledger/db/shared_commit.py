"""Writers take turns, and writers that queue share one commit: the disk is asked to write once for all of them.

Each writer's part is a savepoint (https://www.sqlite.org/lang_savepoint.html): it sees what the parts before it wrote,
and a part that fails is undone alone. The writer behind whom nobody queues commits, so that a writer alone waits for
nobody. No writer goes on before the commit of its part is durable; where the commit fails, all of its parts fail.
docs/adr/0051-machinery-removed.md has the figures without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Connection

MOST_PARTS = 32
"""Parts of one commit, so that the first does not wait too long for the last."""


class NotCommittedError(Exception):
    """A commit that this part shared with others failed; the cause says why."""


class _Commit:
    """One transaction and its parts.

    Attributes:
        connection: The connection of the transaction.
        parts: How many parts were begun.
        error: Why nothing of it is committed; None as long as that is not known.
    """

    def __init__(self, connection: Connection) -> None:
        try:
            self._transaction = connection.begin()
        except BaseException:
            connection.close()
            raise
        self.connection, self._ended = connection, threading.Event()
        self._driver: Any = connection.connection.dbapi_connection
        self.parts = 0
        self.error: BaseException | None = None

    @contextmanager
    def part(self) -> Iterator[None]:
        """Write inside. What fails is undone alone."""
        self.parts += 1
        try:
            self._driver.execute("SAVEPOINT part")
            yield
            self._driver.execute("RELEASE part")
        except BaseException as err:
            self._undo_part(err)
            raise

    def _undo_part(self, err: BaseException) -> None:
        try:
            self._driver.execute("ROLLBACK TO part")
            self._driver.execute("RELEASE part")
        except Exception:  # after some errors, as of a full disk, SQLite has undone the whole transaction
            self.error = err

    def end(self) -> None:
        """Commit, or undo all parts if one of them could not be undone alone.

        Raises:
            sqlalchemy.exc.DBAPIError: The commit failed.
        """
        try:
            if self.error is None:
                self._transaction.commit()
        except BaseException as err:
            self.error = err
            raise
        finally:
            self._close()

    def _close(self) -> None:
        try:
            if self.error is not None:
                self.connection.invalidate()  # which undoes what is not committed
            self.connection.close()
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Wait until it has ended.

        Raises:
            NotCommittedError: Nothing of it is committed.
        """
        self._ended.wait()
        if self.error is not None:
            raise NotCommittedError from self.error


class SharedCommits:
    """The one writer of the ledger at a time. Safe for threads."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """Nothing is connected before the first part.

        Args:
            connect: Opens a connection whose transactions write.
        """
        self._connect = connect
        self._turn, self._counting = threading.Lock(), threading.Lock()
        self._queued = 0
        self._commit: _Commit | None = None

    @contextmanager
    def part(self) -> Iterator[Connection]:
        """Write inside; afterwards it is durable.

        Raises:
            NotCommittedError: A commit that was shared failed.
            sqlalchemy.exc.DBAPIError: This part's own commit failed.
        """
        self._take_turn()
        commit: _Commit | None = None
        try:
            commit = self._commit = self._commit or _Commit(self._connect())
            with commit.part():
                yield commit.connection
        finally:
            try:
                if commit is not None and (commit.error or not self._queued or commit.parts >= MOST_PARTS):
                    self._commit = None
                    commit.end()
            finally:
                self._turn.release()
        commit.wait()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep all writers out, between two commits."""
        self._take_turn()
        try:
            if (commit := self._commit) is not None:
                self._commit = None
                commit.end()
            yield
        finally:
            self._turn.release()

    def _take_turn(self) -> None:
        with self._counting:
            self._queued += 1
        self._turn.acquire()
        with self._counting:
            self._queued -= 1
