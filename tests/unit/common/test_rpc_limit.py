"""Places for calls and for those that only wait."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from services.common.errors import OverloadedError
from services.common.rpc.limit import LongPolls, Rank, Slots


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


def test_a_caller_has_its_share_and_the_watcher_and_revocation_a_reserve() -> None:
    slots = Slots(8)
    one = [slots.take_slot("one", rank=Rank.ORDINARY) for _ in range(4)]
    with pytest.raises(OverloadedError):
        slots.take_slot("one", rank=Rank.REVOKING)
    other = [slots.take_slot("other", rank=Rank.ORDINARY) for _ in range(2)]
    with pytest.raises(OverloadedError):
        slots.take_slot("other", rank=Rank.ORDINARY)
    slots.take_slot("other", rank=Rank.REVOKING)
    with pytest.raises(OverloadedError):
        slots.take_slot("other", rank=Rank.REVOKING)
    slots.take_slot("watcher")
    for slot in one + other:
        slot.release()
    for _ in range(5):
        slots.take_slot("watcher")
    with pytest.raises(OverloadedError):
        slots.take_slot("watcher")


def test_one_callers_long_polls_leave_room_for_others() -> None:
    slots, polls = Slots(8), LongPolls(4)
    with ExitStack() as stack:

        def poll(who: str, rank: Rank) -> bool:
            stack.enter_context(slots.taken_slot(who, rank=rank))
            return stack.enter_context(polls.waiting())

        assert [poll("one", Rank.ORDINARY) for _ in range(3)] == [True, True, False]
        assert poll("watcher", Rank.FIRST)
