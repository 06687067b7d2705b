"""What a starting process does about what an earlier one left, before it accepts calls."""

from __future__ import annotations

from services.access.ledger import attempts, requests
from services.access.ledger.db.database import Ledger
from services.access.requests import reassess
from services.common.logs import logger

_LOG = logger(__name__)


def recover(ledger: Ledger, *, max_access_s: float | None) -> None:
    """Schedule recovery of issuances that the previous process left in flight, and limit access that it granted.

    Where the option ``--require-verified-requester`` was changed, what it is about is reassessed.

    Args:
        ledger: The ledger.
        max_access_s: Longest access, counted from its first credential; None for no limit, which leaves earlier ends as
            they are.
    """
    with ledger.write() as tx:
        interrupted = attempts.schedule_interrupted(tx)
        shortened = 0 if max_access_s is None else requests.limit_access(tx, max_access_s)
        unverified = reassess.requester_rule_changed(tx)
    if interrupted:
        _LOG.warning("recovering issuances interrupted by restart", count=interrupted)
    if shortened:
        _LOG.warning("access shortened to --max-access-duration", count=shortened)
    if unverified:
        _LOG.warning("access requests reassessed, as --require-verified-requester was changed", count=unverified)
