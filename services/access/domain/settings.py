"""The options of the access service, parsed by ``__main__``."""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.quotas import Quotas

DEFAULT_QUOTAS = Quotas(
    open_requests=10_000, database_users=10_000, prepared_tokens=1000, targets=50, issues_per_minute=20
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Options; spans are seconds.

    Attributes:
        overlap_s: How long a replaced credential is kept; at most a quarter of its longest life.
        max_access_s: Longest access of any access request, counted from its first credential; None for no limit.
        max_request_duration_s: ``default_max_request_duration`` of Vaults with ``--allow-any-vault``.
        workers: Worker threads; a quarter of them never renews, and one tenant has at most three quarters.
        max_renewals_per_second: Most renewals that workers begin in a second; 0 for no limit. A renewal that would soon
            be too late is not throttled.
        orphan_scan_interval_s: Pause between two orphan scans.
        retention_s: How long the ledger keeps closed attempts, deleted access requests and answered calls.
        prune_every_s: Pause between two rounds of pruning.
        claim_backoff_s: Longest pause of an access request after failed claims.
        quotas: What one tenant may have.
        verified_only: Whether an access request gets nothing while it is not known who is behind it.
    """

    overlap_s: float = 300.0
    max_access_s: float | None = None
    max_request_duration_s: float = 90.0
    workers: int = 10
    max_renewals_per_second: float = 200.0
    orphan_scan_interval_s: float = 900.0
    retention_s: float = 30 * 86400.0
    prune_every_s: float = 600.0
    claim_backoff_s: float = 30.0
    quotas: Quotas = DEFAULT_QUOTAS
    verified_only: bool = False
