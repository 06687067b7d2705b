"""One run of the quick path: many short lives of the access service in bad weather, then calm and the comparison."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from leasegate.access.v1 import change_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import LeasegateError, LedgerUnavailableError
from services.roles.definition import cleanup_role as cleanup_role_definition
from tests.chaos.agreement import Eyes, alive_meanwhile, all_quiet, open_attempts
from tests.chaos.aims import ALL_POINTS, ANY_LEAPS, RENEW_LEAP_S, ROTATE_LEAP_S, Lean, aims
from tests.chaos.clock import LeapingClock
from tests.chaos.fate import MOMENT, Crashed, Fate
from tests.chaos.husks import end_husks
from tests.chaos.life import Life, Lives
from tests.chaos.people import People
from tests.chaos.wanted import Wanted
from tests.chaos.weather import Weather
from tests.integration.access_world import WATCHER, World

CALLERS = 3
MOST_WANTED = 10
AIM_S, HURRY_S = 1.0, 2.0
FULL_DISK_S = (0.02, 0.3)
IDLE_S = 0.015
QUIET_S = 90.0
VAULT_S = 5.0


@dataclass
class Tally:
    """What was met.

    Attributes:
        points: How often the service died at which named point.
        moments: How often it did at none, as nothing that it was aimed at came about.
        faults: How often something else failed.
        broken: What is wrong.
        husks: Leases without a user that a recovery explains.
        took_s: Seconds.
    """

    points: Counter[str] = field(default_factory=Counter)
    moments: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    husks: int = 0
    took_s: float = 0.0

    @property
    def crashes(self) -> int:
        """Deaths at named points."""
        return self.points.total()


class Run:
    """One seed.

    Args:
        made: Servers, mount and auth; the ledger is this run's own.
        seed: Decides all that is chance here; what threads and servers do in which order it cannot.
        lives: How often the service dies.
        within_s: Longest time of all lives.
        stop: Asked between two lives; a run that is stopped says nothing.
        points: What is aimed at.
        aim_s: For how long; then any other point will do.
    """

    def __init__(
        self,
        made: World,
        *,
        seed: int,
        lives: int,
        within_s: float = 1e6,
        stop: Callable[[], bool] = lambda: False,
        points: Sequence[str] = ALL_POINTS,
        aim_s: float = AIM_S,
    ) -> None:
        self._aim_s = aim_s
        self._world, self._count, self._within_s, self._stop = made, lives, within_s, stop
        self._rng = random.Random(seed)
        self._aims = aims(self._rng, points)
        self._weather = Weather(random.Random(seed + 1))
        self._clock = LeapingClock()
        self._lives = Lives(made, self._weather, self._clock)
        self._eyes = Eyes.of(made)
        self._wanted: list[Wanted] = []
        self._people = People(made, self._wanted, clock=self._clock)
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

    # -- bad weather
    # ---------------------------------------------------------------------------------------------------------------

    def _live(self, number: int) -> None:
        aim = next(self._aims)
        fate = Fate(aim)
        bad = not aim.lean.peaceful and not aim.lean.doubtful and self._rng.random() < 0.7
        self._leap_at_first(aim.lean)
        with suppress(Crashed), self._lives.life(fate) as life:
            self._enter(life)
            self._weather.bad, self._weather.doubtful = bad, aim.lean.doubtful
            self._act_until_dead(life, aim.lean, bad=bad)
        self._weather.calm()
        self._count_death(fate)
        broken = alive_meanwhile(self._eyes, self._wanted, open_attempts(self._world.ledger))
        self.tally.broken += [f"life {number} ({fate.at}): {each}" for each in broken]

    def _count_death(self, fate: Fate) -> None:
        if fate.at in ALL_POINTS:
            self.tally.points[fate.at] += 1
        else:
            self.tally.moments += 1

    def _act_until_dead(self, life: Life, lean: Lean, *, bad: bool) -> None:
        steps = [self._caller(life, lean, random.Random(self._rng.random())) for _ in range(CALLERS)]
        threads = [
            threading.Thread(target=_until_dead, args=(step, life.fate)) for step in (*steps, self._reader(life))
        ]
        for thread in threads:
            thread.start()
        self._watch_over(
            life, leaps=lean.leaps if lean.first_leap_s or lean.doubtful or self._rng.random() < 0.5 else (), bad=bad
        )
        for thread in threads:
            thread.join()

    def _enter(self, life: Life) -> None:
        """What the watcher says at the beginning of a feed."""
        with suppress(LeasegateError):
            self._people.say_roles(life)
        for each in self._wanted:
            each.at(life)

    def _watch_over(self, life: Life, *, leaps: Sequence[float], bad: bool) -> None:
        """Let time pass, have the disk full now and then, and end the life if its point does not."""
        began, full_until = time.monotonic(), 0.0
        with suppress(Crashed):
            while not life.fate.dead.wait(0.03):
                now = time.monotonic()
                if now - began > self._aim_s + HURRY_S:
                    life.fate.die(MOMENT)
                elif now - began > self._aim_s:
                    life.fate.hurry()
                if full_until and now > full_until:
                    full_until = 0.0
                    self._weather.disk(full=False)
                elif bad and not full_until and self._rng.random() < 0.04:
                    full_until = now + self._rng.uniform(*FULL_DISK_S)
                    self._weather.disk(full=True)
                if leaps and self._rng.random() < 0.3 and self._leap(self._rng.choice(leaps)):
                    with suppress(LedgerUnavailableError):
                        life.nudge()

    def _leap_at_first(self, lean: Lean) -> None:
        """Let time pass before a life begins: always where something that takes time is to be met."""
        if lean.first_leap_s:
            self._leap_when_still(lean.first_leap_s)
        elif self._rng.random() < 0.4:
            self._leap_when_still(self._rng.choice(ANY_LEAPS))

    def _leap_when_still(self, seconds: float) -> None:
        end = time.monotonic() + 0.5
        while not self._leap(seconds) and time.monotonic() < end:
            time.sleep(0.02)

    def _leap(self, seconds: float) -> bool:
        if not (self._weather.still() and self._eyes.idle()):
            return False
        self._clock.leap(seconds)
        return True

    def _caller(self, life: Life, lean: Lean, rng: random.Random) -> Callable[[], None]:
        most = MOST_WANTED + 2 * len(lean.roles)

        def step() -> None:
            if len(self._wanted) < most and rng.random() < 0.25:
                self._wanted.append(self._people.somebody(life, lean, rng))
            if not (wanted := tuple(self._wanted)):
                return
            each = rng.choice(wanted)
            if not each.lock.acquire(blocking=False):
                if rng.random() < lean.ends_claiming:
                    each.delete()
                    each.end()
                return
            try:
                if each.gone:
                    return
                self._people.act(each, life, lean, rng)
                if each.reconcile(None if lean.peaceful else rng) and each.deleted:
                    each.gone = True
                    self._wanted.remove(each)
            finally:
                each.lock.release()

        return step

    def _reader(self, life: Life) -> Callable[[], None]:
        """The watcher's part in recovery: it reads the feed and has cleanup roles made and removed."""
        calls, cursor = life.as_(WATCHER).watcher, [""]

        def step() -> None:
            answer = calls.WatchChanges(
                watcher.WatchChangesRequest(cursor=cursor[0], max_wait=Duration(nanos=50_000_000))
            )
            for change in answer.changes:
                self._cleanup_role(calls, change)
            cursor[0] = answer.next_cursor

        return step

    def _cleanup_role(self, calls: object, change: change_pb2.Change) -> None:
        if change.HasField("cleanup_role_needed"):
            need = change.cleanup_role_needed
            statements = tuple(need.revocation_statements)
            definition = cleanup_role_definition(
                db_name=need.connection,
                revocation_statements=statements,
                force_drop=need.force_drop,
                keep_owners=need.keep_owners,
            )
            self._world.servers.must("POST", f"{need.mount}/roles/{need.name}", **definition.payload())
            report = watcher.ReportCleanupRoleRequest(name=need.name, target=need.target, mount=need.mount)
            calls.ReportCleanupRole(report)  # type: ignore[attr-defined]
        elif change.HasField("cleanup_role_unneeded"):
            gone = change.cleanup_role_unneeded
            self._world.servers.must("DELETE", f"{gone.mount}/roles/{gone.name}")

    # -- calm

    def _calm(self) -> None:
        """All faults stop; everything comes to rest and agrees, then everything is deleted, and nothing is left."""
        with self._calm_life() as life:
            self._rest(life)
            # Every lease is renewed once, and those that are never renewed are replaced: what was revoked by
            # somebody else is noticed then.
            for seconds in (RENEW_LEAP_S, ROTATE_LEAP_S - RENEW_LEAP_S):
                self._clock.leap(seconds)
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
        rows = [
            row for row in open_attempts(self._world.ledger) if row.state not in ("active", "pending", "token_ready")
        ]
        busy += [f"{row.access_request_id} {row.sequence} {row.state} {row.error} {row.failures}" for row in rows]
        return busy or self._eyes.cleanup_roles()

    def _compare(self, when: str) -> None:
        end = time.monotonic() + VAULT_S
        while True:
            broken, beyond = all_quiet(self._eyes, self._wanted, open_attempts(self._world.ledger), self._world)
            if not (broken or beyond) or time.monotonic() > end:
                break
            time.sleep(0.1)  # Vault revokes in the background what a revoked token had made
        found = end_husks(self._eyes, beyond, ledger=self._world.ledger, real=self._clock.real)
        self.tally.husks += found.ended
        self.tally.broken += [f"{when}: {each}" for each in (*broken, *found.wrong)]


def _until_dead(step: Callable[[], None], fate: Fate) -> None:
    """Repeat a step as long as the process lives, whatever the service answers."""
    with suppress(Crashed):
        while not fate.dead.is_set():
            try:
                step()
            except LeasegateError:
                fate.dead.wait(IDLE_S)
            fate.dead.wait(IDLE_S)
