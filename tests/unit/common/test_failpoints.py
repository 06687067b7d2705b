"""Failpoints: each named one is in the code, ends the process at the right time only, and an unknown one is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import services.access
import watcher
from services.access.domain import failpoints as access_points
from services.common.failpoints import Failpoints
from watcher.reconcilers import failpoints as watcher_points

PROCESSES = {
    "access": (Path(services.access.__file__).parent, access_points.VARIABLE, access_points.ALL_POINTS),
    "watcher": (Path(watcher.__file__).parent, watcher_points.VARIABLE, watcher_points.POINTS),
}


def test_it_dies_the_nth_time_at_that_point_alone() -> None:
    deaths: list[str] = []
    points = Failpoints("acknowledged", count=2, die=lambda: deaths.append("dead"))
    for name in ("secret.written", "acknowledged", "secret.written"):
        points.pass_by(name)
    assert deaths == []
    for _ in range(3):
        points.pass_by("acknowledged")
    assert deaths == ["dead"]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_variable_names_a_point_or_is_refused(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, variable, points = PROCESSES[process]
    monkeypatch.setenv(variable, f"{points[0]}:2")
    Failpoints.from_environment(variable, points=points)
    monkeypatch.setenv(variable, "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        Failpoints.from_environment(variable, points=points)


@pytest.mark.parametrize("process", PROCESSES)
def test_the_list_is_of_the_points_in_the_code(process: str) -> None:
    house, _, points = PROCESSES[process]
    code = "".join(path.read_text() for path in house.rglob("*.py"))
    assert set(re.findall(r"""failpoints\.point\("([a-z._]+)"\)""", code)) == set(points)
