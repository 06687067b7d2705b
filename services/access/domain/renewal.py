"""Renewal and rotation, pure: when a lease is renewed, for how long, and when its credential is replaced.

Everything that renews uses it: workers for active and for retiring attempts, a gRPC holder's heartbeat, and operators.
Times are seconds since 1970, spans are seconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from services.access.domain import durations
from services.access.domain.models import AccessRequest, Attempt, DbRole, Origin

_SHORTENED_S = 2.0
"""Vault answers whole seconds; a grant shorter than requested by more than this was cut at the longest life."""


def fitting_overlap_s(configured_s: float, *, max_ttl_s: float | None) -> float:
    """How long a replaced credential is kept: as configured, at most a quarter of its longest life."""
    return configured_s if max_ttl_s is None else min(configured_s, max_ttl_s / 4)


def still_granted(attempt: Attempt, *, request: AccessRequest, db_role: DbRole | None) -> bool:
    """Whether a credential in use is what would be granted now; else it expires without being renewed or replaced."""
    return request.approved and db_role is not None and not db_role.deleted and attempt.grant == request.digest


def renewable(attempt: Attempt) -> bool:
    """Whether a renewal can extend the lease: Vault allows it, and it does not last to its longest life already."""
    return attempt.renewable and (
        attempt.max_ends_at is None or attempt.ends_at is None or attempt.ends_at < attempt.max_ends_at - 1
    )


def renew_at(attempt: Attempt) -> float:
    """When to renew: between one half and three fifths of the TTL.

    The attempt's id decides where between, so that leases that were issued together are renewed apart.
    """
    since = attempt.renewed_at or attempt.issued_at or attempt.begun_at
    share = int.from_bytes(hashlib.sha256(f"{attempt.id} {since}".encode()).digest()[:4], "big") / 2**32
    return since + attempt.lease_ttl_s * (0.5 + 0.1 * share)


def renewal_due(attempt: Attempt, *, request: AccessRequest, db_role: DbRole | None, now: float) -> bool:
    """Whether a worker has to renew the lease of an active attempt now; a gRPC holder renews its own."""
    return (
        request.origin is Origin.KUBERNETES
        and renewable(attempt)
        and still_granted(attempt, request=request, db_role=db_role)
        and renew_at(attempt) <= now
    )


def overlap_renewal_due(attempt: Attempt, *, request: AccessRequest, db_role: DbRole | None) -> bool:
    """Whether the lease of a retiring attempt has to be renewed, as it would end before the overlap does."""
    return (
        attempt.overlap_ends_at is not None
        and attempt.ends_at is not None
        and attempt.ends_at < attempt.overlap_ends_at
        and renewable(attempt)
        and still_granted(attempt, request=request, db_role=db_role)
    )


def increment_s(attempt: Attempt, *, request: AccessRequest, now: float) -> float:
    """How long a renewal asks for: the default TTL, never past the end of access or of the overlap."""
    limits = [request.ends_at] if request.ends_at is not None else []
    if attempt.overlap_ends_at is not None:
        limits.append(attempt.overlap_ends_at + 1)  # Vault counts whole seconds, rounded down
    return min([attempt.default_ttl_s or attempt.lease_ttl_s, *(max(1.0, limit - now) for limit in limits)])


def renewed(attempt: Attempt, *, ttl_s: float, increment_s: float, asked_at: float, now: float) -> Attempt:
    """The attempt after Vault granted ``ttl_s`` to a renewal that was sent at ``asked_at``.

    A grant that is shorter than requested was cut at the longest life, so that no later renewal extends the lease.
    """
    ends_at = min(asked_at + ttl_s, attempt.token_ends_at or asked_at + ttl_s)
    shortened = ttl_s < increment_s - _SHORTENED_S
    return replace(
        attempt,
        lease_ttl_s=ttl_s,
        renewed_at=now,
        ends_at=ends_at,
        max_ends_at=ends_at if shortened else attempt.max_ends_at,
        renewal_failures=0,
    )


def rotation_at(attempt: Attempt, *, request: AccessRequest, overlap_s: float) -> float | None:
    """When the replacement of an active attempt begins: before its longest life ends, early enough for the overlap.

    None while that end is not known, or if the credential outlives access. A lease that is not renewable ends with its
    TTL.

    Args:
        attempt: The active attempt.
        request: Its access request.
        overlap_s: The configured overlap.
    """
    longest_at = attempt.max_ends_at if attempt.renewable else attempt.ends_at
    if longest_at is None or (request.ends_at is not None and request.ends_at <= longest_at):
        return None
    overlap = fitting_overlap_s(overlap_s, max_ttl_s=attempt.longest_s)
    if not attempt.renewable:
        return longest_at - min(2 * overlap, attempt.lease_ttl_s / 4)
    return longest_at - overlap - min(overlap, 60.0)  # as much again, at most a minute, to make the new one


def rotation_due(attempt: Attempt, *, request: AccessRequest, overlap_s: float, now: float) -> bool:
    """Whether the replacement of an active attempt is due and not noted yet."""
    at = rotation_at(attempt, request=request, overlap_s=overlap_s)
    return not request.rotation_due and at is not None and now >= at


def next_due_at(attempt: Attempt, *, request: AccessRequest, overlap_s: float, granted: bool = True) -> float:
    """When a worker has to look at an active attempt next: for its renewal, its replacement or its end.

    Args:
        attempt: The active attempt.
        request: Its access request.
        overlap_s: The configured overlap.
        granted: Whether it is ``still_granted``.
    """
    times = [attempt.ends_at]
    if granted and request.origin is Origin.KUBERNETES and renewable(attempt):
        times.append(renew_at(attempt))
    if granted and not request.rotation_due:
        times.append(rotation_at(attempt, request=request, overlap_s=overlap_s))
    return min((at for at in times if at is not None), default=attempt.begun_at + durations.LONGEST_TTL_S)


def next_retiring_at(attempt: Attempt, *, overlap_ends_at: float, now: float) -> float:
    """When a worker has to look at a retiring attempt next: at the end of the overlap, or for its renewal before."""
    if attempt.ends_at is None or attempt.ends_at >= overlap_ends_at:
        return overlap_ends_at
    return max(now, renew_at(attempt)) if renewable(attempt) else attempt.ends_at


def retry_at(attempt: Attempt, *, refused: bool, spread: float, now: float) -> float:
    """When a failed renewal is tried again; not after the lease has ended.

    A renewal that Vault refuses, as for a db_role that is deleted there, is retried a twentieth of the TTL later at
    most: thousands of such leases would use up the renewal rate of all others, but the database may come back all the
    same.

    Args:
        attempt: The attempt, with the failures before this one.
        refused: Whether Vault refused; else it failed or did not answer.
        spread: Jitter, 0 to 1.
        now: The time.
    """
    most_s = max(durations.LONGEST_PAUSE_S, attempt.lease_ttl_s / 20) if refused else durations.LONGEST_PAUSE_S
    again = now + durations.backoff_s(attempt.renewal_failures + 1, spread=spread, most_s=most_s)
    return min(again, attempt.ends_at or again)


def expiry_reason(attempt: Attempt, *, request: AccessRequest, db_role: DbRole | None) -> str:
    """Why the lease of an active attempt ended, for people."""
    if not still_granted(attempt, request=request, db_role=db_role):
        return "it was not renewed, as it was not what is granted any more"
    if not renewable(attempt):
        return "it reached its longest life"
    return "its holder did not renew it" if request.origin is Origin.GRPC else "it could not be renewed in time"
