"""Looks up PostgreSQL's database users one by one on one connection, by index."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

_EVERY_S = 0.001
"""Asking costs client and server about 0.1 ms of processor time together, so that a wait takes 8 % of one core from
what it waits for.
"""


class DatabaseUsers:
    """Looks at ``pg_roles`` as the superuser."""

    def __init__(self, url: str) -> None:
        """Connect."""
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.prepare_threshold = 0

    def execute(self, sql: str) -> None:
        """Run statements."""
        self._connection.execute(sql.encode(), prepare=False)

    def wait_gone(self, user: str, *, timeout_s: float = 30) -> float:
        """Wait until a user is dropped; answers when that was seen.

        Raises:
            TimeoutError: It is still there.
        """
        end = time.perf_counter() + timeout_s
        while self._connection.execute("select 1 from pg_roles where rolname = %s", (user,)).fetchone():
            if time.perf_counter() > end:
                raise TimeoutError(f"a user was not dropped within {timeout_s:.0f} s")
            time.sleep(_EVERY_S)
        return time.perf_counter()

    def count(self, part: str) -> int:
        """How many users there are whose names contain ``part``."""
        row = self._connection.execute(
            "select count(*) from pg_roles where strpos(rolname, %s) > 0", (part,)
        ).fetchone()
        return int(row[0]) if row else 0

    def drop(self, names: Sequence[str]) -> None:
        """Drop roles of our own."""
        for name in names:
            self._connection.execute(f'DROP ROLE IF EXISTS "{name}"'.encode())

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
