"""The command ``python -m benchmarks.profile``: where each millisecond from a decision to its Secret goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from benchmarks import timeline
from benchmarks.burst import burst
from benchmarks.figures import ms
from benchmarks.issue import Times, approvals
from benchmarks.place import Place, place, restart
from benchmarks.timeline import Span
from dev.stack.processes import Command
from dev.stack.stack import LocalStack

_TRACED = ("access", "watcher")
_LEAST_MS = 0.05


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--count", default=60, show_default=True, help="Credentials taken one at a time.")
@click.option(
    "--at-once", default=200, show_default=True, help="Requests approved at once, for each process' processor time."
)
def main(count: int, at_once: int) -> None:
    """Approve requests one at a time with access and watcher traced, then many at once untraced."""
    with place(ttl_s=1200) as where:
        click.echo("\n".join(_single(where, count)))
        click.echo("\n".join(_at_once(where, at_once)))


def _single(where: Place, count: int) -> Iterator[str]:
    with traced(where.stack, *_TRACED):
        approvals(where, "warm", 10)
        offset = time.time() - time.perf_counter()
        times, _ = approvals(where, "traced", count)
    spans = [span for name in _TRACED for span in read(where.stack, name)]
    shares = [timeline.attribute(spans, *window) for window in _middle(times, offset)]
    total = sum(timeline.mean(shares).values())
    yield f"One at a time: the middle half of {count} approvals, decision sent to Secret seen: {ms(total):.1f} ms"
    yield from (
        f"  {ms(s):7.2f} ms {100 * s / total:5.1f} %  {name}"
        for name, s in timeline.mean(shares).items()
        if ms(s) >= _LEAST_MS
    )
    yield "After the Secret (beside one another; nobody waits for the Secret here):"
    after = [_durations(spans, seen=window[1], until=window[1] + 0.2) for window in _middle(times, offset)]
    yield from (f"  {ms(s):7.2f} ms          {name}" for name, s in timeline.mean(after).items() if ms(s) >= _LEAST_MS)


def _at_once(where: Place, count: int) -> Iterator[str]:
    took, cpu = burst(where, "burst", count)
    yield f"{count} at once: {took:.1f} s to the last Secret; processor time per credential until then:"
    yield from (
        f"  {ms(s) / count:7.2f} ms          {name}" for name, s in sorted(cpu.items(), key=lambda item: -item[1])
    )


def _middle(times: Times, offset: float) -> list[tuple[float, float]]:
    """The middle half by length, as times of the clock: from the sending of the decision to the Secret."""
    windows = sorted(
        ((sent + offset, seen + offset) for sent, seen in times.windows), key=lambda window: window[1] - window[0]
    )
    return windows[len(windows) // 4 : max(len(windows) * 3 // 4, 1)]


def _durations(spans: Sequence[Span], *, seen: float, until: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for span in spans:
        if seen < span.ended < until and span.name != "event":
            found[str(span)] = found.get(str(span), 0.0) + span.ended - max(span.began, seen)
    return found


@contextmanager
def traced(stack: LocalStack, *names: str) -> Iterator[None]:
    """Restart processes with their calls noted, and as they were afterwards."""
    plain = {name: stack.process(name)._command for name in names}
    try:
        for name, command in plain.items():
            stack.process(name)._command = partial(_with_notes, command, _file(stack, name))
            restart(stack, name)
        yield
    finally:
        for name, command in plain.items():
            stack.process(name)._command = command
            restart(stack, name)


def _with_notes(command: Callable[[], Command], file: Path) -> Command:
    plain = command()
    python, _, module = plain.arguments
    return Command([python, "-m", "benchmarks.traced", module, str(file)], env=plain.env, cwd=plain.cwd)


def read(stack: LocalStack, name: str) -> list[Span]:
    """What was noted of a process."""
    lines = _file(stack, name).read_text().splitlines()
    return [Span(name, call, began, ended) for call, began, ended in map(json.loads, lines)]


def _file(stack: LocalStack, name: str) -> Path:
    return stack.directory / f"{name}.spans"


if __name__ == "__main__":
    main()
