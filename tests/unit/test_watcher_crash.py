"""The watcher's crash points: each is passed where it is named, and dies at the right time only."""

from __future__ import annotations

from pathlib import Path

import pytest

from watcher import crash


def test_it_dies_the_nth_time_at_that_point_alone() -> None:
    deaths: list[str] = []
    points = crash.CrashPoints("acknowledged", count=2, die=lambda: deaths.append("dead"))
    for name in ("secret.written", "acknowledged", "secret.written"):
        points.pass_by(name)
    assert deaths == []
    points.pass_by("acknowledged")
    assert deaths == ["dead"]


def test_an_unknown_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crash.VARIABLE, "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        crash.CrashPoints.from_environment()


def test_every_point_is_somewhere_in_the_watcher() -> None:
    code = "".join(path.read_text() for path in Path(crash.__file__).parent.glob("*.py") if path.name != "crash.py")
    assert all(f'crash.point("{name}")' in code for name in crash.POINTS)
