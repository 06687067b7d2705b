"""What a process that starts has to do about what an earlier one has left, before it takes anything on."""

from __future__ import annotations

from services.access.ledger import attempts, requests
from services.access.ledger.db.database import Ledger
from services.common.logs import logger

_LOG = logger(__name__)


def recover(ledger: Ledger, *, max_access_s: float | None) -> None:
    """Have undone what readers of an earlier process may have left, as they are dead, and hold what it granted to the
    limit of this one.

    Args:
        ledger: The ledger.
        max_access_s: Longest access, counted from its first credential; None for no limit, which leaves earlier ends as
            they are.
    """
    with ledger.write() as tx:
        left = attempts.schedule_interrupted(tx)
        cut = 0 if max_access_s is None else requests.limit_access(tx, max_access_s)
    if left:
        _LOG.warning("reads of an earlier process are undone", count=left)
    if cut:
        _LOG.warning("access ends sooner than it was granted for, as it may not last so long any more", count=cut)
