"""What a life of the quick path is aimed at: the failpoint where it ends, and how its play leans towards it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.access.domain.failpoints import LEDGER_POINTS, POINTS

ALL_POINTS = (*POINTS, *LEDGER_POINTS)
ANY_LEAPS = (2.5, 2.5, 2.5, 70.0, 2400.0)
RECOVERY_LEAP_S = 2.5
RENEW_LEAP_S = 2400.0
"""Two thirds of the TTL of an hour: past the time of every renewal, and before the end."""
ROTATE_LEAP_S = 3500.0
"""Past the time at which a credential of at most an hour is replaced, and before its end."""


@dataclass(frozen=True, slots=True)
class Lean:
    """How a play leans.

    Attributes:
        roles: Roles that are asked for; empty for all.
        leaps: By how many seconds the clock leaps now and then; empty for the chance that there is none.
        first_leap_s: By how much it leaps before the life begins.
        doubtful: Whether reads of credentials end in doubt, and nothing else fails.
        peaceful: Whether nothing fails and nobody meddles.
        ending: How likely somebody ends a request when it is looked at.
        ends_claiming: How likely somebody ends a request that is being claimed for.
        changing: How likely a role is changed when a request is looked at.
    """

    roles: tuple[str, ...] = ()
    leaps: tuple[float, ...] = ANY_LEAPS
    first_leap_s: float = 0.0
    doubtful: bool = False
    peaceful: bool = False
    ending: float = 0.0
    ends_claiming: float = 0.04
    changing: float = 0.0


_LEANS = {
    "claim.refused": Lean(roles=("slow-role",), peaceful=True, ends_claiming=0.6),
    "claim.revoked": Lean(roles=("slow-role",), peaceful=True, ends_claiming=0.6),
    "revoke_token.": Lean(ending=0.3),
    "revoke.": Lean(ending=0.15),
    "recover.": Lean(leaps=(RECOVERY_LEAP_S,), doubtful=True),
    "renew.": Lean(leaps=(RENEW_LEAP_S,), first_leap_s=RENEW_LEAP_S, peaceful=True),
    "reassess.": Lean(changing=0.1),
    "rotate.": Lean(roles=("brief-role",), leaps=(ROTATE_LEAP_S,), first_leap_s=ROTATE_LEAP_S, peaceful=True),
}


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a life is to end.

    Attributes:
        point: The point.
        count: The how many-th pass of it.
        opening: Whether passes count from the opening of the ledger on, else from when the service is in use.
    """

    point: str
    count: int = 1
    opening: bool = False

    @property
    def lean(self) -> Lean:
        """How the play leans."""
        return next((lean for name, lean in _LEANS.items() if self.point.startswith(name)), Lean())


def aims(rng: random.Random, points: Sequence[str] = ALL_POINTS) -> Iterator[Aim]:
    """Aims without end: each point is aimed at as often as every other, in an order by chance."""
    while True:
        for point in rng.sample(points, len(points)):
            if point in LEDGER_POINTS:
                yield Aim(point, rng.randint(1, 24), opening=rng.random() < 0.25)
            else:
                yield Aim(point, rng.choice((1, 1, 1, 2)))
