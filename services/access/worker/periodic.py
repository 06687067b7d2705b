"""Does something from time to time: the finder's look, so that its figure tells of what nobody asked for, and the ledger's pruning."""

from __future__ import annotations

import threading
from collections.abc import Callable

from services.common.errors import LeasegateError
from services.common.logs import logger

_LOG = logger(__name__)
Stopping = Callable[[], bool]
"""Answers whether the process is about to end."""


class PeriodicTask:
    """One thread that does its work every ``every_s`` seconds until it is stopped."""

    def __init__(self, name: str, work: Callable[[Stopping], object], *, every_s: float) -> None:
        """Nothing is done before ``start``.

        Args:
            name: For the log.
            work: One round; it is given a function that says whether to come to an end.
            every_s: Pause between two rounds.
        """
        self._name, self._work, self._every_s = name, work, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first round is after one pause."""
        self._thread.start()

    def stop(self) -> None:
        """End, at most some seconds after what is under way."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._work(self._stop.is_set)
            except LeasegateError as err:
                _LOG.error("a round was not done", round=self._name, reason=err.reason)
            except Exception:  # a defect ends one round, not all that follow
                _LOG.exception("a round met a defect", round=self._name)
