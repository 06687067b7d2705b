"""``python -m tests.chaos``: all of it, with its counts and the seed of any failure. The last line is the result."""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from dev.stack.stack import LocalStack
from tests.chaos import spots
from tests.chaos.agreement import lost
from tests.chaos.aims import ALL_POINTS
from tests.chaos.kills import Kills, Real
from tests.chaos.quick import Sum, all_runs

FULL_POINTS, FULL_KILLS = 1000, 200
"""From so many deaths on, every point has to be met."""
_SHOWN = 20
_COLUMNS = 4


@click.command(help="Kill the access service and the watcher at every named point, and see whether a lease is lost.")
@click.option("--seed", type=int, default=None, help="First seed; by chance without it.")
@click.option(
    "--points", type=click.IntRange(0), default=10_000, help="How often the service dies at a point in the quick path."
)
@click.option("--kills", type=click.IntRange(0), default=200, help="How many processes of the local stack are killed.")
@click.option("--lives", type=click.IntRange(1), default=125, help="Deaths of one seed.")
@click.option(
    "--jobs", type=click.IntRange(1, 16), default=2, help="Processes of the quick path, each with servers of its own."
)
@click.option("--minutes", type=click.FloatRange(1), default=120.0, help="Longest time of each of the two parts.")
def main(*, seed: int | None, points: int, kills: int, lives: int, jobs: int, minutes: float) -> None:
    """Run both parts and exit with 1 if anything is broken or too little was met."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    first = secrets.randbelow(1 << 30) if seed is None else seed
    click.echo(f"chaos: seed {first}")
    quick, real, within_s = Sum(), Kills(), 60 * minutes
    try:
        if points:
            try:
                all_runs(
                    quick, first, points=points, lives=lives, jobs=jobs, until=time.monotonic() + within_s, say=_say
                )
            finally:
                _tell_quick(quick, lives)
        if kills and not quick.broken:
            try:
                _run_real(real, first, kills=kills, within_s=within_s)
            finally:
                _tell_real(real, first, kills)
    except KeyboardInterrupt:
        click.echo("chaos: interrupted; everything that was started has been stopped")
        click.echo(_last_line(quick, real))
        sys.exit(130)
    never = _never(quick, real, points=points, kills=kills)
    if never:
        click.echo(f"chaos: FAILED, as a run of this size has to meet every point: {', '.join(never)}")
    if broken := _broken(quick, real):
        click.echo(f"chaos: FAILED, {len(broken)} things went wrong, see above")
    enough = quick.crashes >= points and real.total >= kills
    if not enough:
        click.echo("chaos: FAILED, fewer died than was asked for")
    click.echo(_last_line(quick, real))
    sys.exit(0 if enough and not never and not broken else 1)


def _broken(quick: Sum, real: Kills) -> Sequence[str]:
    return [*(each for broken in quick.broken.values() for each in broken), *real.broken]


def _last_line(quick: Sum, real: Kills) -> str:
    return f"chaos: {quick.crashes} crash points, {real.total} process kills, {lost(_broken(quick, real))} leases lost"


def _never(quick: Sum, real: Kills, *, points: int, kills: int) -> Sequence[str]:
    """The points that were never met in a part of full size."""
    missed = [name for name in ALL_POINTS if name not in quick.points] if points >= FULL_POINTS else []
    return [*missed, *(spots.never(real.met) if kills >= FULL_KILLS else ())]


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    click.echo(f"  {text}")


def _run_real(counts: Kills, seed: int, *, kills: int, within_s: float) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="leasegate-chaos-") as folder,
        LocalStack.start(Path(folder) / "stack", say=_say) as stack,
    ):
        Real(stack, seed=seed, kills=kills, within_s=within_s, say=_say, counts=counts).go()


def _tell_quick(counts: Sum, lives: int) -> None:
    click.echo(f"quick path: {counts.crashes} deaths of access at failpoints, {counts.runs} runs on real servers")
    click.echo(f"  besides, {counts.moments} deaths at any other moment")
    _table("died at", {name: counts.points[name] for name in ALL_POINTS})
    _table("faults", counts.faults)
    _tell_husks(counts.husks)
    for seed, broken in counts.broken.items():
        _tell_broken(broken, f"--seed {seed} --lives {lives} --points 1 --jobs 1 --kills 0")


def _tell_real(counts: Kills, seed: int, kills: int) -> None:
    click.echo(
        f"real processes: {counts.total} kills; {counts.made} requests of Kubernetes, {counts.holders} over gRPC"
    )
    everywhere = [
        f"{process} {name}" for process, names in spots.POINTS.items() for name in (*names, spots.AT_ANY_MOMENT)
    ]
    _table("killed", {name: counts.met[name] for name in everywhere})
    _table("faults", counts.faults)
    _tell_husks(counts.husks)
    if counts.broken:
        _tell_broken(counts.broken, f"--seed {seed} --points 0 --kills {kills}")


def _tell_broken(broken: Sequence[str], options: str) -> None:
    click.echo(f"  FAILED; the same again with {options}")
    for each in broken[:_SHOWN]:
        click.echo(f"    {each}")


def _tell_husks(husks: int) -> None:
    click.echo(
        f"  leases without a user, each explained by a recovery, whose end changed nothing in PostgreSQL: {husks}"
    )


def _table(what: str, counted: Counter[str] | dict[str, int]) -> None:
    click.echo(f"  {what}:")
    cells = [f"{name} {number or 'NEVER'}" for name, number in sorted(counted.items())]
    width = max(map(len, cells), default=0) + 2
    for row in range(0, len(cells), _COLUMNS):
        click.echo("    " + "".join(cell.ljust(width) for cell in cells[row : row + _COLUMNS]).rstrip())


if __name__ == "__main__":
    main()
