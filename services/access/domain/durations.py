"""How long things last, pure: a token, an overlap, the time of a renewal or a rotation, the pause after a failure. All in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from services.access.domain.models import Attempt

Jitter = Callable[[], float]
"""Answers a random number from 0 to 1."""

TOKEN_FRESH_S = 600.0
"""A token made while its request is pending serves that long (design, section 5)."""

LONGEST_TTL_S = 32 * 86400.0
"""Asked for where neither role nor request sets an end; Vault cuts it to its own maximum."""

_MOST_S = 10 * 365 * 86400.0
"""Vault reads no span of 300 years, which a request may ask for."""

_MARGIN_S = (30.0, 600.0)
_FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
"""Between two tries of what may go well at any moment, as when Vault or the database comes back."""
LONGEST_PAUSE_REFUSED_S = 120.0
"""Between two tries of what PostgreSQL keeps refusing, each of which leaves traces."""
LONGEST_PAUSE_UNURGENT_S = 300.0
"""Between two tries of what only saves time (a token made beforehand), or what is tried at once when it may go well
(with a new login).
"""


def wanted_life_s(*, role_max_s: float | None, access_left_s: float | None) -> float:
    """Longest life of a credential: the role's or what is left of the access, whichever is less."""
    limits = [limit for limit in (role_max_s, access_left_s) if limit is not None]
    return max(1.0, min(*limits, _MOST_S) if limits else LONGEST_TTL_S)


def token_ttl_s(life_s: float) -> float:
    """TTL of the token of a credential that is to live ``life_s``: a little longer, as a token made beforehand has aged
    when it is used.
    """
    least, most = _MARGIN_S
    return life_s + min(max(life_s / 10, least), most)


def token_serves(*, made_at: float, ends_at: float, life_s: float, now: float) -> bool:
    """Whether a token made beforehand outlives the credential that is to be made with it, or as nearly so as any that
    Vault makes.
    """
    cut = ends_at - made_at <= life_s  # more was asked for: Vault would cut another one as well
    return now - made_at < TOKEN_FRESH_S and (cut or ends_at >= now + life_s)


def overlap_s(configured_s: float, *, max_ttl_s: float | None) -> float:
    """How long an old credential lives on beside the new one: as configured, at most a quarter of its longest life."""
    return configured_s if max_ttl_s is None else min(configured_s, max_ttl_s / 4)


def renew_at(attempt: Attempt) -> float:
    """When to renew: between one half and three fifths of the TTL, spread by the attempt's id so that leases born
    together part.
    """
    since = attempt.renewed_at or attempt.issued_at or attempt.begun_at
    share = int.from_bytes(hashlib.sha256(f"{attempt.id} {since}".encode()).digest()[:4], "big") / 2**32
    return since + attempt.lease_ttl_s * (0.5 + 0.1 * share)


def rotate_at(attempt: Attempt, *, overlap: float) -> float | None:
    """When to begin the replacement of a credential whose longest life nears its end; None while that end is not known.

    The overlap comes off, and as much again at most a minute for making the new one.
    """
    if attempt.max_ends_at is None:
        return None
    return attempt.max_ends_at - overlap - min(overlap, 60.0)


def longest_renewal_pause_s(attempt: Attempt) -> float:
    """Between two tries of a renewal that Vault refuses, as for a role that is gone: each time a twentieth of the TTL
    at most.

    Else thousands of leases of one role would take the renew rate of all others; the database may come back meanwhile
    all the same.
    """
    return max(LONGEST_PAUSE_S, attempt.lease_ttl_s / 20)


def backoff_s(tries: int, *, spread: float, most_s: float = LONGEST_PAUSE_S) -> float:
    """The pause after the ``tries``-th failure in a row: doubled each time, jittered by ``spread`` (0 to 1) so that
    failures part.
    """
    return min(most_s, _FIRST_PAUSE_S * 2.0 ** min(max(tries - 1, 0), 10)) * (0.5 + 0.5 * spread)
