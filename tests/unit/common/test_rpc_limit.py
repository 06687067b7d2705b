"""Places for calls and for those that only wait."""

from __future__ import annotations

import pytest

from services.common.errors import OverloadedError
from services.common.rpc.limit import LongPolls, Slots


def test_a_place_is_free_again_after_its_call_however_that_ended() -> None:
    slots = Slots(1)

    def fail() -> None:
        with slots.one():
            with pytest.raises(OverloadedError):
                slots.take()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    slots.take()


def test_a_place_is_given_back_once() -> None:
    slots = Slots(1)
    slot = slots.take()
    slot.give_back()
    slot.give_back()
    with slots.one(), pytest.raises(OverloadedError):
        slots.take()


def test_a_long_poll_leaves_its_place_to_others() -> None:
    slots, polls = Slots(1), LongPolls(1)
    with slots.one(), polls.wait() as may:
        assert may
        with slots.one(), pytest.raises(OverloadedError):
            slots.take()
        slots.take().give_back()
    with slots.one(), pytest.raises(OverloadedError):
        slots.take()


def test_beyond_the_budget_a_long_poll_is_answered_at_once() -> None:
    slots, polls = Slots(1), LongPolls(1)
    with polls.wait(), slots.one(), polls.wait() as may:
        assert not may
        with pytest.raises(OverloadedError):
            slots.take()
    with polls.wait() as may:
        assert may


def test_nobody_waits_while_draining() -> None:
    polls = LongPolls(1)
    before = polls.draining
    polls.drain()
    assert (before, polls.draining) == (False, True)
    with polls.wait() as may:
        assert not may


def test_a_budget_of_none_lets_nobody_wait() -> None:
    with LongPolls(0).wait() as may:
        assert not may
