"""How long a credential and its token live, and the pause after a failure, pure. All spans are seconds."""

from __future__ import annotations

from collections.abc import Callable

Jitter = Callable[[], float]
"""Answers a random number from 0 to 1."""

TOKEN_FRESH_S = 600.0
"""A token that was made before the approval is used for so long."""

LONGEST_TTL_S = 32 * 86400.0
"""TTL that is requested where neither db_role nor access request sets an end; Vault cuts it to its own maximum."""

_MOST_S = 10 * 365 * 86400.0
"""Vault rejects a span of 300 years, which an access request may ask for."""

_MARGIN_S = (30.0, 600.0)
_FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
"""Between two tries of what may succeed at any moment, as when Vault or the database comes back."""
LONGEST_PAUSE_REFUSED_S = 120.0
"""Between two tries of what PostgreSQL refuses, each of which leaves traces in its log."""
LONGEST_PAUSE_UNURGENT_S = 300.0
"""Between two tries of what only saves time (preparing a token), or of what is retried at once when auth arrives."""


def wanted_life_s(*, role_max_s: float | None, access_left_s: float | None) -> float:
    """Longest life of a credential: the db_role's, or what is left of access if that is less."""
    limits = [limit for limit in (role_max_s, access_left_s) if limit is not None]
    return max(1.0, min(*limits, _MOST_S) if limits else LONGEST_TTL_S)


def token_ttl_s(life_s: float) -> float:
    """TTL of the token for a credential that lives ``life_s``: a little longer, as a prepared token ages before use."""
    least, most = _MARGIN_S
    return life_s + min(max(life_s / 10, least), most)


def token_serves(*, made_at: float, ends_at: float, life_s: float, now: float) -> bool:
    """Whether a prepared token outlives the credential that is read with it, or nearly so if Vault cuts such tokens."""
    cut = ends_at - made_at <= life_s  # more was requested, so Vault would cut another token as well
    return now - made_at < TOKEN_FRESH_S and (cut or ends_at >= now + life_s)


def backoff_s(tries: int, *, spread: float, most_s: float = LONGEST_PAUSE_S) -> float:
    """The pause after the ``tries``-th failure in a row: doubled each time, jittered by ``spread`` (0 to 1)."""
    return min(most_s, _FIRST_PAUSE_S * 2.0 ** min(max(tries - 1, 0), 10)) * (0.5 + 0.5 * spread)
