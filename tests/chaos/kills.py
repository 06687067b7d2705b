"""The real part: access and watcher as processes on the local stack, killed again and again under load.

Most kills are at a failpoint (the process dies there by itself, as by SIGKILL), the others are SIGKILL at any moment.
Each process has a keeper that starts it again at once. Meanwhile one server after the other fails: Vault, PostgreSQL,
the disk.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from cli.kubectl_vault.decisions import Verdict
from deploy.vault.api import VaultError
from dev.stack.errors import StackError
from dev.stack.stack import LocalStack
from services.common.errors import LeasegateError
from tests.chaos import beside
from tests.chaos.agreement import LOST, Eyes, Row, open_attempts
from tests.chaos.beside import Beside
from tests.chaos.husks import end_husks
from tests.chaos.keeper import Keeper
from tests.chaos.objects import MOUNT, Cluster, Shown, user_of
from tests.chaos.outages import Outages
from tests.chaos.spots import POINTS, Spots
from watcher.kube.client import KubeError

MOST_REQUESTS, FEWEST_SHORT = 24, 5
SHORT = "short"
PHASES: tuple[tuple[str, ...], ...] = (("access",), ("watcher",), ("access",), ("access", "watcher"))
"""Which processes are killed; an undo needs both, so that access alone is killed more often."""
PHASE_S = 75.0
REST_S = 180.0
OUTAGE_S = (1.0, 4.0)
DRIFT_EVERY_S = 8.0


@dataclass
class Kills:
    """What was met in the real part.

    Attributes:
        met: How often a process died where.
        broken: What is wrong.
        made: Requests of Kubernetes.
        holders: Requests over gRPC.
        faults: What else failed.
        husks: Leases without a user that a recovery explains.
    """

    met: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    made: int = 0
    holders: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    husks: int = 0

    @property
    def total(self) -> int:
        """Processes that were killed."""
        return self.met.total()


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
        counts: Kills | None = None,
    ) -> None:
        self._stack, self._rng, self._kills = stack, random.Random(seed), kills
        self._within_s, self._phase_s = within_s, phase_s
        self._say, self._cluster = say, Cluster(stack)
        self._ledger = Path(stack.directory) / "services" / "ledger.sqlite"
        self._eyes = Eyes(vault=self._ask, postgres_url=stack.postgres_url, mounts=(MOUNT, beside.MOUNT))
        self._outages = Outages(stack, self._eyes, random.Random(seed + 1))
        self._beside = Beside(stack, random.Random(seed + 2))
        self._spots = Spots(random.Random(seed + 3))
        self.counts = counts or Kills()
        self.counts.met = self._spots.met

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = self._stack.vault_api().call(method, path, body or None)
        return answer.status, answer.body

    def go(self) -> Kills:
        """Run it; what is broken is told."""
        try:
            self._run()
        finally:
            self._beside.close()
            self._eyes.close()
        return self.counts

    def _run(self) -> None:
        beside.prepare(self._stack)
        self._cluster.prepare()
        end = time.monotonic() + self._within_s
        phase = 0
        while self.counts.total < self._kills and time.monotonic() < end:
            names = PHASES[phase % len(PHASES)]
            phase += 1
            if names == ("watcher",) and self._spots.missing("access") and not self._spots.missing("watcher"):
                continue
            self._phase(names, until=end)
            self._compare_at_rest(f"phase {phase}")
            missing = sum(map(self._spots.missing, POINTS))
            self._say(f"phase {phase} ({' and '.join(names)}): {self.counts.total} kills, {missing} aims not met yet")
            if self.counts.broken:
                break
        self._finish()

    def _phase(self, names: tuple[str, ...], *, until: float) -> None:
        keepers = [self._keeper(name) for name in names]
        for keeper in keepers:
            keeper.start()
        self._beside.start()
        end = min(until, time.monotonic() + self._phase_s)
        drift_at = time.monotonic() + 1.0
        outage_at = time.monotonic() + self._rng.uniform(0.2, 0.8) * self._phase_s
        try:
            while time.monotonic() < end and not self._enough():
                self._bulk()
                if time.monotonic() > drift_at:
                    drift_at += DRIFT_EVERY_S
                    with suppress(VaultError):
                        self._drift()
                if time.monotonic() > outage_at:
                    outage_at = end
                    self._outage()
        finally:
            self._beside.stop()
            self.counts.holders, self.counts.faults["drop refused"] = self._beside.made, self._beside.refusing
            for keeper in keepers:
                keeper.stop()
        self.counts.broken += [f"a keeper failed: {err!r}" for keeper in keepers for err in keeper.failed]

    def _enough(self) -> bool:
        return self.counts.total >= self._kills

    def _keeper(self, name: str) -> Keeper:
        return Keeper(self._stack.process(name), self._spots, enough=self._enough)

    def _bulk(self) -> None:
        """People make, decide and delete requests, many at once; what Kubernetes refuses now they try again."""
        with suppress(KubeError):
            shown = self._cluster.requests()
            if len(shown) < MOST_REQUESTS:
                self._create(short=sum(each.name.startswith(SHORT) for each in shown))
            for each in shown:
                with suppress(KubeError):
                    self._event(each)
        time.sleep(0.2)

    def _create(self, *, short: int) -> None:
        """Make some requests, of the role whose leases live for seconds until there are enough."""
        for _ in range(self._rng.randint(2, 8)):
            self.counts.made += 1
            brief = short < FEWEST_SHORT
            short += brief
            name, role = (SHORT, "short-role") if brief else ("chaos", "psql-role")
            self._cluster.create(f"{name}-{self.counts.made}", role=role)

    def _event(self, each: Shown) -> None:
        chance = self._rng.random()
        if not each.approved and not each.over and chance < 0.7:
            self._cluster.decide(each.name, Verdict.APPROVE)
        elif each.name.startswith(SHORT) and self._rng.random() < 0.9:
            return  # they have to grow old enough to be replaced
        elif chance < 0.12:
            self._cluster.delete(each.name)
        elif chance < 0.14 and not each.over:
            self._cluster.decide(each.name, Verdict.DENY)
        elif chance < 0.2:
            self._cluster.lose_secret(each)

    def _drift(self) -> None:
        """Somebody writes to Vault what changes nothing for anybody; the watcher puts it back under a pause."""
        vault = self._stack.vault_api()
        role, connection = f"{MOUNT}/roles/k8s.-.demo.psql-role", f"{MOUNT}/config/k8s.-.demo.postgres-app"
        shown = vault.call("GET", role).body.get("data")
        if self._rng.random() < 0.5 and shown:
            kept = {name: shown[name] for name in ("db_name", "creation_statements", "revocation_statements")}
            kept |= {name: shown[name] for name in ("default_ttl", "max_ttl")}
            vault.call("POST", role, kept | {"rollback_statements": ["SELECT 1;"]})
        elif shown := vault.call("GET", connection).body.get("data"):
            url = shown["connection_details"]["connection_url"].replace("?", "?connect_timeout=9&", 1)
            vault.call("POST", connection, {"connection_url": url, "verify_connection": False})
        self.counts.faults["drift"] += 1

    def _outage(self) -> None:
        """Something fails for a moment, while all goes on."""
        with self._outages.one() as name:
            self.counts.faults[name] += 1
            end = time.monotonic() + self._rng.uniform(*OUTAGE_S)
            while time.monotonic() < end:
                self._bulk()

    # -- at rest

    def _compare_at_rest(self, when: str) -> None:
        end, wrong = time.monotonic() + REST_S, ["nothing was compared"]
        for name in ("access", "watcher"):
            self._stack.process(name).wait_ready()
        while wrong and time.monotonic() < end:
            try:
                wrong = self._wrong()
            except (StackError, KubeError, VaultError, LeasegateError, AssertionError) as err:
                wrong = [str(err)]
            time.sleep(0.3 if wrong else 0)
        self.counts.broken += [f"{when}: {each}" for each in wrong]

    def _wrong(self) -> list[str]:
        """In what ledger, Vault, PostgreSQL and Kubernetes differ."""
        rows = open_attempts(self._ledger)
        database_users, leases, secrets = self._eyes.database_users(), self._eyes.leases(), self._cluster.secrets()
        requests = self._cluster.requests()
        wrong = _differ(rows, database_users, leases)
        for each in requests:
            if each.approved and not each.over:
                wrong += self._not_enabled(each, rows, secrets)
            elif each.uid in secrets:
                wrong.append(f"{each.name} is over or not approved, and there is a Secret")
        wrong += [
            f"there is a Secret of a request that is gone: {uid}"
            for uid in secrets.keys() - {each.uid for each in requests}
        ]
        wrong += self._beside.unrest(rows, self._works) or self._eyes.cleanup_roles()
        if not wrong:
            self._end_husks(
                leases - {row.lease_id for row in rows} - {row.lease_id for row in open_attempts(self._ledger)}
            )
        return wrong

    def _works(self, user: str, password: str) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self._stack.postgres_url, user=user, password=password, connect_timeout=5).close()
            return True
        return False

    def _end_husks(self, beyond: set[str]) -> None:
        found = end_husks(self._eyes, beyond, ledger=self._ledger)
        self.counts.husks += found.ended
        self.counts.broken += found.wrong

    def _not_enabled(self, each: Shown, rows: list[Row], secrets: dict[str, dict[str, object]]) -> list[str]:
        active = next((row for row in rows if row.access_request_id == each.uid and row.state == "active"), None)
        secret = secrets.get(each.uid)
        if active is None or secret is None:
            return [
                f"{each.name}: approved, attempt {active and active.sequence}, Secret {bool(secret)}: {each.conditions}"
            ]
        if user_of(secret) != active.database_user:
            return [f"{each.name}: the Secret holds {user_of(secret)}, active is {active.database_user}"]
        return (
            [] if self._cluster.works(secret) else [f"{LOST} {each.name}: the credential in the Secret does not work"]
        )

    def _finish(self) -> None:
        """Delete all requests: nothing is left."""
        self._beside.end()
        for each in self._cluster.requests():
            self._cluster.delete(each.name)
        self._compare_at_rest("after all is deleted")
        left = self._cluster.requests()
        self.counts.broken += [f"{each.name} is not gone" for each in left]


def _differ(rows: list[Row], database_users: dict[str, bool], leases: set[str]) -> list[str]:
    in_use = [row for row in rows if row.state in ("active", "retiring")]
    owned = {row.database_user for row in in_use}
    wrong = [
        f"{row.access_request_id}: attempt {row.sequence} is {row.state}: {row.error}"
        for row in rows
        if row.state not in _AT_REST
    ]
    wrong += [f"{LOST} PostgreSQL has {user}, which no attempt in use owns" for user in database_users.keys() - owned]
    for row in in_use:
        wrong += (
            [f"{LOST} attempt {row.sequence} of {row.access_request_id} has no user any more"]
            if row.database_user not in database_users
            else []
        )
        wrong += (
            [f"{LOST} Vault has no lease of attempt {row.sequence} of {row.access_request_id} any more"]
            if row.lease_id not in leases
            else []
        )
    return wrong


_AT_REST = ("active", "retiring", "pending", "token_ready")
