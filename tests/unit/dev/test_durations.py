"""How long each folder took."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.__main__ import ALL, FAST, FOLDERS
from tests.durations import FolderDurations


def report(nodeid: str, when: str, duration: float) -> Any:
    return SimpleNamespace(nodeid=nodeid, when=when, duration=duration)


def test_the_time_of_fixtures_counts_for_the_folder() -> None:
    durations = FolderDurations()
    for when, seconds in (("setup", 2.0), ("call", 1.0), ("teardown", 0.5)):
        durations.pytest_runtest_logreport(report("tests/unit/cli/test_a.py::test_b[1/2]", when, seconds))
    durations.pytest_runtest_logreport(report("tests/e2e/test_c.py::test_d", "setup", 9.0))
    assert durations.lines() == ["     9.0 s  tests/e2e (1 tests)", "     3.5 s  tests/unit/cli (1 tests)"]


def test_all_parts_together_are_all_folders() -> None:
    assert sorted(folder for part in ALL for folder in part) == FOLDERS


def test_the_fast_parts_start_no_kubernetes() -> None:
    assert [folder for part in FAST for folder in part] == ["tests/contract", "tests/unit"]
