"""The guide's SQL against group membership, raw, at 1, 4 and 10 writers: what the SQL alone costs, without a bar."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.clients import together
from benchmarks.figures import Figures, Sizes
from benchmarks.http import RequestRefusedError
from benchmarks.place import GUIDE, MEMBER, Place


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Credentials a second and the share of writes that PostgreSQL refused, by SQL and number of writers."""
    for writers in (1, 4, 10):
        for role in (GUIDE, MEMBER):
            seconds, leases = together(writers, partial(_tried, place), [role] * sizes.single)
            made = [lease for lease in leases if lease]
            yield {
                f"sql_{role}_per_s_{writers}_writers": len(made) / seconds,
                f"sql_{role}_refused_share_{writers}_writers": 1 - len(made) / len(leases),
            }
            place.raw.clear(made)


def _tried(place: Place, role: str) -> str:
    """A lease; empty where PostgreSQL refused, as two GRANTs on one table at once do ("tuple concurrently updated")."""
    try:
        return place.raw.creds(role)
    except RequestRefusedError as err:
        if err.status != 500:
            raise
        return ""
