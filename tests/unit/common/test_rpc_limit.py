"""Places for calls and for those that only wait."""

from __future__ import annotations

import pytest

from services.common.errors import OverloadedError
from services.common.rpc.limit import LongPolls, Slots


def test_a_place_is_free_again_after_its_call_however_that_ended() -> None:
    slots = Slots(1)

    def fail() -> None:
        with slots.taken_slot():
            with pytest.raises(OverloadedError):
                slots.take_slot()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    slots.take_slot()


def test_a_place_is_given_back_once() -> None:
    slots = Slots(1)
    slot = slots.take_slot()
    slot.release()
    slot.release()
    with slots.taken_slot(), pytest.raises(OverloadedError):
        slots.take_slot()


def test_a_long_poll_leaves_its_place_to_others() -> None:
    slots, polls = Slots(1), LongPolls(1)
    with slots.taken_slot(), polls.waiting() as may:
        assert may
        with slots.taken_slot(), pytest.raises(OverloadedError):
            slots.take_slot()
        slots.take_slot().release()
    with slots.taken_slot(), pytest.raises(OverloadedError):
        slots.take_slot()


def test_beyond_the_budget_a_long_poll_is_answered_at_once() -> None:
    slots, polls = Slots(1), LongPolls(1)
    with polls.waiting(), slots.taken_slot(), polls.waiting() as may:
        assert not may
        with pytest.raises(OverloadedError):
            slots.take_slot()
    with polls.waiting() as may:
        assert may


def test_nobody_waits_while_draining() -> None:
    polls = LongPolls(1)
    before = polls.draining
    polls.drain()
    assert (before, polls.draining) == (False, True)
    with polls.waiting() as may:
        assert not may


def test_a_budget_of_none_lets_nobody_wait() -> None:
    with LongPolls(0).waiting() as may:
        assert not may
