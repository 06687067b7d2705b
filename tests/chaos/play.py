"""One run of the quick path: many short lives of the access service under bad weather, then calm, quiet, and the comparison."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

from google.protobuf.duration_pb2 import Duration

from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import LeasegateError
from services.roles.definition import adopter as adopter_definition
from tests.chaos.agreement import Eyes, alive_meanwhile, all_quiet, open_attempts
from tests.chaos.clock import LeapingClock
from tests.chaos.fate import Crashed, Fate, Plan
from tests.chaos.life import Life, Lives
from tests.chaos.people import ROLES, People
from tests.chaos.wanted import Wanted
from tests.chaos.weather import Weather
from tests.integration.access_world import WATCHER, Callee, Dar, World

CALLERS = 4
MOST_WANTED = 10
LIFE_S = 4.0
LONG_EVERY = 8
QUIET_S = 90.0
VAULT_S = 5.0
DAY_S = 86_400


@dataclass
class Tally:
    """What was met."""

    points: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    husks: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def crashes(self) -> int:
        return self.points.total()


class Run:
    """One seed.

    Args:
        made: Servers, mount and login; the ledger is this run's own.
        seed: Decides all that is chance here; what threads and servers do in which order it cannot.
        lives: How often the service dies.
        within_s: Longest time of all lives.
        stop: Asked between two lives; a run that is stopped says nothing.
        draw: Draws the plan of each life.
    """

    def __init__(
        self,
        made: World,
        *,
        seed: int,
        lives: int,
        within_s: float = 1e6,
        stop: Callable[[], bool] = lambda: False,
        draw: Callable[[random.Random], Plan] = Plan.draw,
    ) -> None:
        self._world, self._count, self._within_s, self._stop, self._draw = made, lives, within_s, stop, draw
        self._rng = random.Random(seed)
        self._weather = Weather(random.Random(seed + 1))
        self._clock = LeapingClock()
        self._lives = Lives(made, self._weather, self._clock)
        self._eyes = Eyes.of(made)
        self._wanted: list[Wanted] = []
        self._people = People(made, self._wanted)
        self.tally = Tally()

    def go(self) -> Tally:
        """Run it; what is broken is in the tally."""
        began = time.monotonic()
        try:
            for number in range(self._count):
                self._live(number)
                if self.tally.broken or self._stop():
                    return self.tally
                if time.monotonic() - began > self._within_s:
                    break
            self._calm()
        finally:
            self._lives.close()
            self._eyes.close()
            self._people.close()
            self.tally.faults += self._weather.seen + self._people.did
            self.tally.took_s = time.monotonic() - began
        return self.tally

    # -- bad weather ---------------------------------------------------------------------------------------------------------------

    def _live(self, number: int) -> None:
        long = number % LONG_EVERY == LONG_EVERY - 1
        fate = Fate(Plan.draw_long(self._rng) if long else self._draw(self._rng))
        bad = not long and self._rng.random() < 0.7
        seeds = [self._rng.random() for _ in range(CALLERS)]
        leaps = self._rng.random() < 0.5
        with self._lives.life(fate) as life:
            self._enter(life)
            self._leap_at_first(fate)
            self._weather.bad = bad
            threads = [threading.Thread(target=_until_dead, args=(self._caller(life, random.Random(s)), fate)) for s in seeds]
            threads.append(threading.Thread(target=_until_dead, args=(self._reader(life), fate)))
            for thread in threads:
                thread.start()
            self._watch_over(life, leaps=leaps)
            for thread in threads:
                thread.join()
        self._weather.bad = False
        self.tally.points[fate.at] += 1
        self._weather.settle()
        self._wanted[:] = [each for each in self._wanted if not each.gone]
        broken = alive_meanwhile(self._eyes, self._wanted, open_attempts(self._world.ledger))
        self.tally.broken += [f"life {number} ({fate.at}): {each}" for each in broken]

    def _enter(self, life: Life) -> None:
        """What the watcher says at the beginning of a feed."""
        with suppress(LeasegateError):
            self._people.say_roles(life)
        for each in self._wanted:
            each.at(life)

    def _watch_over(self, life: Life, *, leaps: bool) -> None:
        """Let time pass, and end the life if no point does."""
        end = time.monotonic() + LIFE_S
        with suppress(Crashed, LeasegateError):
            while not life.fate.dead.wait(0.05):
                if time.monotonic() > end:
                    life.fate.die("at any moment")
                if leaps and self._rng.random() < 0.3:
                    self._leap(self._rng.choice((2.5, 2.5, 2.5, 70, 2400, 2400, self._rng.uniform(3600, DAY_S))))
                    life.nudge()

    def _leap_at_first(self, fate: Fate) -> None:
        """Let time pass before a life begins: always where something that takes time is to be met."""
        if fate.plan and fate.plan.meets("rotate"):
            self._leap_when_still(self._rng.uniform(3600, DAY_S))
        elif fate.plan and fate.plan.meets("renew"):
            self._leap_when_still(2400)
        elif self._rng.random() < 0.4:
            self._leap_when_still(self._rng.choice((2.5, 2.5, 2.5, 2.5, 70, 2400)))

    def _leap_when_still(self, seconds: float) -> None:
        end = time.monotonic() + 0.5
        while not self._leap(seconds) and time.monotonic() < end:
            time.sleep(0.02)

    def _leap(self, seconds: float) -> bool:
        if not (self._weather.still() and self._eyes.idle()):
            return False
        self._clock.leap(seconds)
        return True

    def _caller(self, life: Life, rng: random.Random) -> Callable[[], None]:
        def step() -> None:
            chance = rng.random()
            if len(self._wanted) < MOST_WANTED and chance < 0.25:
                self._wanted.append(Wanted(Dar(cast(Callee, life), role=rng.choice(tuple(ROLES)))))
            if not self._wanted:
                return
            each = rng.choice(self._wanted)
            if not each.lock.acquire(blocking=False):
                if rng.random() < 0.04:  # while somebody claims for it
                    each.delete()
                    each.dar.end()
                return
            try:
                if each.gone:
                    return
                self._people.act(each, life, rng)
                if each.reconcile(rng) and each.deleted:
                    each.gone = True
            finally:
                each.lock.release()

        return step

    def _reader(self, life: Life) -> Callable[[], None]:
        """The watcher's part in adoption: it reads the feed and has adopters made and removed."""
        calls, cursor = life.as_(WATCHER).watcher, [""]

        def step() -> None:
            answer = calls.WatchChanges(watcher.WatchChangesRequest(cursor=cursor[0], max_wait=Duration(nanos=50_000_000)))
            for change in answer.changes:
                self._adopter(calls, change)
            cursor[0] = answer.next_cursor

        return step

    def _adopter(self, calls: object, change: watcher.Change) -> None:
        if change.HasField("adopter_needed"):
            need = change.adopter_needed
            statements = tuple(need.revocation_statements)
            definition = adopter_definition(db_name=need.db_name, revocation_statements=statements, finish=need.finish)
            self._world.servers.must("POST", f"{need.mount}/roles/{need.name}", **definition.payload())
            calls.ReportAdopter(watcher.ReportAdopterRequest(name=need.name, target=need.target, mount=need.mount))  # type: ignore[attr-defined]
        elif change.HasField("adopter_unneeded"):
            gone = change.adopter_unneeded
            self._world.servers.must("DELETE", f"{gone.mount}/roles/{gone.name}")

    # -- calm ----------------------------------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """All faults stop; everything comes to rest and agrees, then everything is deleted, and nothing is left."""
        with self._calm_life() as life:
            self._rest(life)
            self._clock.leap(2400)  # every lease is renewed once, so that what was revoked behind our back is noticed
            life.nudge()
            self._rest(life)
            for each in self._wanted:
                if not each.approved:
                    each.approve()
            self._rest(life)
            self._compare("at rest")
            for each in self._wanted:
                each.delete()
            self._rest(life)
            self._compare("after all is deleted")

    @contextmanager
    def _calm_life(self) -> Iterator[Life]:
        fate = Fate(None)
        with self._lives.life(fate) as life:
            self._enter(life)
            reader = threading.Thread(target=_until_dead, args=(self._reader(life), fate))
            reader.start()
            try:
                yield life
            finally:
                fate.die("end of the run")
                reader.join()

    def _rest(self, life: Life) -> None:
        """Reconcile until nothing is left to do, leaping over waits."""
        end = time.monotonic() + QUIET_S
        while left := self._unrest():
            if time.monotonic() > end:
                self.tally.broken.append(f"not at rest within {QUIET_S:.0f} s: {left}")
                return
            if self._leap(1.0):
                life.nudge()
            time.sleep(0.02)

    def _unrest(self) -> list[str]:
        busy = []
        for each in self._wanted:
            try:
                if not each.reconcile():
                    busy.append(each.uid)
            except LeasegateError as err:
                busy.append(f"{each.uid}: {err.reason}")
        rows = [row for row in open_attempts(self._world.ledger) if row.state not in ("active", "new", "token")]
        busy += [f"{row.request} {row.number} {row.state} {row.error} {row.tries}" for row in rows]
        return busy or self._eyes.adopters()

    def _compare(self, when: str) -> None:
        end = time.monotonic() + VAULT_S
        while True:
            broken, husks = all_quiet(self._eyes, self._wanted, open_attempts(self._world.ledger), self._world)
            if not (broken or husks) or time.monotonic() > end:
                break
            time.sleep(0.1)  # Vault revokes in the background what a revoked token had made
        self.tally.broken += [f"{when}: {each}" for each in broken]
        for lease_id in husks:
            self.tally.husks[lease_id.split("/creds/")[1].split("/")[0]] += 1
            self._world.servers.must("POST", f"sys/leases/revoke/{lease_id}", sync=True)


def _until_dead(step: Callable[[], None], fate: Fate) -> None:
    """Repeat a step as long as the process lives, whatever the service answers."""
    with suppress(Crashed):
        while not fate.dead.is_set():
            try:
                step()
            except LeasegateError:
                fate.dead.wait(0.01)
