"""Measures a deletion until the database user is dropped and the object is gone, in turns with raw revokes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle

from benchmarks.figures import Figures, Sizes, ms, p50, p99
from benchmarks.issue import approvals
from benchmarks.place import MEMBER, Place

_TURNS = 4
_PAUSES_S = tuple(0.02 * number for number in range(1, 14))
"""Pauses between two deletions, in turns: the token of a lease is revoked 250 ms after it, which would else always meet
the same moment of a later deletion."""


def deletions(place: Place, names: list[str]) -> tuple[list[float], list[float]]:
    """Delete requests one at a time; answers the seconds until each user was dropped and each object was gone."""
    dropped, gone, usernames = [], [], place.usernames()
    with place.space.requests_watched() as requests:
        for name, pause_s in zip(names, cycle(_PAUSES_S), strict=False):
            answered = place.space.delete(name)
            dropped.append(max(0.0, place.database_users.wait_gone(usernames[name]) - answered))
            requests.wait([name], timeout_s=30, gone=True)
            gone.append(max(0.0, requests.went[name] - answered))
            time.sleep(pause_s)
    return dropped, gone


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Delete to user dropped over raw revoke, and delete to object gone."""
    dropped, gone, raw = list[float](), list[float](), list[float]()
    for turn in range(_TURNS):
        raw += place.raw.end(place.raw.singles(MEMBER, sizes.single // _TURNS)[1])
        some_dropped, some_gone = deletions(place, approvals(place, f"end-{turn}", sizes.single // _TURNS)[1])
        dropped, gone = dropped + some_dropped, gone + some_gone
    yield {
        "delete_to_user_dropped_vs_raw_revoke_p50": p50(dropped) / p50(raw),
        "delete_to_object_gone_ms_p50": ms(p50(gone)),
        "delete_to_object_gone_ms_p99": ms(p99(gone)),
        "delete_to_user_dropped_ms_p50": ms(p50(dropped)),
        "delete_to_user_dropped_ms_p99": ms(p99(dropped)),
        "raw_revoke_ms_p50": ms(p50(raw)),
    }
