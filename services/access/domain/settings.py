"""What an operator may set of the access service, parsed by ``__main__``."""

from __future__ import annotations

from dataclasses import dataclass

from services.common.vault.service_auth import DEFAULT_MAX_REQUEST_DURATION_S


@dataclass(frozen=True, slots=True)
class Settings:
    """Spans in seconds.

    Attributes:
        overlap_s: How long a replaced credential lives on; a quarter of the role's longest life if that is less.
        max_access_s: Longest access of any request, counted from its first credential; None for no limit.
        max_request_duration_s: ``default_max_request_duration`` of Vaults for which there is no own login that says it.
        workers: Threads that revoke, renew and prepare; a quarter of them never renews.
        max_renewals_per_second: Most renewals that the workers begin in a second; 0 for no limit. One that would soon be too late
            does not wait for it.
        orphan_scan_interval_s: Pause between two comparisons of the ledger with Vault's leases.
        retention_s: How long the ledger keeps attempts that are closed, requests that are gone, and which calls were
            answered.
        prune_every_s: Pause between two rounds that take out what is older.
        claim_backoff_s: Longest pause that a request makes after claims that failed.
    """

    overlap_s: float = 300.0
    max_access_s: float | None = None
    max_request_duration_s: float = DEFAULT_MAX_REQUEST_DURATION_S
    workers: int = 8
    max_renewals_per_second: float = 200.0
    orphan_scan_interval_s: float = 900.0
    retention_s: float = 30 * 86400.0
    prune_every_s: float = 600.0
    claim_backoff_s: float = 30.0
