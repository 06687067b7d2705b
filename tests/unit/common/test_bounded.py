"""Maps whose keys tenants choose (attack H5)."""

from __future__ import annotations

import threading

import pytest

from services.common.bounded import BoundedMap, KeyedLocks


def test_h5_a_map_keeps_the_newest_entries() -> None:
    found = BoundedMap[int, int](3)
    for number in range(10):
        found.setdefault(number, number)
    assert list(found) == [7, 8, 9]


def test_h5_a_lock_is_kept_while_somebody_holds_or_awaits_it() -> None:
    locks, entered = KeyedLocks[str](), threading.Event()
    order: list[str] = []

    def wait() -> None:
        entered.set()
        with locks.holding("a") as held:
            order.append(f"second {held}")

    waiting = threading.Thread(target=wait)
    with locks.holding("a") as held, locks.holding("b"):
        waiting.start()
        assert entered.wait(5)
        with locks.holding("a", timeout_s=0.01) as again:
            assert (held, again, len(locks)) == (True, False, 2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second True"]
    assert len(locks) == 0


def test_a_lock_is_free_after_a_failure() -> None:
    locks = KeyedLocks[str]()
    with pytest.raises(RuntimeError), locks.holding("a"):
        raise RuntimeError
    with locks.holding("a", timeout_s=0) as held:
        assert held
