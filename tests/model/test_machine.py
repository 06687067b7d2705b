"""The real access service in any order of events: a Hypothesis state machine over ``tests.model.world``.

Two replicas over one real ledger, two watchers, Vault's calls step by step, kills between any two steps, faults of
Vault and of the disk. ``tests.model.world.invariants`` checks each step, and what is left once nothing happens any
more. ``LEASEGATE_MODEL_EXAMPLES`` asks for a longer run, ``LEASEGATE_MODEL_SEED`` for another one than ``make test``
repeats.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from services.access.domain.models import Approval
from services.common.errors import (
    VaultFailedError,
    VaultPolicyMissingError,
    VaultSealedError,
    VaultThrottledError,
    VaultUnavailableError,
)
from services.common.vault.transport import VaultUnreachedError
from tests.fakes.vault_errors import answered
from tests.model.world import invariants
from tests.model.world.jobs import Job
from tests.model.world.ledger import make_template
from tests.model.world.vault import Call
from tests.model.world.world import Replica, World

EXAMPLES = int(os.environ.get("LEASEGATE_MODEL_EXAMPLES", "80"))
STEPS = int(os.environ.get("LEASEGATE_MODEL_STEPS", "40"))
SEED = int(os.environ.get("LEASEGATE_MODEL_SEED", "0"))

some = st.integers(0, 11)
which = st.integers(0, 1)
steps = st.sampled_from((1, 2, 3, 4, 5, 6, 7, 9, 12, 99, 99))
spans = st.sampled_from((0.5, 4.0, 31.0, 95.0, 160.0, 305.0, 1000.0, 1900.0, 3700.0))


@cache
def template() -> Path:
    """A ledger to begin with, made once."""
    folder = Path(tempfile.mkdtemp(prefix="leasegate-model-"))
    atexit.register(shutil.rmtree, folder)
    file = folder / "template.db"
    make_template(file)
    return file


class AccessMachine(RuleBasedStateMachine):
    """Its rules are the events; what a step does is the real code's affair."""

    rising = absent = True

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(
        strict=st.booleans(),
        at_once=st.booleans(),
        in_steps=st.booleans(),
        ttl_s=st.sampled_from((None, None, 7200.0)),
        approved=st.booleans(),
    )
    def begin(self, strict: bool, at_once: bool, in_steps: bool, ttl_s: float | None, approved: bool) -> None:
        self.world = World(
            template(),
            rising=self.rising,
            at_once=at_once,
            in_steps=in_steps,
            ttl_s=ttl_s,
            strict=strict,
            absent=self.absent,
        )
        if approved:
            self.world.decide(Approval.APPROVED)

    @property
    def w(self) -> World:
        assert self.world
        return self.world

    def on(self, number: int) -> Replica:
        return self.w.replicas[number]

    def a_job(self, number: int) -> Job:
        jobs = self.w.jobs()
        return jobs[number % len(jobs)]

    def secret_attempt(self) -> None:
        assert not self.w.broken, self.w.broken

    def advance(self, job: Job, count: int) -> None:
        for _ in range(count):
            if job.over:
                break
            self.w.step(job)
        self.secret_attempt()

    # users

    @precondition(lambda self: not self.w.thing.decisions and not self.w.thing.deleted)
    @rule()
    def approve(self) -> None:
        self.w.decide(Approval.APPROVED)
        self.secret_attempt()

    @precondition(lambda self: not self.w.thing.deleted)
    @rule(number=st.integers(0, 7))
    def deny_or_delete(self, number: int) -> None:
        if number == 0:
            self.w.decide(Approval.DENIED)
        elif number == 1:
            self.w.delete()
        self.secret_attempt()

    @precondition(lambda self: self.w.thing.deleted or len(self.w.thing.decisions) > 1)
    @rule(approved=st.booleans())
    def recreate(self, approved: bool) -> None:
        if not self.w.thing.deleted:
            self.w.delete()
        self.w.recreate()
        if approved:
            self.w.decide(Approval.APPROVED)
        self.secret_attempt()

    @precondition(lambda self: self.w.secrets and not self.w.thing.deleted)
    @rule()
    def rotation_due(self) -> None:
        self.w.rotate()
        self.secret_attempt()

    @precondition(lambda self: self.w.secrets)
    @rule()
    def unsecret(self) -> None:
        self.w.remove_secret()
        self.secret_attempt()

    @rule(times=st.integers(0, 3))
    def change_role(self, times: int) -> None:
        for _ in range(times):
            self.w.change_role()
        self.secret_attempt()

    @rule(replica=which)
    def reassess(self, replica: int) -> None:
        self.w.reassess(self.on(replica))
        self.secret_attempt()

    @precondition(lambda self: self.w.change)
    @rule()
    def put_late(self) -> None:
        self.w.put_late()
        self.secret_attempt()

    @precondition(lambda self: any(self.w.vault.users.values()))
    @rule(number=some)
    def own_something(self, number: int) -> None:
        users = sorted(name for name, can in self.w.vault.users.items() if can)
        self.w.vault.owning.add(users[number % len(users)])

    @precondition(lambda self: any(self.w.vault.users.values()))
    @rule(number=some)
    def fail_statements(self, number: int) -> None:
        users = sorted(name for name, can in self.w.vault.users.items() if can)
        self.w.vault.failing.add(users[number % len(users)])

    # watchers, workers and their steps

    @rule(watcher=which, replica=which, count=steps)
    def watch(self, watcher: int, replica: int, count: int) -> None:
        self.w.watch(watcher, self.on(replica))
        if job := self.w.watchers[watcher].job:
            self.advance(job, count)
        self.secret_attempt()

    @rule(watcher=which, replica=which, count=st.integers(2, 6), late=st.sampled_from((0.0, 0.0, 0.0, 305.0, 3700.0)))
    def watch_on(self, watcher: int, replica: int, count: int, late: float) -> None:
        for number in range(count):
            self.watch(watcher, replica, 99)
            if number == 2 and late:
                self.time_passes(late, True)

    @rule(replica=which, number=some, count=steps)
    def work(self, replica: int, number: int, count: int) -> None:
        if due := self.w.due(self.on(replica)):
            self.advance(self.w.begin_work(self.on(replica), due[number % len(due)]), count)

    @rule(replica=which, number=some, wait=st.booleans())
    def work_on(self, replica: int, number: int, wait: bool) -> None:
        for _ in range(4):
            self.work(replica, number, 99)
            self.w.receive_cleanup_roles()
            self.w.make_cleanup_roles()
            if wait:
                self.w.passes(4.0)

    @precondition(lambda self: self.w.jobs())
    @rule(number=some, count=steps)
    def go_on(self, number: int, count: int) -> None:
        self.advance(self.a_job(number), count)

    @rule(number=some)
    def receive_cleanup_roles(self, number: int) -> None:
        if number % 3 or not self.w.wanted:
            self.w.receive_cleanup_roles()
        if number % 3 != 1:
            self.w.make_cleanup_roles()
        self.secret_attempt()

    # races: somebody does something while a job is under way

    @rule(
        watcher=which,
        replica=which,
        count=st.integers(1, 9),
        events=st.lists(st.integers(0, 15), min_size=1, max_size=3),
    )
    def claim_and_meanwhile(self, watcher: int, replica: int, count: int, events: list[int]) -> None:
        self.w.lose_watcher(watcher)
        self.w.watch(watcher, self.on(replica))
        if job := self.w.watchers[watcher].job:
            self.meanwhile(job, count, events, replica)

    @rule(
        replica=which, number=some, count=st.integers(1, 9), events=st.lists(st.integers(0, 15), min_size=1, max_size=3)
    )
    def work_and_meanwhile(self, replica: int, number: int, count: int, events: list[int]) -> None:
        if due := self.w.due(self.on(replica)):
            self.meanwhile(self.w.begin_work(self.on(replica), due[number % len(due)]), count, events, replica)

    def meanwhile(self, job: Job, count: int, events: list[int], replica: int) -> None:
        self.advance(job, count)
        for event in events:
            MEANWHILE[event](self, replica)
            self.secret_attempt()
        self.advance(job, 2 * count)

    # Vault by itself

    @precondition(lambda self: self.w.vault.orphans())
    @rule(number=some, finish=st.booleans())
    def orphan(self, number: int, finish: bool) -> None:
        found = self.w.vault.orphans()
        call = found[number % len(found)]
        self.w.vault.advance(call) if finish else self.w.vault.break_off(call)
        self.w.look()
        self.secret_attempt()

    @precondition(lambda self: self.w.vault.revoking)
    @rule(number=some)
    def background(self, number: int) -> None:
        found = sorted(self.w.vault.revoking)
        self.w.vault.revoke_in_background(found[number % len(found)])
        self.w.look()
        self.secret_attempt()

    @rule(span=spans, finish=st.booleans())
    def time_passes(self, span: float, finish: bool) -> None:
        self.w.passes(span, finish=finish)
        self.secret_attempt()

    # faults

    @rule(number=which)
    def kill(self, number: int) -> None:
        self.w.restart(number)
        self.secret_attempt()

    @precondition(lambda self: any(not watcher.idle for watcher in self.w.watchers))
    @rule(number=which)
    def lose_watcher(self, number: int) -> None:
        self.w.lose_watcher(number)

    @precondition(lambda self: any(job.call for job in self.w.jobs()))
    @rule(number=some, kind=st.integers(0, 8))
    def fault(self, number: int, kind: int) -> None:
        waiting = [job for job in self.w.jobs() if job.call and not job.call.done and not job.lost]
        if waiting:
            job = waiting[number % len(waiting)]
            assert job.call
            FAULTS[kind](self.w, job, job.call)
            self.w.step(job)
        self.secret_attempt()

    @precondition(lambda self: self.w.vault.calls)
    @rule()
    def vault_crashes(self) -> None:
        for call in list(self.w.vault.calls):
            self.w.vault.break_off(call, VaultUnavailableError("the connection broke off"))

    @rule(number=which)
    def disk(self, number: int) -> None:
        self.on(number).ledger.full = not self.on(number).ledger.full

    @rule(number=some)
    def quiet(self, number: int) -> None:
        if number % 4 == 0:
            invariants.settle(self.w)
        self.secret_attempt()

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if not self.w.broken:
                invariants.settle(self.w)
            self.secret_attempt()
        finally:
            self.w.close()


