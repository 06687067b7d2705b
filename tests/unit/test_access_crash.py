"""Crash points: each named one can be died at, and none costs anything otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.access import crash


def test_it_dies_the_time_it_is_told_to() -> None:
    died: list[str] = []
    points = crash.CrashPoints("claim.read", count=2, die=lambda: died.append("dead"))
    for _ in range(4):
        points.pass_by("claim.read")
        points.pass_by("claim.lease")
    assert died == ["dead"]


def test_the_variable_is_read_and_refused_if_it_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crash.VARIABLE, "undo.read:2")
    crash.CrashPoints.from_environment()
    monkeypatch.setenv(crash.VARIABLE, "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        crash.CrashPoints.from_environment()


def test_the_list_is_of_the_points_in_the_code() -> None:
    code = "".join(path.read_text() for path in Path(crash.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"""crash\.point\("([a-z.]+)"\)""", code)) == {*crash.POINTS, *crash.LEDGER_POINTS}
