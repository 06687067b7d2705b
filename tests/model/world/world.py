"""Replicas of the access service over one real ledger, two watchers and their Secrets: the processes of the protocol.

Everything of ``services.access`` is the real thing; Vault and PostgreSQL are ``tests.model.world.vault``. What
happens, and in which order, is for the test to say. An invariant that is broken is noted in ``broken`` at once,
wherever it is found.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from services.access.domain import names
from services.access.domain.decide import Acknowledge, Claim, Remove, Wait
from services.access.domain.models import (
    AccessRequest,
    Approval,
    Attempt,
    CleanupRoleState,
    Decision,
    DropBy,
    Subject,
    VaultTargetRow,
)
from services.access.domain.settings import Settings
from services.access.leases.acknowledge import acknowledge
from services.access.leases.ensure import AccessEnsurer
from services.access.leases.issue import Issued, LeaseIssuer
from services.access.leases.recover import IssuanceRecovery
from services.access.leases.renew import LeaseRenewal
from services.access.ledger import attempts, catalog, reassessments, recoveries, requests
from services.access.ledger.db.database import Tx
from services.access.requests import reassess
from services.access.requests.catalog import Catalog
from services.access.requests.quiesce import IssuancePauses
from services.access.requests.requests import AccessRequests, DesiredAccess
from services.access.vault.clients import VaultClients
from services.access.worker.dispatch import AttemptDispatcher
from services.common import failpoints
from services.common.errors import LedgerUnavailableError, SnapshotStaleError, VaultUnavailableError
from services.common.vault.client import Vault
from services.common.vault.target import VaultTarget
from tests.model.world import invariants
from tests.model.world.jobs import Job, Port, Stops
from tests.model.world.ledger import BEGIN, SharedLedger, engine, reset
from tests.model.world.vault import MOUNT, ROLE, AttemptVault, How

OWNER = "spiffe://leasegate/watcher"
CLIENT_TIMEOUT_S = 30.0
REPLICAS = 2
HOW: dict[DropBy, How] = {DropBy.TEAM: "cleanup_role", DropBy.UNOWNED: "unowned", DropBy.FORCE: "finish"}
AT = VaultTarget(cluster="-", namespace="demo", name="vault", address="https://vault.test:8200")


class FakeVaults(VaultClients):
    """The one Vault, always logged in."""

    def __init__(self, vault: AttemptVault) -> None:
        """Of no sessions."""
        self._vault, self.port = vault, Port(vault)

    @contextmanager
    def at(self, row: VaultTargetRow) -> Iterator[Vault]:
        """The Vault."""
        yield cast(Vault, self.port)

    def max_request_duration_s(self, row: VaultTargetRow) -> float:
        """Of the Vault in memory."""
        return self._vault.most_s

    def service_auth(self, row: VaultTargetRow) -> bool:
        """Always."""
        return True


class Replica:
    """One process of the access service."""

    def __init__(self, world: World) -> None:
        """Start it."""
        self.ledger = SharedLedger(world.engine, lock=io.StringIO(), clock=world.clock)
        self.ledger.listeners.append(world.committed)
        vaults, settings = FakeVaults(world.vault), Settings(max_request_duration_s=world.vault.most_s)
        self.settings, self.requests = settings, AccessRequests(self.ledger, vaults)
        self.issuer = LeaseIssuer(self.ledger, vaults, settings=settings)
        self.ensurer = AccessEnsurer(self.ledger, self.requests, self.issuer)
        renewal = LeaseRenewal(self.ledger, vaults, settings=settings, jitter=lambda: 0.5)
        recovery = IssuanceRecovery(self.ledger, vaults)
        self.work = AttemptDispatcher(
            self.ledger, vaults, issuer=self.issuer, renewal=renewal, recovery=recovery, jitter=lambda: 0.5
        )
        self.jobs: dict[Job, str] = {}
        with self.ledger.write() as tx:
            attempts.schedule_interrupted(tx)

    def kill(self) -> None:
        """End it as by SIGKILL."""
        self.ledger.dead = True
        for job in list(self.jobs):
            job.kill()
        self.jobs.clear()

    def begin(self, name: str, do: Any, *, key: str = "") -> Job:
        """Begin a job; ``key`` is the attempt or request that a worker is at."""
        job = Job(name, do)
        self.jobs[job] = key
        return job


@dataclass(slots=True)
class Watcher:
    """A watcher's work on the request: idle, waiting for a claim, with a credential in hand, or acknowledging."""

    job: Job | None = None
    issued: Issued | None = None
    number: int = 0
    uid: str = ""

    @property
    def idle(self) -> bool:
        """Whether it has nothing in hand."""
        return self.job is None and self.issued is None and not self.number


