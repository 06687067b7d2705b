"""Deletes from the ledger what ended longer ago than --retention, a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable

from services.access.ledger import pruning
from services.access.ledger.db.database import Ledger
from services.common.logs import logger

_LOG = logger(__name__)
BATCH = 200
"""Rows of one transaction: some milliseconds that every other writer waits."""

_KINDS = (
    pruning.old_answers,
    pruning.closed_attempts,
    pruning.deleted_requests,
    pruning.deleted_roles,
    pruning.unused_targets,
)


class LedgerPruner:
    """Prunes a ledger."""

    def __init__(self, ledger: Ledger, *, kept_s: float) -> None:
        """Nothing is deleted yet.

        Args:
            ledger: The ledger.
            kept_s: How long closed attempts, deleted access requests and answered calls are kept.
        """
        self._ledger, self._kept_s = ledger, kept_s

    def prune(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Delete all that is due.

        Args:
            stopping: Asked between two batches whether to leave the rest to a later round.

        Returns:
            How many rows were deleted.

        Raises:
            LedgerUnavailableError: The ledger cannot be written.
        """
        before = self._ledger.clock() - self._kept_s
        total = sum(self._all_of(kind, before, stopping) for kind in _KINDS)
        if total:
            _LOG.info("ledger pruned", rows=total)
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
