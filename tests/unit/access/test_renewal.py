"""The arithmetic of tokens, renewals, rotations and pauses."""

from __future__ import annotations

from collections import Counter

import pytest

from services.access.domain import durations, renewal
from services.access.domain.models import Approval, Origin
from services.access.domain.renewal import next_due_at, renewable, rotation_at, still_granted
from tests.unit.access.access_builders import a_request, a_role, an_attempt

OVERLAP_S = 300.0


@pytest.mark.parametrize(
    ("role", "left", "life"),
    [(86400.0, None, 86400.0), (86400.0, 600.0, 600.0), (None, 600.0, 600.0), (60.0, -5.0, 1.0)],
)
def test_a_credential_lives_as_long_as_both_allow(role: float | None, left: float | None, life: float) -> None:
    assert durations.wanted_life_s(role_max_s=role, access_left_s=left) == life


def test_without_any_limit_vault_decides() -> None:
    assert durations.wanted_life_s(role_max_s=None, access_left_s=None) == durations.LONGEST_TTL_S


@pytest.mark.parametrize(("life", "ttl"), [(60.0, 90.0), (3600.0, 3960.0), (86400.0, 87000.0)])
def test_a_token_outlives_its_credential_by_a_margin(life: float, ttl: float) -> None:
    assert durations.token_ttl_s(life) == ttl


def test_a_token_made_beforehand_serves_ten_minutes_and_no_shorter_life() -> None:
    assert durations.token_serves(made_at=0.0, ends_at=87000.0, life_s=86400.0, now=599.0)
    assert not durations.token_serves(made_at=0.0, ends_at=87000.0, life_s=86400.0, now=600.0)
    assert not durations.token_serves(made_at=0.0, ends_at=90.0, life_s=60.0, now=31.0)


def test_renewals_are_spread_over_a_tenth_of_the_ttl() -> None:
    times = [renewal.renew_at(an_attempt(number=number)) for number in range(2000)]
    assert all(1800 <= at < 2160 for at in times)
    per_slice = Counter(int((at - 1800) // 36) for at in times)
    assert max(per_slice.values()) <= 2 * len(times) / 10


def test_a_later_renewal_counts_from_the_last() -> None:
    assert 9000 + 1800 <= renewal.renew_at(an_attempt(renewed_at=9000.0)) < 9000 + 2160


def test_the_overlap_is_a_quarter_of_the_longest_life_at_most() -> None:
    assert renewal.fitting_overlap_s(300.0, max_ttl_s=86400.0) == 300.0
    assert renewal.fitting_overlap_s(300.0, max_ttl_s=600.0) == 150.0
    assert renewal.fitting_overlap_s(300.0, max_ttl_s=None) == 300.0


def test_a_rotation_begins_so_early_that_the_overlap_fits() -> None:
    asked = a_request()
    assert rotation_at(an_attempt(max_ends_at=86400.0), request=asked, overlap_s=OVERLAP_S) == 86400.0 - 300 - 60
    assert rotation_at(an_attempt(max_ends_at=None), request=asked, overlap_s=OVERLAP_S) is None
    assert rotation_at(an_attempt(renewable=False), request=asked, overlap_s=OVERLAP_S) == 3600.0 - 600


def test_a_life_that_vault_cuts_short_leaves_an_overlap_that_fits_into_it() -> None:
    """Else the time of the replacement would lie before the issue, and each credential would be replaced at once."""
    cut = an_attempt(ends_at=40.0, max_ends_at=40.0)
    assert rotation_at(cut, request=a_request(), overlap_s=OVERLAP_S) == 40.0 - 10 - 10


def test_what_outlives_the_access_is_not_replaced() -> None:
    limited = a_request(ends_at=600.0)
    assert rotation_at(an_attempt(max_ends_at=660.0), request=limited, overlap_s=OVERLAP_S) is None
    assert rotation_at(an_attempt(renewable=False, ends_at=660.0), request=limited, overlap_s=OVERLAP_S) is None
    assert rotation_at(an_attempt(max_ends_at=400.0), request=limited, overlap_s=OVERLAP_S) == 400.0 - 100 - 60


def test_what_is_looked_at_next() -> None:
    attempt = an_attempt(max_ends_at=86400.0)
    assert next_due_at(attempt, request=a_request(), overlap_s=OVERLAP_S) == renewal.renew_at(attempt)
    over_grpc = a_request(origin=Origin.GRPC)
    assert next_due_at(attempt, request=over_grpc, overlap_s=OVERLAP_S) == 3600.0  # its holder renews it, or it ends
    assert next_due_at(attempt, request=a_request(), overlap_s=OVERLAP_S, granted=False) == 3600.0
    last_time = an_attempt(ends_at=86400.0, max_ends_at=86400.0)
    assert not renewable(last_time)
    assert next_due_at(last_time, request=a_request(), overlap_s=OVERLAP_S) == 86040.0


def test_only_what_is_granted_now_is_kept_alive() -> None:
    assert still_granted(an_attempt(), request=a_request(), db_role=a_role())
    assert not still_granted(an_attempt(), request=a_request(approval=Approval.PENDING), db_role=a_role())
    assert not still_granted(an_attempt(grant="b" * 64), request=a_request(), db_role=a_role())
    assert not still_granted(an_attempt(), request=a_request(), db_role=a_role(deleted=True))
    assert not still_granted(an_attempt(), request=a_request(), db_role=None)


def test_pauses_grow_to_a_bound_and_are_jittered() -> None:
    longest = [durations.backoff_s(tries, spread=1.0) for tries in range(1, 40)]
    assert longest[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(longest) == 10.0
    assert durations.backoff_s(3, spread=0.0) == 1.0