def _end(machine: AccessMachine, _replica: int) -> None:
    if not machine.w.thing.deleted:
        machine.w.delete()


def _works(machine: AccessMachine, replica: int, *, wait_s: float = 4.0) -> None:
    """The other replica takes all that is due; what a recovery needs is made."""
    machine.w.passes(wait_s)
    for _ in range(3):
        for key in machine.w.due(machine.on(1 - replica)):
            machine.w.run(machine.w.begin_work(machine.on(1 - replica), key))
        machine.w.receive_cleanup_roles()
        machine.w.make_cleanup_roles()


def _suspects(machine: AccessMachine, replica: int, *, count: int) -> None:
    """A worker of the other replica thinks a reader dead, and begins."""
    machine.w.passes(151.0)
    for key in machine.w.due(machine.on(1 - replica))[:1]:
        machine.advance(machine.w.begin_work(machine.on(1 - replica), key), count)


def _claims(machine: AccessMachine, replica: int, *, times: int) -> None:
    """The watcher that does not wait for this job goes on."""
    idle = next((number for number, watcher in enumerate(machine.w.watchers) if not watcher.job), None)
    for _ in range(times if idle is not None else 0):
        machine.watch(idle or 0, 1 - replica, 99)


def _revokes(machine: AccessMachine, _replica: int) -> None:
    for lease_id in sorted(machine.w.vault.revoking):
        machine.w.vault.revoke_in_background(lease_id)
    machine.w.look()