@dataclass
class Thing:
    """The object in Kubernetes."""

    uid: str
    decisions: list[Decision] = field(default_factory=list)
    deleted: bool = False


class World:
    """All of it. ``broken`` is the first invariant that was found broken."""

    def __init__(
        self,
        template: Path,
        *,
        rising: bool = True,
        at_once: bool = False,
        in_steps: bool = True,
        ttl_s: float | None = None,
        **vault: Any,
    ) -> None:
        """A pending request.

        Args:
            template: A ledger as ``make_template`` makes it; beside it lies that of the world, of which there is one at
                a time.
            rising: The rule of that name, which is the watcher's.
            at_once: Whether a watcher tells of an approval only when it looks, and claims in the same call.
            in_steps: Whether the reassessor brings the request in line with a changed role, as if there were many.
            ttl_s: ``spec.ttl``.
            vault: For AttemptVault.
        """
        self.now, self.rising, self.at_once, self.ttl_s = BEGIN, rising, at_once, ttl_s
        self.vault = AttemptVault(self.clock, **vault)
        self.engine = engine(template.with_name("ledger.db"))
        reset(self.engine, template)
        self.broken = ""
        self.known: dict[str, Attempt] = {}
        self.asked: dict[str, AccessRequest] = {}
        self.kept_until: dict[str, float] = {}
        self.secrets: dict[str, int] = {}
        self.unsecret = False
        self.watchers = [Watcher(), Watcher()]
        self.role, self.change, self.pause_number = "r1", "", 0
        self.wanted: list[Any] = []
        ids = itertools.count(1)
        self._patches: list[Any] = [patch.object(names, "new_attempt_id", lambda: f"{next(ids):020d}")]
        if in_steps:
            self._patches.append(patch.object(reassess, "MANY", 0))
        for each in self._patches:
            each.start()
        self.replicas = [Replica(self) for _ in range(REPLICAS)]
        failpoints.install(Stops(lambda: any(replica.ledger.inside for replica in self.replicas)))
        self.things = [Thing("uid-1")]
        self.tell()

    def clock(self) -> float:
        """The time."""
        return self.now

    def close(self) -> None:
        """End everything."""
        for replica in self.replicas:
            replica.kill()
        failpoints.install(failpoints.Failpoints())
        for each in self._patches:
            each.stop()
        self.engine.dispose()

    @property
    def thing(self) -> Thing:
        """The object as it is now."""
        return self.things[-1]

    # What users and the watcher tell the access service; each in one go, as the model has it.

    def tell(self) -> None:
        """The watcher says what the object is."""
        replica, thing = self.replicas[0], self.thing
        with self._room():
            if thing.deleted:
                replica.requests.delete_request(self.desired(), owner=OWNER)
            else:
                replica.ensurer.ensure_request(self.desired(), owner=OWNER, secret_attempt=0, claim=False)

    def desired(self) -> DesiredAccess:
        """The object, for the access service."""
        thing, request = self.thing, self.asked.get(self.thing.uid)
        return DesiredAccess(
            uid=thing.uid,
            cluster="-",
            cluster_uid="c1",
            namespace="demo",
            name="cred",
            generation=1,
            role_namespace="demo",
            role_name="psql-role",
            subjects=(Subject("ServiceAccount", "", "demo-sa", "demo"),),
            ttl_s=self.ttl_s,
            requester="alice",
            decisions=tuple(thing.decisions),
            status_digest=request.digest if request else "",
        )

    def decide(self, kind: Approval) -> None:
        """Somebody approves or denies."""
        self.thing.decisions.append(Decision(kind, "carol", 1, "", "", self.now, "", "", False))
        if kind is not Approval.APPROVED or not self.at_once:
            self.tell()

    def delete(self) -> None:
        """Somebody deletes the object."""
        self.thing.deleted = True
        self.tell()

    def recreate(self) -> None:
        """Somebody creates it again."""
        self.things.append(Thing(f"uid-{len(self.things) + 1}"))
        self.tell()

    def rotate(self) -> None:
        """The active credential is to be replaced."""
        with self._room(), self.replicas[0].ledger.write() as tx:
            requests.update_silently(tx, self.thing.uid, rotation_due=True)

    # What becomes of the role

    def change_role(self) -> None:
        """The watcher goes one step on with a change of the role, from one of two definitions to the other.

        The steps are those of ``watcher.reconcilers.postgres_role``: pause, write once nothing is under way, put.
        """
        replica = self.replicas[0]
        with self._room():
            if self.change == "written":
                self._put_snapshot(replica)
                return
            if not self.change:
                self.role, self.change = "r2" if self.role == "r1" else "r1", "due"
            paused = IssuancePauses(replica.ledger).pause_db_roles(
                AT, mount=MOUNT, connection="", vault_role=ROLE, caller=OWNER
            )
            self.pause_number = paused.number
            if not paused.under_way:
                self.vault.definition, self.change = self.role, "written"

    def _put_snapshot(self, replica: Replica) -> None:
        nothing: Any = None
        with replica.ledger.read() as tx:
            known = catalog.find_role(tx, "-", "c1", "demo", "psql-role")
        assert known
        snapshot = replace(known, digest=self.role, pause_number=0, paused_at=None, paused_by="", pause_shown=False)
        try:
            Catalog(replica.ledger, nothing, nothing).put_role(
                snapshot, at=AT, pause_number=self.pause_number, caller=OWNER
            )
        except SnapshotStaleError as stale:
            self.pause_number = int(stale.metadata["pause_number"])
        else:
            self.change, self.unsecret = "", True  # what was not acknowledged yet is revoked with its approval

    def reassess(self, replica: Replica) -> bool:
        """The reassessor of a replica takes its turns; answers whether there was one."""
        if replica.ledger.full:
            return False
        with replica.ledger.read() as tx:
            found = reassessments.next_of_each_namespace(tx)
        for db_role in found:
            with replica.ledger.write() as tx:
                reassess.step(tx, db_role)
        return bool(found)

    def put_late(self) -> None:
        """A former leader puts the snapshot that it read before the change."""
        nothing, replica = cast(Any, None), self.replicas[1]
        with replica.ledger.read() as tx:
            known = catalog.find_role(tx, "-", "c1", "demo", "psql-role")
        assert known
        if known.pause_number and self.change:
            snapshot = replace(known, pause_number=0, paused_at=None, paused_by="", pause_shown=False)
            with suppress(SnapshotStaleError, LedgerUnavailableError):
                Catalog(replica.ledger, nothing, nothing).put_role(
                    snapshot, at=AT, pause_number=known.pause_number - 1, caller=OWNER
                )

    # Watchers

    def watch(self, number: int, replica: Replica) -> bool:
        """A watcher takes its next step; answers whether there was one."""
        watcher = self.watchers[number]
        if watcher.job:
            return self._take_answer(watcher)
        if watcher.issued:
            return self._write_secret(watcher)
        if watcher.number:
            self._acknowledge(watcher, replica)
            return True
        return self._look(watcher, replica)

    def _look(self, watcher: Watcher, replica: Replica) -> bool:
        uid = self.thing.uid
        secret_attempt = self.secrets.get(uid, 0)
        with self._room():
            view = replica.requests.show_request(uid, owner=OWNER)
        step = view.next_step(secret_attempt)
        if not view.request.ended and len(view.decisions) < len(self.thing.decisions):
            step = Claim()  # a decision that access does not know yet, which may lead to that
        watcher.uid = uid
        if isinstance(step, Remove):
            return self.secrets.pop(uid, None) is not None
        if isinstance(step, Claim):
            watcher.job = replica.begin("claim", self._claim(replica, uid, secret_attempt=secret_attempt))
        if isinstance(step, Acknowledge):
            watcher.number = secret_attempt
        return not isinstance(step, Wait)

    def _claim(self, replica: Replica, uid: str, *, secret_attempt: int) -> Callable[[], Issued | None]:
        if not self.at_once:
            return lambda: replica.issuer.claim_credential(uid, owner=OWNER, secret_attempt=secret_attempt)
        desired = self.desired()

        def claim() -> Issued | None:
            done = replica.ensurer.ensure_request(desired, owner=OWNER, secret_attempt=secret_attempt, claim=True)
            if done.refused:
                raise done.refused
            return done.issued

        return claim

    def _take_answer(self, watcher: Watcher) -> bool:
        job = watcher.job
        if job is None or not (job.over or job.killed):
            return False
        watcher.job, watcher.number = None, 0
        if isinstance(job.result, Issued):
            watcher.issued = job.result
        return True

    def _write_secret(self, watcher: Watcher) -> bool:
        issued, watcher.issued = watcher.issued, None
        assert issued
        number = issued.attempt.sequence
        if watcher.uid == self.thing.uid and (not self.rising or self.secrets.get(watcher.uid, 0) <= number):
            self.secrets[watcher.uid] = watcher.number = number
        return True

    def _acknowledge(self, watcher: Watcher, replica: Replica) -> None:
        uid, number = watcher.uid, watcher.number

        def do() -> None:
            acknowledge(replica.ledger, uid, owner=OWNER, number=number, settings=replica.settings)

        watcher.job = replica.begin("acknowledge", do)

    def lose_watcher(self, number: int) -> None:
        """A watcher is killed or gives up waiting; what it has begun goes on."""
        self.watchers[number] = Watcher()

    def remove_secret(self) -> None:
        """Somebody deletes the Secret."""
        self.secrets.pop(self.thing.uid, None)
        self.unsecret = True

    # Workers and cleanup roles

    def due(self, replica: Replica) -> list[str]:
        """Attempts and requests that a worker of a replica could take."""
        times = {attempt.id: attempt.due_at for attempt in self.known.values()} | {
            uid: each.due_at for uid, each in self.asked.items()
        }
        busy = set(replica.jobs.values())
        return [key for key, at in sorted(times.items()) if at is not None and at <= self.now and key not in busy]

    def begin_work(self, replica: Replica, key: str) -> Job:
        """A worker takes something."""

        def expire() -> None:
            with replica.ledger.write() as tx:
                reassess.expire(tx, key)

        return replica.begin(
            f"work on {key}", expire if key.startswith("uid") else lambda: replica.work.process_attempt(key), key=key
        )

    def receive_cleanup_roles(self) -> bool:
        """The watcher hears which cleanup roles are needed, and which no longer."""
        before = self.wanted
        with self.replicas[0].ledger.read() as tx:
            self.wanted = recoveries.pending(tx)
        return self.wanted != before

    def make_cleanup_roles(self) -> bool:
        """It has them made or removed, and says so; maybe late."""
        wanted, self.wanted = self.wanted, []
        for cleanup_role in wanted:
            if cleanup_role.state is CleanupRoleState.NEEDED:
                self.vault.cleanup_roles[cleanup_role.name] = HOW[cleanup_role.drop_by]
            else:
                self.vault.cleanup_roles.pop(cleanup_role.name, None)
            with self._room(), self.replicas[0].ledger.write() as tx:
                if cleanup_role.state is CleanupRoleState.UNNEEDED:
                    recoveries.delete_unneeded(tx, cleanup_role.name, cleanup_role.target)
                elif known := recoveries.find_cleanup_role(tx, cleanup_role.name, cleanup_role.target):
                    recoveries.report(tx, known, error="")
        return bool(wanted)

    # Jobs, faults and time

    def step(self, job: Job) -> None:
        """A job goes one step on; a call to Vault that it waits for first."""
        if job.call and not (job.call.done or job.lost):
            self.vault.advance(job.call)
        if not job.call or job.call.done or job.lost:
            job.resume()
        self.sweep()

    def sweep(self) -> None:
        """Forget jobs that are over, and look at the invariants."""
        for replica in self.replicas:
            for job in [job for job in replica.jobs if job.over]:
                del replica.jobs[job]
        self.look()

    def run(self, job: Job) -> None:
        """A job goes on to its end."""
        while not job.over:
            self.step(job)

    def jobs(self) -> list[Job]:
        """All jobs."""
        return [job for replica in self.replicas for job in replica.jobs]

    def restart(self, number: int) -> None:
        """A replica is killed, and started again without memory."""
        self.replicas[number].kill()
        self.replicas[number] = Replica(self)
        self.look()

    def passes(self, seconds: float, *, finish: bool = True) -> None:
        """Time passes: callers give up, Vault ends what has lasted for too long, and TTLs end."""
        self.now += seconds
        for job in self.jobs():
            if job.call and not job.lost and not job.call.done and self.now - job.call.begun_at >= CLIENT_TIMEOUT_S:
                job.lose(VaultUnavailableError("it did not answer within 30 s"))
        for call in self.vault.orphans():
            while not call.done and self.now - call.begun_at >= self.vault.most_s:
                self.vault.advance(call) if finish else self.vault.break_off(call)
        self.vault.expire()
        self.look()

    @contextmanager
    def _room(self) -> Iterator[None]:
        full = self.replicas[0].ledger.full
        self.replicas[0].ledger.full = False
        try:
            yield
        finally:
            self.replicas[0].ledger.full = full

    # Invariants

    def committed(self, _tx: Tx) -> None:
        """A replica has committed."""
        invariants.committed(self)

    def look(self) -> None:
        """Look at what holds at every moment."""
        invariants.always(self)

    def fail(self, what: str) -> None:
        """Note what is broken, the first only."""
        self.broken = self.broken or what
