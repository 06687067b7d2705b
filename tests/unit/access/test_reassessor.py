"""A db_role with many access requests changes: they are reassessed in steps, and none goes by the former approval."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.access.domain.models import Approval, AttemptState
from services.access.domain.settings import Settings
from services.access.leases.acknowledge import acknowledge
from services.access.leases.issue import LeaseIssuer
from services.access.ledger import attempts, catalog, pruning, reassessments, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import open_ledger
from services.access.requests import reassess
from services.access.requests.catalog import Catalog
from services.access.requests.requests import AccessRequests
from services.access.worker.reassessor import Reassessor
from services.common.errors import ApprovalRequiredError, DbRoleNotReadyError
from tests.eventually import eventually
from tests.unit.access.access_builders import a_decision, a_request, a_role
from tests.unit.access.access_world import World
from tests.unit.access.test_role_pauses import Pausing

OWNER = a_request().owner
COUNT = reassess.MANY + reassess.STEP + 10
LAST = f"uid-{COUNT:03}"


def change(world: World, digest: str = "r2") -> None:
    """A snapshot of the role with other content."""
    assert not Pausing(world).put(digest, 0)


def stored(world: World) -> list[str]:
    """The uids of the access requests that the ledger has as approved."""
    with world.ledger.read() as tx:
        found = requests.of_role(tx, a_role())
    return [request.uid for request in found if request.approved]


def state(world: World, attempt_id: str) -> AttemptState:
    with world.ledger.read() as tx:
        return attempts.get(tx, attempt_id).state


def left(world: World) -> int:
    with world.ledger.read() as tx:
        return reassessments.count(tx)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a full count, however slow the machine is, and turns without a rest."""
    monkeypatch.setattr(reassess, "STEP_S", 60.0)
    monkeypatch.setattr("services.access.worker.reassessor._LONGEST_REST_S", 0.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Approved access requests of one db_role, each with a credential that nobody has acknowledged."""
    made = World(tmp_path / "ledger.db")
    for number in range(1, COUNT + 1):
        made.begin(AttemptState.ISSUED, uid=f"uid-{number:03}")
    yield made
    made.ledger.close()


def test_a_change_takes_a_few_and_the_reassessor_the_others(world: World) -> None:
    issued = world.attempt_of(LAST)
    change(world)
    assert len(stored(world)) == COUNT - reassess.MANY
    reassessor = Reassessor(world.ledger)
    assert reassessor.take_turns()
    assert len(stored(world)) == COUNT - reassess.MANY - reassess.STEP
    assert state(world, issued.id) is AttemptState.ISSUED
    assert reassessor.take_turns()
    assert stored(world) == []
    assert state(world, issued.id) is AttemptState.REVOKING
    assert not reassessor.take_turns()


def test_nobody_goes_by_the_former_approval_before_its_step(world: World) -> None:
    """Not the view, a claim, an acknowledge, the commit of a lease, a renewal nor an operator."""
    in_use, reading = world.attempt_of(LAST), world.attempt_of(f"uid-{COUNT - 1:03}")
    nothing: Any = None
    access = AccessRequests(world.ledger, world.vaults)
    with world.ledger.write() as tx:
        tx.execute(schema.attempts.update().where(schema.attempts.c.id == in_use.id).values(state=AttemptState.ACTIVE))
    change(world)
    assert {LAST, reading.access_request_id} <= set(stored(world))

    view = access.show_request(LAST, owner=OWNER)
    assert (view.request.approval, view.request.outdated) == (Approval.PENDING, True)
    assert view.digest != in_use.grant
    issuer = LeaseIssuer(world.ledger, nothing, settings=Settings())
    with pytest.raises(ApprovalRequiredError):
        issuer.claim_credential(LAST, owner=OWNER, secret_attempt=0)
    with pytest.raises(ApprovalRequiredError):
        acknowledge(world.ledger, reading.access_request_id, owner=OWNER, number=1, settings=Settings())
    with world.ledger.read() as tx:
        active, request = attempts.get(tx, in_use.id), requests.find(tx, LAST)
    assert request
    with pytest.raises(DbRoleNotReadyError, match="not what is granted now"):
        world.renewal.renew_lease(active, request)
    world.work.process_attempt(in_use.id)
    assert world.vault.renewed == []


def test_an_approval_of_what_is_granted_now_counts_before_its_step(world: World) -> None:
    change(world)
    access = AccessRequests(world.ledger, world.vaults)
    with world.ledger.write() as tx:
        requests.decide(tx, LAST, [a_decision(digest=access.show_request(LAST, owner=OWNER).digest)])
    assert access.show_request(LAST, owner=OWNER).request.approved


def test_what_is_left_outlives_the_process(world: World, tmp_path: Path) -> None:
    change(world)
    world.ledger.close()
    world.ledger = open_ledger(tmp_path / "ledger.db", clock=world.clock)
    reassessor = Reassessor(world.ledger)
    while reassessor.take_turns():
        pass
    assert stored(world) == []


def test_a_role_that_changes_all_the_time_reaches_its_last_request(world: World) -> None:
    issued = world.attempt_of(LAST)
    reassessor = Reassessor(world.ledger)
    for number in range(4):
        change(world, f"r{number + 2}")
        reassessor.take_turns()
    assert state(world, issued.id) is AttemptState.REVOKING
    while reassessor.take_turns():
        pass
    change(world, "r1")
    while reassessor.take_turns():
        pass
    assert len(stored(world)) == COUNT  # the approvals were given for that


def test_one_namespace_does_not_wait_for_another(world: World) -> None:
    with world.ledger.write() as tx:
        known = catalog.find_role(tx, "-", "c1", "demo", "psql-role")
        assert known
        other = catalog.put_role(tx, a_role(namespace="other", target=known.target))
        for number in range(reassess.MANY + 1):
            uid = f"other-{number:03}"
            requests.insert(tx, a_request(uid=uid, name=uid, namespace="other", role_namespace="other"))
    change(world)
    with world.ledger.write() as tx:
        reassess.role_changed(tx, other)
    assert left(world) == 2
    reassessor = Reassessor(world.ledger)
    assert reassessor.take_turns()
    assert left(world) == 1


def test_a_defect_of_one_role_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, broken = reassess.reassess, LAST

    def fails(tx: Any, request: Any, *args: Any, **options: Any) -> Any:
        if request.uid == broken:
            raise ValueError("a defect")
        return usual(tx, request, *args, **options)

    monkeypatch.setattr(reassess, "reassess", fails)
    with world.ledger.write() as tx:
        known = catalog.find_role(tx, "-", "c1", "demo", "psql-role")
        assert known
        other = catalog.put_role(tx, a_role(namespace="other", target=known.target))
        for number in range(reassess.MANY + reassess.STEP + 1):
            uid = f"other-{number:03}"
            requests.insert(tx, a_request(uid=uid, name=uid, namespace="other", role_namespace="other"))
    change(world)
    with world.ledger.write() as tx:
        reassess.role_changed(tx, other)
    reassessor = Reassessor(world.ledger)
    while reassessor.take_turns():
        pass
    assert left(world) == 1
    assert LAST in stored(world)


def test_a_role_is_not_pruned_before_its_last_step(world: World) -> None:
    nothing: Any = None
    Catalog(world.ledger, nothing, nothing).drop_role(cluster="-", cluster_uid="c1", namespace="demo", name="psql-role")
    with world.ledger.write() as tx:
        for table in (schema.attempts, schema.decisions, schema.access_requests):
            tx.execute(table.delete())
        assert pruning.deleted_roles(tx, before=tx.now, limit=10) == 0
    assert Reassessor(world.ledger).take_turns()
    with world.ledger.write() as tx:
        assert pruning.deleted_roles(tx, before=tx.now, limit=10) == 1


def test_a_step_ends_in_time_however_slow_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassess, "STEP_S", -1.0)
    change(world)
    assert len(stored(world)) == COUNT - 1


def test_the_thread_goes_on_with_each_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.access.worker.reassessor.SOON_S", 3600.0)
    reassessor = Reassessor(world.ledger)
    reassessor.start()
    try:
        for number in range(3):
            change(world, f"r{number + 2}")
            eventually(lambda: not left(world), timeout_s=60, what="nothing left")
    finally:
        reassessor.stop()
    assert stored(world) == []