def _dies(machine: AccessMachine, replica: int, *, finish: bool = True) -> None:
    """The replica is killed and its work recovered, before Vault goes on with the read or breaks it off."""
    machine.kill(replica)
    _works(machine, replica)
    for call in machine.w.vault.orphans():
        while not call.done:
            machine.w.vault.advance(call) if finish else machine.w.vault.break_off(call)
    _revokes(machine, replica)


MEANWHILE: tuple[Callable[[AccessMachine, int], None], ...] = (
    _end,
    _end,
    _works,
    lambda machine, replica: _works(machine, replica, wait_s=91.0),
    lambda machine, replica: _suspects(machine, replica, count=1),
    lambda machine, replica: _suspects(machine, replica, count=4),
    lambda machine, replica: _claims(machine, replica, times=1),
    lambda machine, replica: _claims(machine, replica, times=4),
    _revokes,
    _dies,
    lambda machine, replica: _dies(machine, replica, finish=False),
    lambda machine, replica: machine.kill(replica),
    lambda machine, replica: machine.w.rotate() if machine.w.secrets else None,
    lambda machine, _: machine.w.passes(305.0),
    lambda machine, _: machine.lose_watcher(0),
    lambda machine, _: machine.w.change_role(),
)


def _before(error: Exception) -> Callable[[World, Job, Call], None]:
    """Nothing is done; only possible before the work has begun, else the connection is lost."""

    def fail(world: World, job: Job, call: Call) -> None:
        if call.stage == 0:
            world.vault.break_off(call, error)
        else:
            job.lose(VaultUnavailableError("the connection broke off"))

    return fail


def _between(world: World, _job: Job, call: Call) -> None:
    """Vault fails wherever it is."""
    world.vault.break_off(call, VaultFailedError("Vault answered 500"))


def _after(world: World, _job: Job, call: Call) -> None:
    """Vault does all of it and answers 500."""
    while not call.done:
        world.vault.advance(call)
    call.error = call.error or VaultFailedError("Vault answered 500")


def _sealed(world: World, _job: Job, call: Call) -> None:
    """Vault is sealed in the midst of it; of a token's end that leaves half."""
    if call.kind == "end":
        world.vault.break_off_end(call, VaultFailedError("Vault answered 500"))
    else:
        world.vault.break_off(call, VaultSealedError("Vault is sealed"))


def _database_away(world: World, job: Job, call: Call) -> None:
    if call.kind == "revoke":
        world.vault.break_off(call, answered(400, "FATAL: terminating connection (SQLSTATE 57P01)", path=call.path))
    else:
        job.lose(VaultUnavailableError("it did not answer"))


FAULTS: tuple[Callable[[World, Job, Call], Any], ...] = (
    lambda world, job, call: job.lose(VaultUnavailableError("the connection broke off")),
    _before(VaultSealedError("Vault is sealed")),
    _before(VaultThrottledError("Vault answered 429")),
    _before(VaultPolicyMissingError("Vault answered 403")),
    _before(VaultUnreachedError("Vault cannot be connected to")),
    _between,
    _after,
    _database_away,
    _sealed,
)

PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    derandomize=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 300)
def test_no_order_of_events_loses_a_user_or_drops_one_in_use() -> None:
    run_state_machine_as_test(seed(SEED)(AccessMachine), settings=PROFILE)
