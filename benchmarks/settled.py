"""Waits until all that was begun is done, as ledger and watcher say, so that no measure guesses how long that takes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

from benchmarks.progress import say
from benchmarks.waiting import until
from dev.stack.stack import LocalStack
from services.access.domain.models import AttemptState

_WITHOUT_TOKEN = (AttemptState.PENDING,)
_DUE = (
    AttemptState.PENDING,
    AttemptState.ISSUING,
    AttemptState.ISSUED,
    AttemptState.REVOKING_TOKEN,
    AttemptState.REVOKING,
    AttemptState.RECOVERING,
)
_LOOKS = 3
_EVERY_S = 0.05
_PAGE_EVERY_S = 0.2
"""The watcher's metrics cost it a few milliseconds, which it needs for what is waited for."""
_TELL_EVERY_S = 15.0


class Settled:
    """Looks into the ledger's file, which other processes may read, and at the watcher's metrics."""

    def __init__(self, stack: LocalStack) -> None:
        """Nothing is read."""
        self._file: Path = stack.directory / "services" / "ledger.sqlite"
        self._page = f"http://{stack.metrics_addresses['watcher']}/metrics"

    def wait(self, *, timeout_s: float = 120) -> None:
        """Wait until ledger and work queues are empty for several looks, as a worker may still have a key."""
        looks, tell_at = 0, time.monotonic() + _TELL_EVERY_S

        def quiet() -> bool:
            nonlocal looks, tell_at
            due, queued = self.due(), self.queued()
            if time.monotonic() > tell_at:
                say(f"  still waiting for {due} attempts of access and {queued} keys of the watcher")
                tell_at = time.monotonic() + _TELL_EVERY_S
            looks = 0 if due or queued else looks + 1
            return looks >= _LOOKS

        until(quiet, timeout_s=timeout_s, what="everything that was begun", every_s=_PAGE_EVERY_S)

    def wait_prepared(self, *, timeout_s: float = 120) -> None:
        """Wait until the token of every request that was made is made."""
        until(
            lambda: not self._count_in(_WITHOUT_TOKEN),
            timeout_s=timeout_s,
            what="the tokens of requests",
            every_s=_EVERY_S,
        )

    def due(self) -> int:
        """Count the attempts that wait for a worker or are being issued or revoked; renewals do not count."""
        return self._count_in(_DUE)

    def renewed(self, *, since: float) -> int:
        """How many live leases were renewed after a time (seconds since 1970)."""
        return self._count("renewed_at > ?", since)

    def queued(self) -> int:
        """How many keys wait for a worker of the watcher."""
        with urlopen(self._page, timeout=5) as page:  # noqa: S310 - of the stack itself
            lines = page.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("workqueue_depth{"))

    def _count_in(self, states: Sequence[AttemptState]) -> int:
        return self._count(f"state in ({', '.join('?' * len(states))})", *states)

    def _count(self, where: str, *values: float | str) -> int:
        with closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as ledger:
            return int(ledger.execute(f"select count(*) from attempts where {where}", values).fetchone()[0])  # noqa: S608 - our own text
