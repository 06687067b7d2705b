"""A PostgresRole that changes all the time changes its access requests once in a while (attack H5)."""

from __future__ import annotations

from typing import Any

from tests.clock import Clock
from watcher.reconcilers.change_pace import AT_ONCE, EACH_S, ChangePace


def a_role(generation: int, uid: str = "uid-1") -> dict[str, Any]:
    return {"metadata": {"uid": uid, "generation": generation}}


def test_h5_a_role_flapped_ten_times_a_second_changes_seldom() -> None:
    clock = Clock()
    pace, changes = ChangePace(clock, pause_s=5.0), 0
    for generation in range(600):
        if not pace.wait_s(a_role(generation)):
            pace.note_applied(a_role(generation))
            changes += 1
        clock.now += 0.1
    assert changes <= 60 / 5 + AT_ONCE


def test_h5_the_last_change_is_made_when_the_pause_is_over() -> None:
    clock = Clock()
    pace = ChangePace(clock, pause_s=5.0)
    for generation in range(AT_ONCE):
        assert pace.wait_s(a_role(generation)) == 0
        pace.note_applied(a_role(generation))
    wait_s = pace.wait_s(a_role(AT_ONCE))
    assert 0 < wait_s <= 5
    clock.now += wait_s
    assert pace.wait_s(a_role(AT_ONCE)) == 0


def test_h5_a_flapped_annotation_has_the_same_pace() -> None:
    clock = Clock()
    pace, changes = ChangePace(clock, pause_s=5.0), 0
    for number in range(600):
        role = a_role(1)
        role["metadata"]["annotations"] = {"leasegate.dev/allow-from": f"ns-{number}"}
        if not pace.wait_s(role):
            pace.note_applied(role)
            changes += 1
        clock.now += 0.1
    assert changes <= 60 / 5 + AT_ONCE


def test_h5_a_role_with_many_access_requests_changes_less_often() -> None:
    clock = Clock()
    pace = ChangePace(clock, pause_s=5.0)
    for generation in range(AT_ONCE):
        pace.note_applied(a_role(generation), concerned=1000)
    assert pace.wait_s(a_role(AT_ONCE)) > 1000 * EACH_S


def test_an_unchanged_role_and_another_one_wait_for_nothing() -> None:
    pace = ChangePace(Clock(), pause_s=5.0)
    for generation in range(20):
        pace.note_applied(a_role(generation))
    assert pace.wait_s(a_role(19)) == 0
    assert pace.wait_s(a_role(7, "uid-2")) == 0
