"""What has ended long ago leaves the ledger, a few rows at a time: attempts, requests, roles, calls. Nothing goes that may matter yet."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from services.access import granting
from services.access import pruning as rounds
from services.access.ledger import adoptions, answers, attempts, catalog, figures, pruning, requests, schema
from services.access.ledger.database import Ledger, Tx
from services.access.losses import Losses
from services.access.pruning import Pruning
from services.access.records import Approval, Attempt, Origin, Request, Role, State
from services.access.requests import Desired, Requests
from services.access.rounds import Rounds
from services.common.errors import LedgerUnavailable
from tests.clock import Clock
from tests.eventually import eventually
from tests.unit.access_builders import a_decision, a_request, a_role, a_target

DAY = 86400.0
KEPT = 30 * DAY


def place(tx: Tx) -> Role:
    """A role at a Vault."""
    return catalog.put_role(tx, a_role(target=catalog.put_target(tx, a_target()).id))


def asked(tx: Tx, uid: str, **changes: Any) -> Request:
    request = a_request(uid=uid, name=uid, created_at=tx.now, **changes)
    requests.insert(tx, request)
    requests.decide(tx, uid, [a_decision()])
    return request


def closed(tx: Tx, request: Request, role: Role, *, number: int = 1) -> Attempt:
    """An attempt that began and ended without a login."""
    made = attempts.begin(tx, request=request, role=role, number=number, work_at=None)
    attempts.end(tx, made, to=State.END_TOKEN, why="a test ends it")
    attempts.close(tx, made.id, State.END_TOKEN)
    return made


def desired(request: Request) -> Desired:
    names = ("uid", "cluster", "cluster_uid", "namespace", "name", "generation", "role_namespace", "role_name", "subjects", "ttl_s")
    return Desired(
        **{name: getattr(request, name) for name in names},
        requester=request.requester,
        decisions=(a_decision(),),
        status_digest=request.digest,
    )


def of_kubernetes(ledger: Ledger) -> Requests:
    vaults: Any = SimpleNamespace(own_login=lambda _row: True)
    return Requests(ledger, vaults)


def left(ledger: Ledger, table: sa.Table) -> int:
    with ledger.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_what_ended_long_ago_goes_and_what_ended_lately_stays(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role = place(tx)
        request = asked(tx, "uid-1", origin=Origin.GRPC)
        closed(tx, request, role)
        granting.finish(tx, request, Approval.WITHDRAWN)
    clock.now += KEPT - 1
    with ledger.write() as tx:
        late = asked(tx, "uid-2", origin=Origin.GRPC)
        closed(tx, late, role)
        granting.finish(tx, late, Approval.WITHDRAWN)
    pruning_round = Pruning(ledger, kept_s=KEPT)
    assert pruning_round.prune() == 0
    clock.now += 2
    assert pruning_round.prune() == 2
    with ledger.read() as tx:
        assert (requests.find(tx, "uid-1"), requests.decisions_of(tx, "uid-1")) == (None, [])
        assert requests.find(tx, "uid-2")
    assert left(ledger, schema.attempts) == left(ledger, schema.decisions) == 1


def test_nothing_that_is_open_goes_however_old(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role = place(tx)
        for state in attempts.OPEN:
            request = asked(tx, f"uid-{state}", origin=Origin.GRPC, approval=Approval.WITHDRAWN, gone_at=tx.now)
            made = attempts.begin(tx, request=request, role=role, number=1, work_at=None)
            tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(state=state))
    clock.now += 10 * KEPT
    assert Pruning(ledger, kept_s=KEPT).prune() == 0
    assert left(ledger, schema.attempts) == left(ledger, schema.requests) == len(attempts.OPEN)


def test_an_object_that_is_still_there_is_never_granted_anew(ledger: Ledger, clock: Clock) -> None:
    """Its access is over, its approval still stands in its status: the ledger alone knows that it may have nothing any more."""
    with ledger.write() as tx:
        place(tx)
        request = asked(tx, "uid-1")
        granting.finish(tx, request, Approval.EXPIRED)
    clock.now += 10 * KEPT
    assert Pruning(ledger, kept_s=KEPT).prune() == 0
    found = of_kubernetes(ledger)
    assert found.ensure(desired(request), owner=request.owner).request.approval is Approval.EXPIRED
    found.end(desired(request), owner=request.owner)  # its object is deleted
    clock.now += KEPT + 1
    assert Pruning(ledger, kept_s=KEPT).prune() == 1
    with ledger.read() as tx:
        assert requests.find(tx, "uid-1") is None


def test_the_time_counts_from_the_first_end(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        request = asked(tx, "uid-1")
    found = of_kubernetes(ledger)
    found.end(desired(request), owner=request.owner)
    clock.now += KEPT / 2
    found.end(desired(request), owner=request.owner)
    clock.now += KEPT / 2 + 1
    assert Pruning(ledger, kept_s=KEPT).prune() == 1


def test_a_denial_over_grpc_is_remembered_for_as_long(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        request = asked(tx, "uid-1", origin=Origin.GRPC, role_name="nowhere")
        requests.decide(tx, "uid-1", [a_decision(Approval.DENIED)])
        assert granting.reassess(tx, request, None).approval is Approval.DENIED
    clock.now += KEPT + 1
    assert Pruning(ledger, kept_s=KEPT).prune() == 1


def test_calls_are_answered_the_same_for_as_long_and_heartbeats_for_an_hour(ledger: Ledger, clock: Clock) -> None:
    create = {"caller": "alice", "method": "CreateRequest", "request_id": "r1", "content": "c"}
    renew = create | {"method": "RenewLease"}
    with ledger.write() as tx:
        answers.keep(tx, **create, subject="uid-1")
        answers.keep(tx, **renew, subject="uid-1")
    clock.now += pruning.HEARTBEATS_KEPT_S - 1
    Pruning(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.earlier(tx, **renew) == "uid-1"
    clock.now += 2
    Pruning(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.earlier(tx, **renew) is None
        assert answers.earlier(tx, **create) == "uid-1"
    clock.now += KEPT
    Pruning(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.earlier(tx, **create) is None


def test_what_was_undone_stays_counted(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role, request = place(tx), asked(tx, "uid-1")
        for number in (1, 2):
            made = closed(tx, request, role, number=number)
            done = schema.adoptions.insert().values(
                attempt=made.id, adopter="a", accessor="", second=True, lease_id="l", done_at=tx.now + 20 * DAY * (number - 1)
            )
            tx.execute(done)
            tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(closed_at=tx.now + 20 * DAY * (number - 1)))
    for days, kept_rows in ((31, 1), (31, 0)):
        clock.now += days * DAY
        Pruning(ledger, kept_s=KEPT).prune()
        assert left(ledger, schema.adoptions) == kept_rows
        with ledger.read() as tx:
            assert figures.undone(tx) == 2
            assert adoptions.wanted(tx) == []


def test_a_role_that_is_gone_goes_with_the_last_request_that_names_it(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role = place(tx)
        catalog.drop_role(tx, role)
        request = asked(tx, "uid-1", origin=Origin.GRPC)
    Pruning(ledger, kept_s=KEPT).prune()
    assert left(ledger, schema.roles) == 1
    with ledger.write() as tx:
        granting.finish(tx, request, Approval.WITHDRAWN)
    clock.now += KEPT + 1
    Pruning(ledger, kept_s=KEPT).prune()
    assert (left(ledger, schema.roles), left(ledger, schema.targets)) == (0, 1)


def test_a_role_of_the_catalogue_stays(ledger: Ledger) -> None:
    with ledger.write() as tx:
        place(tx)
    assert Pruning(ledger, kept_s=KEPT).prune() == 0
    assert left(ledger, schema.roles) == 1


def test_many_go_in_batches_between_which_others_write(ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "BATCH", 10)
    with ledger.write() as tx:
        role, request = place(tx), asked(tx, "uid-1")
        for number in range(1, 36):
            closed(tx, request, role, number=number)
    clock.now += KEPT + 1
    commits: list[int] = []
    ledger.listeners.append(lambda _tx: commits.append(left(ledger, schema.attempts)))
    assert Pruning(ledger, kept_s=KEPT).prune(stopping=lambda: len(commits) > 3) == 30
    assert [number for number in commits if number < 35] == [25, 15, 5]
    assert Pruning(ledger, kept_s=KEPT).prune() == 5


def test_nothing_is_held_of_a_request_that_is_gone(ledger: Ledger) -> None:
    """Else `leasegate ledger status` spoke for ever of a request whose Secret nobody can look at any more."""
    with ledger.write() as tx:
        request = asked(tx, "uid-1")
    vaults: Any = SimpleNamespace(own_login=lambda _row: True)
    losses = Losses(ledger)
    found = Requests(ledger, vaults, losses=losses)
    found.ensure(desired(request), owner=request.owner, held=7)
    assert losses.held_requests == 1
    found.end(desired(request), owner=request.owner)
    assert losses.held_requests == 0


def test_rounds_go_on_after_one_that_failed() -> None:
    seen: list[bool] = []
    enough = threading.Event()

    def work(stopping: Any) -> None:
        seen.append(stopping())
        if len(seen) == 3:
            enough.set()
        raise LedgerUnavailable("full") if len(seen) == 1 else ValueError("a defect")

    made = Rounds("pruning", work, every_s=0.001)
    made.start()
    eventually(enough.is_set)
    made.stop()
    assert not any(seen[:3])
