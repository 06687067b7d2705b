"""Keeps the ledger from growing for ever: what has been over for long enough is taken out, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

from services.access.ledger import pruning
from services.access.ledger.db.database import Ledger
from services.common.logs import logger

_LOG = logger(__name__)
BATCH = 200
"""Rows of one transaction: some milliseconds, for which every other writer waits."""

_KINDS = (pruning.old_answers, pruning.closed_attempts, pruning.deleted_requests, pruning.deleted_roles)


class LedgerPruner:
    """Takes out of a ledger what has been over for ``kept_s`` seconds."""

    def __init__(self, ledger: Ledger, *, kept_s: float) -> None:
        """Nothing is taken out yet.

        Args:
            ledger: The ledger.
            kept_s: How long closed attempts, requests that are gone, and answered calls are kept.
        """
        self._ledger, self._kept_s = ledger, kept_s

    def prune(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Take out all that is due; answers how many rows that were.

        Args:
            stopping: Asked between two batches whether to leave the rest to a later round.

        Raises:
            LedgerUnavailable: The ledger cannot be written.
        """
        before = self._ledger.clock() - self._kept_s
        total = sum(self._all_of(kind, before, stopping) for kind in _KINDS)
        if total:
            _LOG.info("what has been over for long was taken out of the ledger", rows=total)
        return total

    def _all_of(self, kind: Callable[..., int], before: float, stopping: Callable[[], bool]) -> int:
        total = 0
        while not stopping():
            with self._ledger.write() as tx:
                found = kind(tx, before=before, limit=BATCH)
            total += found
            if found < BATCH:
                break
        return total
