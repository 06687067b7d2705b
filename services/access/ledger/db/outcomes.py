"""What a transaction did to leases, for the metrics: a listener counts it once it is committed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OutcomeKind(StrEnum):
    """What is counted."""

    ISSUED = "issued"
    RENEWED = "renewed"
    RENEWAL_FAILED = "renewal_failed"
    REVOKED = "revoked"
    """Its database user is dropped, by lease id or by a recovery."""


@dataclass(frozen=True, slots=True)
class LeaseOutcome:
    """One thing that happened to one lease.

    Attributes:
        kind: What.
        seconds: Of a revocation, from when it was due to when the database user was dropped.
    """

    kind: OutcomeKind
    seconds: float = 0.0
