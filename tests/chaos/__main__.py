"""``python -m tests.chaos``: the whole of it, with its counts, and the seed of any failure. The last line says it all."""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from deploy.local.stack import LocalStack
from services.access import crash
from tests.chaos.kills import Kills, Real
from tests.chaos.quick import Sum, all_runs

_SHOWN = 20


@click.command(help="Kill the access service and the watcher at every named point, and see whether a lease is lost.")
@click.option("--seed", type=int, default=None, help="First seed; by chance without it.")
@click.option("--points", type=click.IntRange(0), default=10_000, help="How often the service dies in the quick path, on real servers.")
@click.option("--kills", type=click.IntRange(0), default=200, help="How many processes of the local stack are killed.")
@click.option("--lives", type=click.IntRange(1), default=250, help="Deaths of one seed.")
@click.option("--jobs", type=click.IntRange(1, 16), default=2, help="Processes of the quick path, each with servers of its own.")
@click.option("--minutes", type=click.FloatRange(1), default=120.0, help="Longest time of each of the two parts.")
def main(*, seed: int | None, points: int, kills: int, lives: int, jobs: int, minutes: float) -> None:
    """Run both parts and exit with 1 if anything is broken or too little was met."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    first = secrets.randbelow(1 << 30) if seed is None else seed
    click.echo(f"chaos: seed {first}")
    quick, real = Sum(), Kills()
    try:
        if points:
            until = time.monotonic() + 60 * minutes
            try:
                all_runs(quick, first, points=points, lives=lives, jobs=jobs, until=until, say=_say)
            finally:
                _tell_quick(quick)
        if kills and not quick.broken:
            real = _real(first, kills=kills, within_s=60 * minutes)
            _tell_real(real, first)
    except KeyboardInterrupt:
        click.echo("chaos: interrupted, everything that was started has been stopped")
        sys.exit(130)
    lost = sum(map(len, quick.broken.values())) + len(real.broken)
    click.echo(f"chaos: {quick.crashes} crash points, {real.total} process kills, {lost} leases lost")
    sys.exit(1 if lost or quick.crashes < points or real.total < kills else 0)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    click.echo(f"  {text}")


def _real(seed: int, *, kills: int, within_s: float) -> Kills:
    with tempfile.TemporaryDirectory(prefix="leasegate-chaos-") as folder, LocalStack.start(Path(folder) / "stack", say=_say) as stack:
        return Real(stack, seed=seed, kills=kills, within_s=within_s, say=_say).go()


def _tell_quick(told: Sum) -> None:
    click.echo(f"quick path: {told.crashes} deaths of the access service in {told.runs} runs on a real Vault and PostgreSQL")
    _table("died at", told.points)
    _table("faults", told.faults)
    missed = [name for name in crash.POINTS if name not in told.points]
    click.echo(f"  points not met: {', '.join(missed) or 'none'}")
    _tell_husks(told.husks)
    for seed, broken in told.broken.items():
        click.echo(f"  FAILED with --seed {seed} --points 1 --jobs 1 --kills 0:")
        for each in broken[:_SHOWN]:
            click.echo(f"    {each}")


def _tell_real(told: Kills, seed: int) -> None:
    click.echo(f"real processes: {told.total} kills, {told.made} requests made")
    _table("killed", told.points)
    _tell_husks(told.husks)
    if told.broken:
        click.echo(f"  FAILED with --seed {seed} --points 0:")
    for each in told.broken[:_SHOWN]:
        click.echo(f"    {each}")


def _tell_husks(husks: Counter[str]) -> None:
    said = ", ".join(f"{name} {number}" for name, number in sorted(husks.items()))
    click.echo(f"  leases without a login, left to Vault's TTL as their token was revoked during the read: {said or 'none'}")


def _table(what: str, counted: Counter[str]) -> None:
    click.echo(f"  {what}: " + ", ".join(f"{name} {number}" for name, number in sorted(counted.items())))


if __name__ == "__main__":
    main()
