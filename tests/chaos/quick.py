"""The quick path as a whole: workers, each a process with servers of its own, that take one seed after the other."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.access.requests import reassess
from services.common import logs
from tests.chaos.people import prepare
from tests.chaos.play import Run, Tally
from tests.integration.access_world import World, world
from tests.servers import real_servers

_POLL_S = 0.5
_STOP_S = 60.0


@dataclass
class Sum:
    """What all runs met."""

    points: Counter[str] = field(default_factory=Counter)
    moments: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)
    runs: int = 0
    husks: int = 0

    @property
    def crashes(self) -> int:
        return self.points.total()

    def add(self, seed: int, tally: Tally) -> None:
        """Count one run."""
        self.runs += 1
        self.points += tally.points
        self.moments += tally.moments
        self.faults += tally.faults
        self.husks += tally.husks
        if tally.broken:
            self.broken[seed] = tally.broken


def one_run(made: World, *, seed: int, lives: int, stop: Callable[[], bool] = lambda: False) -> Tally:
    """Run one seed over a new ledger; a failure of the harness itself counts as broken, too."""
    for file in made.folder.glob("ledger.db*"):
        file.unlink()
    run = Run(made, seed=seed, lives=lives, stop=stop)
    try:
        return run.go()
    except Exception as err:
        run.tally.broken.append(f"the run broke off: {err!r}")
        return run.tally


def all_runs(
    counts: Sum, seed: int, *, points: int, lives: int, jobs: int, until: float, say: Callable[[str], None]
) -> None:
    """Run seed after seed until enough deaths are met, something is broken, or ``until`` (monotonic) has come.

    Args:
        counts: Filled as it goes, so that it is there when this is interrupted.
        seed: The first one.
        points: How many deaths are wanted.
        lives: Deaths of one seed.
        jobs: Worker processes.
        until: Nothing new is begun after this time.
        say: Told of each run.
    """
    context = multiprocessing.get_context("spawn")
    todo, done, stop = context.Queue(), context.Queue(), context.Event()
    workers = [context.Process(target=_work, args=(todo, done, stop, lives)) for _ in range(jobs)]
    number = seed
    try:
        for worker in workers:
            worker.start()
        given = 0
        while counts.crashes < points and not counts.broken and time.monotonic() < until:
            while given < min(jobs, -(-(points - counts.crashes) // lives)):
                todo.put(number)
                number, given = number + 1, given + 1
            try:
                ran, tally = done.get(timeout=_POLL_S)
            except queue.Empty:
                if not all(worker.is_alive() for worker in workers):
                    raise RuntimeError("a worker of the quick path has ended") from None
                continue
            given -= 1
            counts.add(ran, tally)
            say(f"seed {ran}: {tally.crashes} deaths in {tally.took_s:.0f} s, {counts.crashes} in all")
    finally:
        stop.set()
        _see_off(workers, done, counts)


def _see_off(workers: Sequence[Any], done: Any, counts: Sum) -> None:
    """Wait until all workers have ended; what was done by a run that had to be broken off counts, too."""
    end = time.monotonic() + _STOP_S
    while time.monotonic() < end and any(worker.is_alive() for worker in workers):
        with suppress(queue.Empty):
            counts.add(*done.get(timeout=_POLL_S))
    with suppress(queue.Empty):
        while True:
            counts.add(*done.get_nowait())


def _work(todo: Any, done: Any, stop: Any, lives: int) -> None:
    """One worker process; it ends, and stops its servers, soon after ``stop`` is set or its parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # theirs to handle who wait for us
    parent = os.getppid()

    def over() -> bool:
        return bool(stop.is_set()) or os.getppid() != parent

    logs.configure("critical", process="chaos")
    reassess.MANY = reassess.STEP = 1  # a changed role has its access requests reassessed in steps
    folder = Path(tempfile.mkdtemp(prefix="leasegate-chaos-"))
    try:
        with real_servers() as servers, world(servers, folder) as made:
            prepare(made)
            while not over():
                with suppress(queue.Empty):
                    seed = todo.get(timeout=_POLL_S)
                    done.put((seed, one_run(made, seed=seed, lives=lives, stop=over)))
    finally:
        if os.getppid() != parent:
            done.cancel_join_thread()  # nobody reads it any more
        shutil.rmtree(folder, ignore_errors=True)
