"""Tasks that run at intervals: the orphan scan and the pruning of the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.common.errors import LeasegateError
from services.common.logs import logger

_LOG = logger(__name__)
Stopping = Callable[[], bool]
"""Answers whether the process is stopping."""


class PeriodicTask:
    """One thread that runs a task every ``every_s`` seconds until it is stopped."""

    def __init__(self, name: str, work: Callable[[Stopping], object], *, every_s: float) -> None:
        """Nothing runs before ``start``.

        Args:
            name: For the log.
            work: One run; its argument answers whether to stop early.
            every_s: Pause between two runs.
        """
        self._name, self._work, self._every_s = name, work, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start; the first run is after one pause."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, waiting at most five seconds for the run under way."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._work(self._stop.is_set)
            except LeasegateError as err:
                _LOG.error("periodic task failed", task=self._name, reason=err.reason)
            except Exception:  # a defect ends one run, not all later ones
                _LOG.exception("unhandled exception in periodic task", task=self._name)
