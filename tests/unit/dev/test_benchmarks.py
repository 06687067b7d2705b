"""The benchmarks without their servers: percentiles, the table with its bars, and what is kept of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks import __main__ as command
from benchmarks.bars import BARS, table
from benchmarks.figures import Figures, p50, p99, percentile
from benchmarks.timeline import Span, attribute, mean


def test_a_percentile_is_one_of_the_values_by_the_nearest_rank() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (p50(values), p99(values), percentile(values, 0.0)) == (3.0, 5.0, 1.0)
    assert p99([float(number) for number in range(1, 201)]) == 198.0


def test_of_nothing_there_is_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        p50([])


def test_the_innermost_call_has_the_moment_and_the_shares_add_up() -> None:
    spans = [
        Span("watcher", "call Claim", 1.0, 9.0),
        Span("access", "Claim", 2.0, 8.0),
        Span("access", "Vault", 3.0, 7.0),
    ]
    shares = attribute(spans, 0.0, 10.0)
    assert shares == {
        "on the way at the beginning": 1.0,
        "watcher: call Claim": 2.0,
        "access: Claim": 2.0,
        "access: Vault": 4.0,
        "on the way after watcher: call Claim": 1.0,
    }
    assert sum(shares.values()) == 10.0


def test_what_lies_outside_the_span_of_time_has_no_share() -> None:
    assert attribute([Span("a", "before", 0.0, 1.0), Span("a", "over the edge", 1.5, 4.0)], 2.0, 3.0) == {
        "a: over the edge": 1.0
    }


def test_a_mean_counts_what_is_absent_as_nothing() -> None:
    assert list(mean([{"a": 1.0, "b": 4.0}, {"a": 1.0}]).items()) == [("b", 2.0), ("a", 1.0)]


@pytest.mark.parametrize(("figure", "missed"), [(1.7, False), (1.71, True)])
def test_a_bar_that_is_not_met_is_marked(figure: float, missed: bool) -> None:
    line = next(
        line
        for line in table({"approve_to_secret_vs_raw_creds_p50": figure}, quick=False)
        if line.startswith("approve")
    )
    assert ("miss" in line) is missed


def test_for_rates_more_is_better() -> None:
    lines = list(table({"renew_vs_raw_rate": 0.9, "unbarred": 1.0}, quick=False))
    assert not any("miss " in line for line in lines if line.startswith("renew"))
    assert any(line.startswith("unbarred") for line in lines)


def test_quick_says_that_it_stands_for_nothing() -> None:
    assert any("--quick" in line for line in table({}, quick=True))
    assert BARS["restart_reissues"].bar == 0


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command with two groups that measure nothing real, the second of which fails in its midst."""

    def first(*_: object) -> Iterator[Figures]:
        yield {"a": 1.0}

    def second(*_: object) -> Iterator[Figures]:
        yield {"b": 2.0}
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "place", lambda **_: nullcontext())
    monkeypatch.setattr(command, "_MEASURES", {"first": (first, ()), "second": (second, ())})
    (tmp_path / "latest.json").write_text('{"a": 0.5, "b": 0.5, "c": 0.5}')
    return lambda *arguments: CliRunner().invoke(command.main, arguments)


def test_what_was_measured_before_a_run_broke_off_is_written_and_shown(run: Run, tmp_path: Path) -> None:
    result = run()
    assert result.exit_code == 1
    assert json.loads((tmp_path / "latest.json").read_text()) == {"a": 1.0, "b": 2.0, "c": 0.5}
    assert {line.split()[0] for line in result.output.splitlines() if line.endswith(".00")} == {"a", "b"}


def test_of_some_groups_only_their_keys_are_replaced(run: Run, tmp_path: Path) -> None:
    assert run("--only", "first").exit_code == 0
    assert json.loads((tmp_path / "latest.json").read_text()) == {"a": 1.0, "b": 0.5, "c": 0.5}


def test_a_whole_run_leaves_no_key_that_is_measured_no_longer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(command._MEASURES, "second")
    assert run().exit_code == 0
    assert json.loads((tmp_path / "latest.json").read_text()) == {"a": 1.0}
