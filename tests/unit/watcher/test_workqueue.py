"""The work queue: each key once, with one worker at a time, at once, later, or after a growing pause."""

from __future__ import annotations

import threading

import pytest

from tests.clock import Clock
from watcher.kube.backoff import Backoff
from watcher.kube.resources import Key
from watcher.kube.workqueue import Priority, WorkQueue


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def queue(clock: Clock) -> WorkQueue[str]:
    return WorkQueue(Backoff(base_s=1.0, cap_s=8.0, random=lambda: 1.0), clock=clock)


def test_a_key_added_twice_is_queued_once(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert (queue.next_key(block=False), queue.next_key(block=False)) == ("a", None)


def test_keys_come_in_their_order(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [queue.next_key(block=False) for _ in range(3)] == ["a", "b", "c"]


def test_a_key_that_a_worker_has_is_not_given_to_another(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.next_key(block=False) == "a"
    queue.add("a")
    assert queue.next_key(block=False) is None
    queue.mark_done("a")
    assert queue.next_key(block=False) == "a"
    queue.mark_done("a")
    assert queue.next_key(block=False) is None


def test_different_keys_are_worked_on_in_parallel(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("b")
    assert {queue.next_key(block=False), queue.next_key(block=False)} == {"a", "b"}


def test_low_priority_keys_go_after_all_others(queue: WorkQueue[str]) -> None:
    queue.add("resync", Priority.RESYNC)
    queue.add("decision")
    assert [queue.next_key(block=False), queue.next_key(block=False)] == ["decision", "resync"]


def test_a_second_add_raises_the_priority_of_a_key(queue: WorkQueue[str]) -> None:
    for key in "ab":
        queue.add(key, Priority.RESYNC)
    queue.add("b")
    queue.add("b", Priority.RESYNC)
    assert [queue.next_key(block=False) for _ in range(3)] == ["b", "a", None]


def test_a_key_added_again_keeps_its_priority_while_a_worker_has_it(queue: WorkQueue[str]) -> None:
    queue.add("a")
    assert queue.next_key(block=False) == "a"
    queue.add("a", Priority.RESYNC)
    queue.add("b")
    queue.mark_done("a")
    assert [queue.next_key(block=False) for _ in range(2)] == ["b", "a"]
    for key in "ab":
        queue.mark_done(key)
    queue.add("c")
    assert queue.next_key(block=False) == "c"
    queue.add("c", Priority.RESYNC)
    queue.add("c")
    queue.add("d")
    queue.mark_done("c")
    assert [queue.next_key(block=False) for _ in range(2)] == ["d", "c"]


def test_a_delay_of_zero_puts_a_key_behind_those_that_wait(queue: WorkQueue[str]) -> None:
    """A reconcile that returns requeue_after_s=0 lets the other keys go first."""
    queue.add("a")
    assert queue.next_key(block=False) == "a"
    queue.add("b")
    queue.add("resync", Priority.RESYNC)
    queue.add_after("a", 0)
    queue.mark_done("a")
    assert [queue.next_key(block=False) for _ in range(3)] == ["b", "a", "resync"]


def test_a_delayed_key_comes_at_its_time(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    clock.now = 4.9
    assert queue.next_key(block=False) is None
    clock.now = 5.0
    assert queue.next_key(block=False) == "a"


def test_the_soonest_of_two_delays_counts(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    queue.add_after("a", 2.0)
    queue.add_after("a", 9.0)
    clock.now = 2.0
    assert queue.next_key(block=False) == "a"
    queue.mark_done("a")
    clock.now = 20.0
    assert queue.next_key(block=False) is None


def test_an_add_replaces_a_delay(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_after("a", 5.0)
    queue.add("a")
    assert queue.next_key(block=False) == "a"
    queue.mark_done("a")
    clock.now = 6.0
    assert queue.next_key(block=False) is None


def test_pauses_grow_with_each_failure_up_to_a_cap(queue: WorkQueue[str], clock: Clock) -> None:
    pauses = []
    for _ in range(6):
        began = clock.now
        queue.add_rate_limited("a")
        while queue.next_key(block=False) is None:
            clock.now += 0.5
        queue.mark_done("a")
        pauses.append(clock.now - began)
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_a_success_resets_the_pause(queue: WorkQueue[str], clock: Clock) -> None:
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    queue.forget_failures("a")
    clock.now = 100.0
    assert queue.next_key(block=False) == "a"
    queue.mark_done("a")
    queue.add_rate_limited("a")
    clock.now = 101.0
    assert queue.next_key(block=False) == "a"


def test_pauses_are_spread() -> None:
    spread = {Backoff(base_s=1.0, cap_s=8.0, random=lambda part=part: part / 10).pause_s(1) for part in range(11)}  # type: ignore[misc]
    assert min(spread) == 0.5
    assert max(spread) == 1.0
    assert len(spread) == 11


def test_the_length_counts_keys_that_are_ready(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.add("b", Priority.RESYNC)
    queue.add_after("c", 1.0)
    assert (len(queue), queue.delayed) == (2, 1)


def test_a_waiting_worker_is_woken_by_a_key_and_by_close(queue: WorkQueue[str]) -> None:
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.extend([queue.next_key(), queue.next_key()]))
    thread.start()
    queue.add("a")
    queue.close()
    thread.join(5)
    assert seen in (["a", None], [None, None])
    assert not thread.is_alive()


def test_many_workers_lose_no_key_and_never_share_one() -> None:
    queue: WorkQueue[int] = WorkQueue(Backoff(base_s=0.001, cap_s=0.001, random=lambda: 1.0))
    hands, most, counted, lock = dict.fromkeys(range(20), 0), [0], dict.fromkeys(range(20), 0), threading.Lock()

    def work() -> None:
        while (key := queue.next_key()) is not None:
            with lock:
                hands[key] += 1
                most[0] = max(most[0], hands[key])
                counted[key] += 1
            with lock:
                hands[key] -= 1
            queue.mark_done(key)

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


# Fairness between namespaces (attack M3).


def fair(clock: Clock, most: int | None = None) -> WorkQueue[Key]:
    return WorkQueue(Backoff(base_s=1.0, cap_s=8.0, random=lambda: 1.0), clock=clock, most_of_namespace=most)


def test_m3_a_thousand_keys_of_one_namespace_delay_no_other(clock: Clock) -> None:
    queue = fair(clock)
    for number in range(1000):
        queue.add(Key("greedy", str(number)))
    queue.add(Key("demo", "one"))
    queue.add(Key("demo", "two"))
    taken = [queue.next_key(block=False) for _ in range(4)]
    assert taken == [Key("greedy", "0"), Key("demo", "one"), Key("greedy", "1"), Key("demo", "two")]
    assert len(queue) == 998


def test_m3_a_namespace_that_comes_back_waits_for_its_turn(clock: Clock) -> None:
    queue = fair(clock)
    for name in ("a", "b"):
        queue.add(Key("greedy", name))
    assert queue.next_key(block=False) == Key("greedy", "a")
    queue.add(Key("demo", "a"))
    queue.mark_done(Key("greedy", "a"))
    queue.add(Key("greedy", "c"))
    assert [queue.next_key(block=False) for _ in range(3)] == [Key("greedy", "b"), Key("demo", "a"), Key("greedy", "c")]


def test_m3_events_of_one_namespace_do_not_precede_what_another_has_begun(clock: Clock) -> None:
    queue = fair(clock)
    queue.add(Key("demo", "low"), Priority.RESYNC)
    queue.add(Key("demo", "begun"), Priority.FOLLOW_UP)
    queue.add(Key("demo", "new"))
    for number in range(100):
        queue.add(Key("greedy", str(number)))
    taken = [queue.next_key(block=False) for _ in range(4)]
    assert taken == [Key("demo", "new"), Key("greedy", "0"), Key("demo", "begun"), Key("greedy", "1")]


def test_m3_one_namespace_never_has_all_workers(clock: Clock) -> None:
    queue = fair(clock, most=3)
    for number in range(20):
        queue.add(Key("greedy", str(number)))
    assert [queue.next_key(block=False) for _ in range(4)] == [*(Key("greedy", str(n)) for n in range(3)), None]
    queue.add(Key("demo", "low"), Priority.RESYNC)
    assert queue.next_key(block=False) == Key("demo", "low")  # although keys of a higher priority wait
    queue.mark_done(Key("greedy", "1"))
    assert [queue.next_key(block=False) for _ in range(2)] == [Key("greedy", "3"), None]


def test_m3_what_nobody_waits_for_has_a_few_workers(clock: Clock) -> None:
    queue = WorkQueue[Key](Backoff(base_s=1.0, cap_s=8.0, random=lambda: 1.0), clock=clock, most_resyncs=2)
    for number in range(10):
        queue.add(Key("greedy", str(number)), Priority.RESYNC)
    assert [queue.next_key(block=False) for _ in range(3)] == [Key("greedy", "0"), Key("greedy", "1"), None]
    queue.add(Key("demo", "now"))
    assert queue.next_key(block=False) == Key("demo", "now")
    queue.mark_done(Key("demo", "now"))
    assert queue.next_key(block=False) is None
    queue.mark_done(Key("greedy", "1"))
    assert [queue.next_key(block=False) for _ in range(2)] == [Key("greedy", "2"), None]


def test_m3_a_worker_is_woken_when_its_namespace_may_go_on(clock: Clock) -> None:
    queue, got = fair(clock, most=1), list[Key | None]()
    for name in "ab":
        queue.add(Key("greedy", name))
    queue.next_key()
    waiting = threading.Thread(target=lambda: got.append(queue.next_key()))
    waiting.start()
    queue.mark_done(Key("greedy", "a"))
    waiting.join(10)
    assert got == [Key("greedy", "b")]
