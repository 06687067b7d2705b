"""The work queue: each key once, in one hand at a time, later or after a growing pause where asked; nothing here waits."""

from __future__ import annotations

import threading

import pytest

from tests.clock import Clock
from tests.eventually import eventually
from watcher.kube.backoff import Backoff
from watcher.kube.workqueue import PUT_OFF_S, WorkQueue


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(Backoff(base_s=1.0, cap_s=8.0, random=lambda: 1.0), clock=clock)


def test_a_key_added_twice_is_worked_on_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert (queue.take_now(), queue.take_now()) == ("a", None)


def test_keys_come_in_their_order(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [queue.take_now() for _ in range(3)] == ["a", "b", "c"]


def test_a_key_in_hand_is_not_given_to_another(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.take_now() == "a"
    queue.add("a")
    assert queue.take_now() is None
    queue.done("a")
    assert queue.take_now() == "a"
    queue.done("a")
    assert queue.take_now() is None


def test_other_keys_go_on_beside_one_in_hand(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("b")
    assert {queue.take_now(), queue.take_now()} == {"a", "b"}


def test_what_somebody_waits_for_goes_before_what_is_merely_due(queue: WorkQueue[str]) -> None:
    queue.add("resync", low=True)
    queue.add("decision")
    assert [queue.take_now(), queue.take_now()] == ["decision", "resync"]


def test_a_key_in_the_low_lane_is_raised(queue: WorkQueue[str]) -> None:
    for key in "ab":
        queue.add(key, low=True)
    queue.add("b")
    queue.add("b", low=True)
    assert [queue.take_now() for _ in range(3)] == ["b", "a", None]


def crowded(queue: WorkQueue[str], *, turns: int) -> list[str | None]:
    """What is taken while there is always somebody who waits."""
    taken = []
    for number in range(turns):
        queue.add(f"wait-{number}")
        queue.add(f"wait-{number}-too")
        taken.append(key := queue.take_now())
        assert key
        queue.done(key)
    return taken


def test_no_lane_is_put_off_for_ever(queue: WorkQueue[str], clock: Clock) -> None:
    """However much somebody waits for: what has waited for long has its turns, what is to follow up sooner than what is
    merely due.
    """
    queue.add("resync", low=True)
    queue.follow_up("rest")
    assert not {"rest", "resync"} & set(crowded(queue, turns=200))
    clock.now += PUT_OFF_S
    taken = crowded(queue, turns=200)
    assert "rest" in taken[:32]
    assert "resync" in taken[:130]


def test_beside_what_somebody_waits_for_one_other_key_is_in_hand(queue: WorkQueue[str]) -> None:
    queue.add("decision")
    queue.follow_up("rest")
    queue.add("resync", low=True)
    queue.follow_up("more")
    assert [queue.take_now() for _ in range(3)] == ["decision", "rest", None]
    queue.done("rest")
    assert [queue.take_now() for _ in range(2)] == ["more", None]
    queue.done("decision")
    assert queue.take_now() == "resync"


def test_what_was_held_back_goes_on_when_what_it_waited_for_is_done(queue: WorkQueue[str]) -> None:
    """A worker that found nothing free is woken by the one that makes it free."""
    queue.add("decision")
    assert queue.take_now() == "decision"
    queue.follow_up("rest")
    assert queue.take_now() == "rest"
    queue.follow_up("more")
    taken: list[str | None] = []
    worker = threading.Thread(target=lambda: taken.append(queue.take()))
    worker.start()
    eventually(lambda: bool(queue._ready._waiters), timeout_s=30)  # type: ignore[attr-defined]
    assert not taken
    queue.done("decision")
    worker.join(timeout=30)
    assert taken == ["more"]


def test_a_delayed_key_comes_at_its_time(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    clock.now = 4.9
    assert queue.take_now() is None
    clock.now = 5.0
    assert queue.take_now() == "a"


def test_the_soonest_of_two_delays_counts(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    queue.add_after("a", 2.0)
    queue.add_after("a", 9.0)
    clock.now = 2.0
    assert queue.take_now() == "a"
    queue.done("a")
    clock.now = 20.0
    assert queue.take_now() is None


def test_an_event_makes_a_delay_pointless(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    queue.add("a")
    assert queue.take_now() == "a"
    queue.done("a")
    clock.now = 6.0
    assert queue.take_now() is None


def test_pauses_grow_with_each_failure_up_to_a_cap(queue: WorkQueue[str], clock: Clock) -> None:
    pauses = []
    for _ in range(6):
        began = clock.now
        queue.retry("a")
        while queue.take_now() is None:
            clock.now += 0.5
        queue.done("a")
        pauses.append(clock.now - began)
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_a_success_begins_anew_with_the_pauses(queue: WorkQueue[str], clock: Clock) -> None:
    queue.retry("a")
    queue.retry("a")
    queue.forget("a")
    clock.now = 100.0
    assert queue.take_now() == "a"
    queue.done("a")
    queue.retry("a")
    clock.now = 101.0
    assert queue.take_now() == "a"


def test_pauses_are_spread() -> None:
    spread = {Backoff(base_s=1.0, cap_s=8.0, random=lambda part=part: part / 10).pause_s(1) for part in range(11)}  # type: ignore[misc]
    assert min(spread) == 0.5
    assert max(spread) == 1.0
    assert len(spread) == 11


def test_the_length_is_what_waits(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("b", low=True)
    queue.add_after("c", 1.0)
    assert (len(queue), queue.delayed) == (2, 1)


def test_a_waiting_worker_is_woken_by_a_key_and_by_the_end(queue: WorkQueue[str]) -> None:
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.extend([queue.take(), queue.take()]))
    thread.start()
    queue.add("a")
    queue.close()
    thread.join(5)
    assert seen in (["a", None], [None, None])
    assert not thread.is_alive()


def test_no_key_is_lost_or_in_two_hands_among_many_workers() -> None:
    queue: WorkQueue[int] = WorkQueue(Backoff(base_s=0.001, cap_s=0.001, random=lambda: 1.0))
    hands, most, counted, lock = dict.fromkeys(range(20), 0), [0], dict.fromkeys(range(20), 0), threading.Lock()

    def work() -> None:
        while (key := queue.take()) is not None:
            with lock:
                hands[key] += 1
                most[0] = max(most[0], hands[key])
                counted[key] += 1
            with lock:
                hands[key] -= 1
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for round_ in range(200):
        queue.add(round_ % 20)
    while len(queue):
        threading.Event().wait(0.001)
    queue.close()
    for worker in workers:
        worker.join(5)
    assert most == [1]
    assert all(counted.values())
