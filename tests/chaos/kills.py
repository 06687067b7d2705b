"""The real part: access service and watcher as processes on the local stack, killed again and again while requests come and go in bulk.

Half of the kills are at named points (the process dies there by itself, as by SIGKILL), the others are SIGKILL at any moment. Each
process has a keeper of its own that starts it again at once. Between phases Vault is sealed, or PostgreSQL stopped, for a moment.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cli.kubectl_vault.decisions import Verdict
from deploy.local.errors import StackError
from deploy.local.processes import Command, Process
from deploy.local.stack import LocalStack
from services.access import crash as access_crash
from tests.chaos.agreement import Eyes, Row, open_attempts
from tests.chaos.objects import MOUNT, Cluster, Shown, user_of
from watcher import crash as watcher_crash
from watcher.api import KubeError

POINTS = {"access": access_crash.POINTS, "watcher": watcher_crash.POINTS}
VARIABLES = {"access": access_crash.VARIABLE, "watcher": watcher_crash.VARIABLE}
MOST_REQUESTS = 24
PHASES: tuple[tuple[str, ...], ...] = (("access",), ("watcher",), ("access", "watcher"))
PHASE_S = 40.0
REST_S = 150.0
POINT_S = 9.0
AT_ANY_MOMENT = "SIGKILL"


@dataclass
class Kills:
    """What was met in the real part."""

    points: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    made: int = 0
    husks: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.points.total()


class Keeper:
    """Kills one process and starts it again, as long as it is told to."""

    def __init__(self, process: Process, *, rng: random.Random, points: Iterator[str], told: Kills) -> None:
        self._process, self._rng, self._points, self._told = process, rng, points, told
        self._command: Callable[[], Command] = process._command
        self._armed = ""
        process._command = self._armed_command
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper-{process.name}", daemon=True)
        self.failed: list[BaseException] = []

    def start(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def stop(self) -> None:
        """Kill no more; the process runs, unarmed, when this returns."""
        self._stop.set()
        self._thread.join(timeout=120)
        self._armed = ""
        self._process.kill()
        self._process._command = self._command
        self._process.start()

    def _armed_command(self) -> Command:
        made = self._command()
        return replace(made, env={**(made.env or {}), VARIABLES[self._process.name]: self._armed}) if self._armed else made

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._one()
        except Exception as err:
            self.failed.append(err)

    def _one(self) -> None:
        point = next(self._points) if self._rng.random() < 0.7 else ""
        self._armed = f"{point}:{self._rng.randint(1, 2)}" if point else ""
        self._process.kill()
        self._process.start()
        patience_s = POINT_S if point else self._rng.uniform(1.5, 5)
        end = time.monotonic() + patience_s
        while self._process.alive and time.monotonic() < end:
            self._stop.wait(0.02)
        self._told.points[f"{self._process.name} {point if not self._process.alive and point else AT_ANY_MOMENT}"] += 1
        self._process.kill()


class Real:
    """One run of the real part.

    Args:
        stack: A running local stack.
        seed: Decides all that is chance here.
        kills: How many processes have to die.
        within_s: Longest time of the killing; what has died by then has to do.
        phase_s: How long each combination of processes is killed before all comes to rest and is compared.
        say: Told how it goes.
    """

    def __init__(
        self,
        stack: LocalStack,
        *,
        seed: int,
        kills: int,
        within_s: float,
        phase_s: float = PHASE_S,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stack, self._rng, self._kills = stack, random.Random(seed), kills
        self._within_s, self._phase_s = within_s, phase_s
        self._say, self._cluster = say, Cluster(stack)
        self._ledger = Path(stack.directory) / "services" / "ledger.sqlite"
        self._eyes = Eyes(vault=self._ask, postgres_url=stack.postgres_url, mount=MOUNT)
        self._points = {name: _round_and_round(points, random.Random(seed)) for name, points in POINTS.items()}
        self.told = Kills()

    def _ask(self, method: str, path: str) -> tuple[int, dict[str, object]]:
        answer = self._stack.vault_api().call(method, path)
        return answer.status, answer.body

    def go(self) -> Kills:
        """Run it; what is broken is told."""
        try:
            self._run()
        finally:
            self._eyes.close()
        return self.told

    def _run(self) -> None:
        self._cluster.prepare()
        end = time.monotonic() + self._within_s
        phase = 0
        while self.told.total < self._kills and time.monotonic() < end:
            self._phase(PHASES[phase % len(PHASES)], until=end)
            phase += 1
            self._outage()
            self._compare_at_rest(f"phase {phase}")
            self._say(f"phase {phase}: {self.told.total} kills, {self.told.made} requests made")
            if self.told.broken:
                break
        self._finish()

    def _phase(self, names: tuple[str, ...], *, until: float) -> None:
        keepers = [self._keeper(name) for name in names]
        for keeper in keepers:
            keeper.start()
        end = min(until, time.monotonic() + self._phase_s)
        try:
            while time.monotonic() < end and self.told.total < self._kills:
                self._bulk()
        finally:
            for keeper in keepers:
                keeper.stop()
        self.told.broken += [f"a keeper failed: {err!r}" for keeper in keepers for err in keeper.failed]

    def _keeper(self, name: str) -> Keeper:
        return Keeper(self._stack.process(name), rng=random.Random(self._rng.random()), points=self._points[name], told=self.told)

    def _bulk(self) -> None:
        """People make, decide and delete requests, many at once."""
        shown = self._cluster.requests()
        if len(shown) < MOST_REQUESTS:
            for _ in range(self._rng.randint(2, 8)):
                self.told.made += 1
                self._cluster.create(f"chaos-{self.told.made}", role="short-role" if self._rng.random() < 0.2 else "psql-role")
        for each in shown:
            with suppress(KubeError):
                self._event(each)
        time.sleep(0.2)

    def _event(self, each: Shown) -> None:
        chance = self._rng.random()
        if not each.approved and not each.over and chance < 0.7:
            self._cluster.decide(each.name, Verdict.APPROVE)
        elif chance < 0.12:
            self._cluster.delete(each.name)
        elif chance < 0.14 and not each.over:
            self._cluster.decide(each.name, Verdict.DENY)
        elif chance < 0.2:
            self._cluster.lose_secret(each)

    def _outage(self) -> None:
        """Vault or PostgreSQL away for a moment, while requests are deleted."""
        chance = self._rng.random()
        if chance < 0.25:
            self._stack.seal()
            self._bulk()
            self._stack.unseal()
        elif chance < 0.5:
            self._stack.stop_postgres()
            self._bulk()
            self._stack.start_postgres()

    # -- at rest -------------------------------------------------------------------------------------------------------------------

    def _compare_at_rest(self, when: str) -> None:
        end, wrong = time.monotonic() + REST_S, ["nothing was compared"]
        for name in ("access", "watcher"):
            self._stack.process(name).wait_ready()
        while wrong and time.monotonic() < end:
            try:
                wrong = self._wrong()
            except (StackError, KubeError, AssertionError) as err:
                wrong = [str(err)]
            time.sleep(0.3 if wrong else 0)
        self.told.broken += [f"{when}: {each}" for each in wrong]

    def _wrong(self) -> list[str]:
        """In what ledger, Vault, PostgreSQL and Kubernetes differ."""
        rows = open_attempts(self._ledger)
        logins, leases, secrets = self._eyes.logins(), self._eyes.leases(), self._cluster.secrets()
        requests = self._cluster.requests()
        wrong = _differ(rows, logins, leases)
        for each in requests:
            if each.approved and not each.over:
                wrong += self._not_served(each, rows, secrets)
            elif each.uid in secrets:
                wrong.append(f"{each.name} is over or not approved, and there is a Secret")
        wrong += [f"there is a Secret of a request that is gone: {uid}" for uid in secrets.keys() - {each.uid for each in requests}]
        husks = leases - {row.lease_id for row in rows}
        if not wrong and husks:
            self._end_husks(husks)
        return wrong or self._eyes.adopters()

    def _end_husks(self, husks: set[str]) -> None:
        for lease_id in husks:
            self.told.husks[lease_id.split("/creds/")[1].split("/")[0]] += 1
            self._stack.vault_api().call("POST", f"sys/leases/revoke/{lease_id}", {"sync": True})

    def _not_served(self, each: Shown, rows: list[Row], secrets: dict[str, dict[str, object]]) -> list[str]:
        active = next((row for row in rows if row.request == each.uid and row.state == "active"), None)
        secret = secrets.get(each.uid)
        if active is None or secret is None:
            return [f"{each.name} is approved, but attempt {active and active.number}, Secret {bool(secret)}: {each.conditions}"]
        if user_of(secret) != active.login:
            return [f"{each.name}: the Secret holds {user_of(secret)}, active is {active.login}"]
        return [] if self._cluster.works(secret) else [f"{each.name}: the credential in the Secret does not work"]

    def _finish(self) -> None:
        """Delete all requests: nothing is left."""
        for each in self._cluster.requests():
            self._cluster.delete(each.name)
        self._compare_at_rest("after all is deleted")
        left = self._cluster.requests()
        self.told.broken += [f"{each.name} is not gone" for each in left]


def _differ(rows: list[Row], logins: dict[str, bool], leases: set[str]) -> list[str]:
    in_use = [row for row in rows if row.state in ("active", "old")]
    wrong = [f"{row.request}: attempt {row.number} is {row.state}: {row.error}" for row in rows if row.state not in _AT_REST]
    wrong += [f"PostgreSQL has {login}, which no attempt in use owns" for login in logins.keys() - {row.login for row in in_use}]
    wrong += [f"attempt {row.number} of {row.request} has lost its login" for row in in_use if row.login not in logins]
    return wrong + [f"Vault has lost the lease of attempt {row.number} of {row.request}" for row in in_use if row.lease_id not in leases]


def _round_and_round(points: Sequence[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(points, len(points))


_AT_REST = ("active", "old", "new", "token")
