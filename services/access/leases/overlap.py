"""A replaced credential lives on for the overlap, as whoever uses it has to find the new one first (design, section 5).

Its lease may end before the overlap does, so that it has to be prolonged once more; beyond the overlap it never is.
"""

from __future__ import annotations

from dataclasses import replace

from services.access.domain import durations
from services.access.domain.models import AccessRequest, Attempt, DbRole
from services.access.leases.renew import SHORTENED_S, kept, renews_itself
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger
from services.access.vault import leases
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import LeasegateError
from services.common.logs import logger

_LOG = logger(__name__)


class OverlapRenewal:
    """Looks at replaced attempts when something is due for them."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, *, jitter: durations.Jitter) -> None:
        self._ledger, self._vaults, self._jitter = ledger, vaults, jitter

    def over(self, attempt: Attempt) -> bool:
        """Whether it is to be ended now. Else its lease is prolonged if it ends before the overlap; for a worker."""
        with self._ledger.read() as tx:
            request, now = requests.find(tx, attempt.access_request_id), tx.now
            role = catalog.role_of(tx, request) if request else None
        if attempt.overlap_ends_at is None or now >= attempt.overlap_ends_at or attempt.expired(now) or request is None:
            return True
        if not _prolongs(attempt, request=request, role=role):
            self._keep(
                replace(attempt, due_at=min(attempt.overlap_ends_at, attempt.ends_at or attempt.overlap_ends_at))
            )
            return False
        try:
            self._keep(self._prolonged(attempt, over=attempt.overlap_ends_at))
        except LeasegateError as err:
            _LOG.warning(
                "a replaced lease was not prolonged",
                request=attempt.access_request_id,
                attempt=attempt.sequence,
                reason=err.reason,
            )
            if leases.is_gone(err):
                return True
            again = now + durations.backoff_s(attempt.renewal_failures + 1, spread=self._jitter())
            self._keep(
                replace(
                    attempt, renewal_failures=attempt.renewal_failures + 1, due_at=min(again, attempt.ends_at or again)
                )
            )
        return False

    def _prolonged(self, attempt: Attempt, *, over: float) -> Attempt:
        asked_at = self._ledger.clock()
        with self._ledger.read() as tx:
            target = catalog.target(tx, attempt.target)
        with self._vaults.at(target) as vault:
            increment_s = min(
                attempt.default_ttl_s or attempt.lease_ttl_s, over - asked_at + 1
            )  # Vault counts in whole seconds
            ttl_s = float(leases.renew(vault, attempt.lease_id, increment_s=increment_s).lease_duration_s)
        failpoints.point("renew.asked")
        ends_at = min(asked_at + ttl_s, attempt.token_ends_at or asked_at + ttl_s)
        renewed = replace(attempt, lease_ttl_s=ttl_s, ends_at=ends_at, renewed_at=asked_at, renewal_failures=0)
        if ttl_s < increment_s - SHORTENED_S:
            return replace(renewed, due_at=min(over, ends_at))
        return replace(renewed, due_at=next_at(renewed, over=over, now=asked_at))

    def _keep(self, attempt: Attempt) -> None:
        with self._ledger.write() as tx:
            attempts.keep_retiring(tx, attempt)
        failpoints.point("renew.committed")


def next_at(attempt: Attempt, *, over: float, now: float) -> float:
    """When to look at a replaced attempt, whose overlap ends at ``over``: then, or when its lease has to be prolonged
    until then.
    """
    if attempt.ends_at is None or attempt.ends_at >= over:
        return over
    return max(now, durations.renew_at(attempt)) if renews_itself(attempt) else attempt.ends_at


def _prolongs(attempt: Attempt, *, request: AccessRequest, role: DbRole | None) -> bool:
    if attempt.overlap_ends_at is None or attempt.ends_at is None or attempt.ends_at >= attempt.overlap_ends_at:
        return False
    return renews_itself(attempt) and kept(attempt, request=request, role=role)
