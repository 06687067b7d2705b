"""Pruning: what ended longer ago than the retention leaves the ledger a few rows at a time, and nothing else does."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from services.access.domain.models import AccessRequest, Approval, Attempt, AttemptState, DbRole, Origin
from services.access.ledger import answers, attempts, catalog, counts, pruning, recoveries, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.requests import reassess
from services.access.requests.requests import AccessRequests, DesiredAccess
from services.access.worker import prune as rounds
from services.access.worker.periodic import PeriodicTask
from services.access.worker.prune import LedgerPruner
from services.common.errors import LedgerUnavailableError
from tests.clock import Clock
from tests.eventually import eventually
from tests.unit.access.access_builders import a_decision, a_request, a_role, a_target

DAY = 86400.0
KEPT = 30 * DAY


def place(tx: Tx) -> DbRole:
    """A role at a Vault."""
    return catalog.put_role(tx, a_role(target=catalog.put_target(tx, a_target()).id))


def asked(tx: Tx, uid: str, **changes: Any) -> AccessRequest:
    request = a_request(uid=uid, name=uid, created_at=tx.now, **changes)
    requests.insert(tx, request)
    requests.decide(tx, uid, [a_decision()])
    return request


def closed(tx: Tx, request: AccessRequest, role: DbRole, *, number: int = 1) -> Attempt:
    """An attempt that began and ended without a database user."""
    made = attempts.begin(tx, request=request, role=role, sequence=number, due_at=None)
    attempts.revoke(tx, made, to=AttemptState.REVOKING_TOKEN, end_reason="a test ends it")
    attempts.close(tx, made.id, AttemptState.REVOKING_TOKEN)
    return made


def desired(request: AccessRequest) -> DesiredAccess:
    names = (
        "uid",
        "cluster",
        "cluster_uid",
        "namespace",
        "name",
        "generation",
        "role_namespace",
        "role_name",
        "subjects",
        "ttl_s",
    )
    return DesiredAccess(
        **{name: getattr(request, name) for name in names},
        requester=request.requester,
        decisions=(a_decision(),),
        status_digest=request.digest,
    )


def of_kubernetes(ledger: Ledger) -> AccessRequests:
    vaults: Any = SimpleNamespace(service_auth=lambda _row: True)
    return AccessRequests(ledger, vaults)


def left(ledger: Ledger, table: sa.Table) -> int:
    with ledger.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_what_ended_long_ago_goes_and_what_ended_lately_stays(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role = place(tx)
        request = asked(tx, "uid-1", origin=Origin.GRPC)
        closed(tx, request, role)
        reassess.end_access(tx, request, Approval.WITHDRAWN)
    clock.now += KEPT - 1
    with ledger.write() as tx:
        late = asked(tx, "uid-2", origin=Origin.GRPC)
        closed(tx, late, role)
        reassess.end_access(tx, late, Approval.WITHDRAWN)
    pruning_round = LedgerPruner(ledger, kept_s=KEPT)
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
            request = asked(tx, f"uid-{state}", origin=Origin.GRPC, approval=Approval.WITHDRAWN, deleted_at=tx.now)
            made = attempts.begin(tx, request=request, role=role, sequence=1, due_at=None)
            tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(state=state))
    clock.now += 10 * KEPT
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 0
    assert left(ledger, schema.attempts) == left(ledger, schema.access_requests) == len(attempts.OPEN)


def test_an_object_that_still_exists_is_never_granted_again(ledger: Ledger, clock: Clock) -> None:
    """Its access has ended while its status still has the approval: the ledger alone knows that nothing is granted."""
    with ledger.write() as tx:
        place(tx)
        request = asked(tx, "uid-1")
        reassess.end_access(tx, request, Approval.EXPIRED)
    clock.now += 10 * KEPT
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 0
    found = of_kubernetes(ledger)
    view = found.view_unchanged(desired(request), owner=request.owner, secret_attempt=0)
    assert view
    assert view.request.approval is Approval.EXPIRED
    found.delete_request(desired(request), owner=request.owner)  # its object is deleted
    clock.now += KEPT + 1
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 1
    with ledger.read() as tx:
        assert requests.find(tx, "uid-1") is None


def test_the_time_counts_from_the_first_end(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        request = asked(tx, "uid-1")
    found = of_kubernetes(ledger)
    found.delete_request(desired(request), owner=request.owner)
    clock.now += KEPT / 2
    found.delete_request(desired(request), owner=request.owner)
    clock.now += KEPT / 2 + 1
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 1


def test_a_denial_over_grpc_is_remembered_for_as_long(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        request = asked(tx, "uid-1", origin=Origin.GRPC, role_name="nowhere")
        requests.decide(tx, "uid-1", [a_decision(Approval.DENIED)])
        assert reassess.reassess(tx, request, None).approval is Approval.DENIED
    clock.now += KEPT + 1
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 1


def test_calls_are_remembered_for_the_retention_heartbeats_for_an_hour(ledger: Ledger, clock: Clock) -> None:
    create = {"caller": "alice", "method": "CreateAccessRequest", "request_id": "r1", "content": "c"}
    renew = create | {"method": "RenewLease"}
    with ledger.write() as tx:
        answers.remember(tx, **create, subject="uid-1")
        answers.remember(tx, **renew, subject="uid-1")
    clock.now += pruning.HEARTBEATS_KEPT_S - 1
    LedgerPruner(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.find_earlier(tx, **renew) == "uid-1"
    clock.now += 2
    LedgerPruner(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.find_earlier(tx, **renew) is None
        assert answers.find_earlier(tx, **create) == "uid-1"
    clock.now += KEPT
    LedgerPruner(ledger, kept_s=KEPT).prune()
    with ledger.read() as tx:
        assert answers.find_earlier(tx, **create) is None


def test_recovered_attempts_stay_counted(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role, request = place(tx), asked(tx, "uid-1")
        for number in (1, 2):
            made = closed(tx, request, role, number=number)
            done = schema.recoveries.insert().values(
                attempt=made.id,
                cleanup_role="a",
                accessor="",
                second=True,
                lease_id="l",
                done_at=tx.now + 20 * DAY * (number - 1),
            )
            tx.execute(done)
            tx.execute(
                schema.attempts.update()
                .where(schema.attempts.c.id == made.id)
                .values(closed_at=tx.now + 20 * DAY * (number - 1))
            )
    for days, kept_rows in ((31, 1), (31, 0)):
        clock.now += days * DAY
        LedgerPruner(ledger, kept_s=KEPT).prune()
        assert left(ledger, schema.recoveries) == kept_rows
        with ledger.read() as tx:
            assert counts.recovered(tx) == 2
            assert recoveries.pending(tx) == []


def test_a_deleted_role_is_pruned_with_its_last_access_request(ledger: Ledger, clock: Clock) -> None:
    with ledger.write() as tx:
        role = place(tx)
        catalog.drop_role(tx, role)
        request = asked(tx, "uid-1", origin=Origin.GRPC)
    LedgerPruner(ledger, kept_s=KEPT).prune()
    assert left(ledger, schema.db_roles) == 1
    with ledger.write() as tx:
        reassess.end_access(tx, request, Approval.WITHDRAWN)
    clock.now += KEPT + 1
    LedgerPruner(ledger, kept_s=KEPT).prune()
    assert (left(ledger, schema.db_roles), left(ledger, schema.vault_targets)) == (0, 0)


def test_a_role_of_the_catalog_stays(ledger: Ledger) -> None:
    with ledger.write() as tx:
        place(tx)
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 0
    assert left(ledger, schema.db_roles) == 1


def test_many_go_in_batches_between_which_others_write(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "BATCH", 10)
    with ledger.write() as tx:
        role, request = place(tx), asked(tx, "uid-1")
        for number in range(1, 36):
            closed(tx, request, role, number=number)
    clock.now += KEPT + 1
    commits: list[int] = []
    ledger.listeners.append(lambda _tx: commits.append(left(ledger, schema.attempts)))
    assert LedgerPruner(ledger, kept_s=KEPT).prune(stopping=lambda: len(commits) > 3) == 30
    assert [number for number in commits if number < 35] == [25, 15, 5]
    assert LedgerPruner(ledger, kept_s=KEPT).prune() == 5


def test_a_deleted_access_request_pauses_nothing(ledger: Ledger) -> None:
    """Else `leasegate ledger status` spoke for ever of a request whose Secret nobody can look at any more."""
    with ledger.write() as tx:
        request = asked(tx, "uid-1")
    vaults: Any = SimpleNamespace(service_auth=lambda _row: True)
    guard = LedgerGuard(ledger)
    found = AccessRequests(ledger, vaults, guard=guard)
    with ledger.write() as tx:
        found.take_in(tx, desired(request), owner=request.owner, secret_attempt=7)
    assert guard.paused_access_requests == 1
    found.delete_request(desired(request), owner=request.owner)
    assert guard.paused_access_requests == 0


def test_rounds_go_on_after_one_that_failed() -> None:
    seen: list[bool] = []
    enough = threading.Event()

    def work(stopping: Any) -> None:
        seen.append(stopping())
        if len(seen) == 3:
            enough.set()
        raise LedgerUnavailableError("full") if len(seen) == 1 else ValueError("a defect")

    made = PeriodicTask("pruning", work, every_s=0.001)
    made.start()
    eventually(enough.is_set)
    made.stop()
    assert not any(seen[:3])
