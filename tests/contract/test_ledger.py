"""The ledger is durable, owned by one process and refused when it cannot be trusted; transitions are conditional."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from services.access.domain import approval as approving
from services.access.domain import attempt_states as rules
from services.access.domain.attempt_states import ENDING
from services.access.domain.models import (
    AccessRequest,
    Approval,
    Attempt,
    AttemptState,
    CleanupRoleState,
    DbRole,
    DropBy,
    IssuancePause,
    Priority,
    VaultTargetRow,
)
from services.access.ledger import answers, attempts, catalog, due_work, pauses, pruning, recoveries, requests
from services.access.ledger.db import migrate, schema
from services.access.ledger.db.database import Ledger, Tx, open_ledger
from services.access.requests import reassess
from services.common import logs
from services.common.config import StartupRefusedError
from services.common.errors import LedgerUnavailableError, RequestIdReusedError
from tests.clock import Clock
from tests.unit.access.access_builders import DIGEST, a_decision, a_request, a_role

S = AttemptState


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path / "ledger.db", clock=clock)
    yield opened
    opened.close()


def target(**changes: str) -> VaultTargetRow:
    usual: dict[str, Any] = {
        "cluster": "-",
        "namespace": "demo",
        "name": "vault",
        "key_digest": "d",
        "address": "https://v:1",
        "vault": "https://v:1",
    }
    return VaultTargetRow(
        id=0,
        vault_namespace="",
        ca_bundle=b"",
        insecure_skip_tls_verify=False,
        server_name="",
        **{**usual, **changes},
    )


def seed(tx: Tx, *, approval: Approval = Approval.APPROVED) -> tuple[AccessRequest, DbRole]:
    """A target, a role and a request for it."""
    place = catalog.put_target(tx, target())
    role = catalog.put_role(tx, a_role(target=place.id))
    request = a_request(approval=approval, created_at=tx.now)
    requests.insert(tx, request)
    return request, role


def begun(tx: Tx, *, number: int = 1) -> Attempt:
    request, role = requests.find(tx, "uid-1"), catalog.find_role(tx, "-", "c1", "demo", "psql-role")
    if request is None or role is None:
        request, role = seed(tx)
    return attempts.begin(tx, request=request, role=role, sequence=number, due_at=None)


def in_state(tx: Tx, state: AttemptState) -> Attempt:
    """An attempt that was put into a state without asking whether a transition leads there."""
    made = begun(tx)
    lease = (
        {"lease_id": "m/creds/r/x", "ends_at": tx.now + 60, "lease_ttl_s": 60.0}
        if state not in (S.PENDING, S.TOKEN_READY, S.ISSUING)
        else {}
    )
    accessor = "" if state is S.PENDING else "acc"
    tx.execute(
        schema.attempts.update().where(schema.attempts.c.id == made.id).values(state=state, accessor=accessor, **lease)
    )
    return attempts.get(tx, made.id)


TRANSITIONS: dict[str, tuple[Callable[[Tx, Attempt], object], set[AttemptState]]] = {
    "accessor": (
        lambda tx, a: attempts.commit_accessor(tx, a.id, accessor="new", token_ends_at=9e9),
        {S.PENDING, S.TOKEN_READY},
    ),
    "issuing": (lambda tx, a: attempts.commit_issuing(tx, a.id, accessor="acc"), {S.TOKEN_READY}),
    "issuing with a token of its own": (
        lambda tx, a: attempts.commit_issuing(tx, a.id, accessor="new", replacing=True),
        {S.PENDING, S.TOKEN_READY},
    ),
    "lease": (
        lambda tx, a: attempts.commit_lease(
            tx, a.id, lease_id="l", ttl_s=60.0, renewable=True, ends_at=tx.now + 60, max_ends_at=None, issued_at=tx.now
        ),
        {S.ISSUING},
    ),
    "acknowledge": (lambda tx, a: attempts.activate(tx, a, due_at=9e9), {S.ISSUED}),
    "retire": (lambda tx, a: attempts.retire(tx, a, overlap_ends_at=9e9, due_at=9e9), {S.ACTIVE, S.REPLACED}),
    "replace": (lambda tx, a: attempts.replace(tx, a), {S.ISSUED}),
    "begin recovery": (lambda tx, a: attempts.begin_recovery(tx, a, drop_by=DropBy.TEAM), {S.ISSUING, S.REVOKING}),
    "close what never issued": (lambda tx, a: attempts.close(tx, a.id, S.REVOKING_TOKEN), {S.REVOKING_TOKEN}),
    "close a revocation": (lambda tx, a: attempts.close(tx, a.id, S.REVOKING), {S.REVOKING}),
    "close a recovery": (lambda tx, a: attempts.close(tx, a.id, S.RECOVERING), {S.RECOVERING}),
    "renew": (
        lambda tx, a: attempts.commit_renewal(tx, replace(a, lease_ttl_s=60.0, ends_at=9e9, max_ends_at=None)),
        {S.ACTIVE},
    ),
    "recovery": (
        lambda tx, a: recoveries.commit(tx, a.id, cleanup_role="x", accessor="y", after=None) is not None,
        {S.RECOVERING},
    ),
}


@pytest.mark.parametrize("state", list(AttemptState))
@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_leaves_only_the_states_of_the_protocol(ledger: Ledger, name: str, state: AttemptState) -> None:
    step, accepted = TRANSITIONS[name]
    with ledger.write() as tx:
        assert bool(step(tx, in_state(tx, state))) is (state in accepted)


@pytest.mark.parametrize("state", list(AttemptState))
def test_closing_an_access_request_revokes_its_attempts_in_one_commit(ledger: Ledger, state: AttemptState) -> None:
    with ledger.write() as tx:
        made = in_state(tx, state)
        request = requests.find(tx, made.access_request_id)
        assert request is not None
        reassess.end_access(tx, request, Approval.WITHDRAWN)
        assert attempts.get(tx, made.id).state is ENDING.get(state, state)


def test_no_function_moves_an_attempt_where_no_rule_leads(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no rule"), ledger.write() as tx:
        attempts.close(tx, begun(tx).id, S.ACTIVE)


def test_issuing_is_refused_with_another_accessor_than_the_stored_one(ledger: Ledger) -> None:
    with ledger.write() as tx:
        made = in_state(tx, S.TOKEN_READY)
        attempts.commit_accessor(tx, made.id, accessor="somebody else's", token_ends_at=9e9)
        assert not attempts.commit_issuing(tx, made.id, accessor="acc")


def test_a_running_issuance_gets_a_grace_before_it_is_recovered(ledger: Ledger) -> None:
    with ledger.write() as tx:
        made = in_state(tx, S.ISSUING)
        attempts.revoke(tx, made, to=S.REVOKING, end_reason="a test ends it")
        assert attempts.get(tx, made.id).due_at == tx.now + attempts.ISSUING_GRACE_S


def test_an_issuance_interrupted_by_a_restart_gets_the_same_grace(ledger: Ledger) -> None:
    """A lease that Vault registers after the token was revoked would stay in its list until its TTL."""
    with ledger.write() as tx:
        made = in_state(tx, S.ISSUING)
        assert attempts.schedule_interrupted(tx) == 1
        assert attempts.get(tx, made.id).due_at == tx.now + attempts.ISSUING_GRACE_S


def test_an_older_recovery_neither_goes_on_nor_closes(ledger: Ledger) -> None:
    with ledger.write() as tx:
        made = in_state(tx, S.RECOVERING)
        first = recoveries.commit(tx, made.id, cleanup_role="x", accessor="1", after=None)
        newer = recoveries.commit(tx, made.id, cleanup_role="x", accessor="2", after=None)
        assert first is not None
        assert newer is not None
        assert newer.sequence > first.sequence
        assert recoveries.commit(tx, made.id, cleanup_role="x", accessor="3", after=first.sequence) is None
        assert recoveries.newest(tx, made.id) == newer.sequence


def test_a_cleanup_role_is_required_once_and_becomes_unneeded(ledger: Ledger) -> None:
    with ledger.write() as tx:
        one = in_state(tx, S.RECOVERING)
        cleanup_role = recoveries.require(tx, one, drop_by=DropBy.TEAM)
        assert tx.cleanup_roles == {(cleanup_role.name, one.target)}
    with ledger.write() as tx:
        assert recoveries.require(tx, one, drop_by=DropBy.TEAM).state is CleanupRoleState.NEEDED
        assert not tx.cleanup_roles
        recoveries.report(tx, cleanup_role, error="")
        assert recoveries.require(tx, one, drop_by=DropBy.TEAM).state is CleanupRoleState.READY
        attempts.close(tx, one.id, S.RECOVERING)
        recoveries.release(tx, one)
        assert [each.state for each in recoveries.pending(tx)] == [CleanupRoleState.UNNEEDED]
        recoveries.delete_unneeded(tx, cleanup_role.name, one.target)
        assert not recoveries.pending(tx)


def test_what_was_committed_outlives_the_process_and_nothing_else_does(tmp_path: Path, clock: Clock) -> None:
    opened = open_ledger(tmp_path / "l.db", clock=clock)
    with opened.write() as tx:
        seed(tx)
        requests.decide(tx, "uid-1", [a_decision()])
    with pytest.raises(RuntimeError, match="half-way"):
        _broken_off(opened)
    name = opened.id
    opened.close()
    again = open_ledger(tmp_path / "l.db", clock=clock)
    with again.read() as tx:
        found = requests.find(tx, "uid-1")
        assert found == a_request(created_at=1000.0)
        assert requests.decisions_of(tx, "uid-1") == [a_decision()]
    assert again.id == name
    again.close()


def test_commits_are_durable(ledger: Ledger) -> None:
    with ledger.read() as tx:
        pragma = {
            name: tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_listeners_are_called_after_commits_alone(ledger: Ledger) -> None:
    called: list[set[str]] = []
    ledger.listeners.append(lambda tx: called.append(set(tx.changed)))
    with ledger.write() as tx:
        seed(tx)
    with pytest.raises(RuntimeError, match="half-way"):
        _broken_off(ledger)
    assert called == [{"uid-1"}]


def test_writers_take_turns_and_readers_do_not_wait(ledger: Ledger) -> None:
    with ledger.write() as tx:
        seed(tx)
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with ledger.write() as tx:
            requests.update_silently(tx, "uid-1", last_sequence=1)
            entered.set()
            go_on.wait(10)

    def quick() -> None:
        with ledger.write() as tx:
            found = requests.find(tx, "uid-1")
            assert found is not None
            requests.update_silently(tx, "uid-1", last_sequence=found.last_sequence + 1)

    writers = [threading.Thread(target=slow), threading.Thread(target=quick)]
    writers[0].start()
    assert entered.wait(10)
    writers[1].start()
    with ledger.read() as tx:
        assert requests.find(tx, "uid-1") == a_request(created_at=1000.0)  # as before the writer began
    go_on.set()
    for each in writers:
        each.join(10)
    with ledger.read() as tx:
        found = requests.find(tx, "uid-1")
    assert found is not None
    assert found.last_sequence == 2


def test_a_second_owner_is_refused(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    assert ledger.id
    with pytest.raises(StartupRefusedError, match="only one may"):
        open_ledger(tmp_path / "ledger.db", clock=clock)


def test_a_ledger_is_free_again_after_a_refused_start(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "l.db").write_bytes(
        b"this is no database, but it is long enough to look like a file with something in it" * 20
    )
    for _ in range(2):
        with pytest.raises(StartupRefusedError, match="cannot be opened"):
            open_ledger(tmp_path / "l.db", clock=clock)
    assert (tmp_path / "l.db").read_bytes().startswith(b"this is no database")  # it is not replaced


def test_a_damaged_ledger_is_refused(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "l.db"
    opened = open_ledger(path, clock=clock)
    _begin_many(opened, 200)
    opened.close()
    raw = bytearray(path.read_bytes())
    for page in range(8, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(raw)
    with pytest.raises(StartupRefusedError, match=r"corrupt|cannot be opened"):
        open_ledger(path, clock=clock)


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path, clock: Clock) -> None:
    open_ledger(tmp_path / "l.db", clock=clock).close()
    with sqlite3.connect(tmp_path / "l.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StartupRefusedError, match="newer version"):
        open_ledger(tmp_path / "l.db", clock=clock)


def test_a_missing_folder_is_named(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(StartupRefusedError, match="cannot be written"):
        open_ledger(tmp_path / "nowhere" / "l.db", clock=clock)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o606, 0o777])
def test_a_wide_mode_of_a_ledgers_files_is_narrowed(tmp_path: Path, clock: Clock, mode: int) -> None:
    """L: as a copy, an older umask or a restored backup leaves it; what SQLite keeps beside the ledger, too."""
    path = tmp_path / "l.db"
    opened = open_ledger(path, clock=clock)
    copied = {suffix: (tmp_path / f"l.db{suffix}").read_bytes() for suffix in ("", "-wal", "-shm", ".lock")}
    opened.close()
    for suffix, content in copied.items():  # as a killed process leaves them
        (tmp_path / f"l.db{suffix}").write_bytes(content)
        (tmp_path / f"l.db{suffix}").chmod(mode)
    opened = open_ledger(path, clock=clock)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {
        f"l.db{suffix}": 0o600 for suffix in copied
    }
    opened.close()


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock"])
def test_a_hard_link_does_not_pass_for_another_ledger(tmp_path: Path, clock: Clock, suffix: str) -> None:
    """L: each name would have a lock of its own; of a lock's other name the content would be lost."""
    first, other = tmp_path / "l.db", tmp_path / "other.db"
    opened = open_ledger(first, clock=clock)
    tmp_path.joinpath(f"other.db{suffix}").hardlink_to(tmp_path / f"l.db{suffix}")
    with pytest.raises(StartupRefusedError, match=r"has 2 names \(hard links\).*remove the others"):
        open_ledger(other, clock=clock)
    opened.close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", ".lock"])
def test_a_symbolic_link_beside_a_ledger_is_refused(tmp_path: Path, clock: Clock, suffix: str) -> None:
    """L: what it leads to would be emptied or written. A ledger by another name is that ledger, with its lock."""
    victim = tmp_path / "victim"
    victim.write_text("of somebody else")
    victim.chmod(0o644)
    (tmp_path / f"l.db{suffix}").symlink_to(victim)
    with pytest.raises(StartupRefusedError, match="is a symbolic link: name the file that it leads to"):
        open_ledger(tmp_path / "l.db", clock=clock)
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("of somebody else", 0o644)


def test_what_is_no_file_is_no_ledger(tmp_path: Path, clock: Clock) -> None:
    os.mkfifo(tmp_path / "l.db")
    with pytest.raises(StartupRefusedError, match="is no regular file"):
        open_ledger(tmp_path / "l.db", clock=clock)


@pytest.mark.parametrize(("mode", "warned"), [(0o777, True), (0o1777, False), (0o2775, False), (0o700, False)])
def test_a_folder_that_everybody_may_write_is_named(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str], mode: int, warned: bool
) -> None:
    """L: a warning, as some volumes of a cluster come so."""
    logs.configure("info", process="access")
    tmp_path.chmod(mode)
    open_ledger(tmp_path / "l.db", clock=clock).close()
    assert ("everybody may replace the ledger" in capsys.readouterr().err) is warned


def test_a_full_disk_commits_nothing_and_is_named(ledger: Ledger) -> None:
    with ledger.write() as tx:
        seed(tx)
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LedgerUnavailableError, match="full"):
        _begin_many(ledger, 500)
    with ledger.read() as tx:
        assert attempts.open_of(tx, "uid-1") == []


def tables_of(path: Path) -> dict[str, object]:
    """All that SQLite says of a ledger's tables."""
    pragmas = ("table_info", "foreign_key_list", "index_list", "index_info")
    with sqlite3.connect(path) as raw:
        found = raw.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        names = {name: kind for kind, name, _ in found}
        described: dict[str, object] = {
            f"{pragma} {name}": sorted(raw.execute(f"PRAGMA {pragma}('{name}')"))
            for name in names
            for pragma in pragmas
            if pragma != "index_list"
        }
        described |= {
            f"indexes of {name}": sorted((index[1], index[2]) for index in raw.execute(f"PRAGMA index_list('{name}')"))
            for name in names
        }
        counting = sorted(name for _, name, sql in found if sql and "AUTOINCREMENT" in sql)
        version = raw.execute("SELECT version_num FROM alembic_version").fetchall()
    raw.close()
    return {**described, "names": names, "counting": counting, "version": version}


def test_a_new_ledger_has_the_tables_that_the_migrations_make(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.id
    migrated = sa.create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with migrated.connect() as connection:
        command.upgrade(migrate.config(connection), "head")
        connection.commit()
    migrated.dispose()
    assert migrate.revisions()[-1] == schema.VERSION
    assert tables_of(tmp_path / "ledger.db") == tables_of(tmp_path / "migrated.db")


def test_the_tables_are_those_that_the_code_expects(ledger: Ledger) -> None:
    with ledger.read() as tx:
        context = MigrationContext.configure(tx.connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_a_request_id_acts_once_for_each_caller_and_method(ledger: Ledger) -> None:
    call = {"caller": "alice", "method": "Create", "request_id": "r1"}
    with ledger.write() as tx:
        assert answers.find_earlier(tx, **call, content="c") is None
        answers.remember(tx, **call, content="c", subject="uid-1")
        assert answers.find_earlier(tx, **call, content="c") == "uid-1"
        assert answers.find_earlier(tx, **{**call, "caller": "bob"}, content="other") is None
        with pytest.raises(RequestIdReusedError):
            answers.find_earlier(tx, **call, content="other")


def test_old_answers_are_forgotten(ledger: Ledger, clock: Clock) -> None:
    call = {"caller": "alice", "method": "Create", "request_id": "r1", "content": "c"}
    with ledger.write() as tx:
        answers.remember(tx, **call, subject="uid-1")
    with ledger.write() as tx:
        pruning.old_answers(tx, before=clock.now, limit=10)
        assert answers.find_earlier(tx, **call)
        pruning.old_answers(tx, before=clock.now + 1, limit=10)
        assert answers.find_earlier(tx, **call) is None


def _broken_off(ledger: Ledger) -> None:
    with ledger.write() as tx:
        requests.update(tx, a_request(), last_sequence=7)
        raise RuntimeError("half-way")


def _begin_many(ledger: Ledger, count: int) -> None:
    with ledger.write() as tx:
        for number in range(count):
            begun(tx, number=number + 1)


def due_at(tx: Tx, number: int, lane: Priority, *, due_at: float, ends_at: float = 9e9) -> str:
    made = begun(tx, number=number)
    change = {"priority": lane, "due_at": due_at, "ends_at": ends_at, "lease_ttl_s": 3600.0}
    tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(**change))
    return made.id


def test_the_most_urgent_work_comes_first_and_none_before_its_time(ledger: Ledger) -> None:
    with ledger.write() as tx:
        renew = due_at(tx, 2, Priority.RENEW, due_at=2.0)
        issue = due_at(tx, 3, Priority.ISSUE, due_at=3.0)
        revoke = due_at(tx, 4, Priority.REVOKE, due_at=4.0)
        due_at(tx, 5, Priority.REVOKE, due_at=tx.now + 1)
        busy: set[str] = set()
        order = []
        while job := due_work.next_job(tx, busy=busy, renews=True):
            order.append(job.attempt)
            busy.add(job.attempt)
        assert order == [revoke, issue, renew]
        assert due_work.next_due_at(tx) == tx.now + 1
        assert due_work.next_job(tx, busy={revoke, issue}, renews=False) is None


def test_a_renewal_with_little_time_left_goes_before_all(ledger: Ledger) -> None:
    with ledger.write() as tx:
        due_at(tx, 1, Priority.REVOKE, due_at=1.0)
        late = due_at(tx, 2, Priority.RENEW, due_at=2.0, ends_at=tx.now + 800)
        job = due_work.next_job(tx, busy=set(), renews=True)
        assert job is not None
        assert job.attempt == late


def test_a_request_whose_time_is_over_is_work(ledger: Ledger) -> None:
    with ledger.write() as tx:
        seed(tx)
        requests.update_silently(tx, "uid-1", ends_at=5.0, due_at=5.0)
        assert due_work.next_job(tx, busy=set(), renews=False) == due_work.Job("", "uid-1")
        reassess.expire(tx, "uid-1")
        found = requests.find(tx, "uid-1")
        assert found is not None
        assert (found.approval, found.due_at) == (Approval.EXPIRED, None)


def test_a_place_is_one_place_by_whatever_name(ledger: Ledger) -> None:
    place = IssuancePause(vault="https://v:1", vault_namespace="", mount="my-postgres-se", connection="")
    with ledger.write() as tx:
        _, role = seed(tx)
        elsewhere = catalog.put_role(
            tx, a_role(name="other", target=catalog.put_target(tx, target(name="vault2", key_digest="e")).id)
        )
        assert not pauses.covers(tx, role)
        assert pauses.add(tx, place)
        assert not pauses.add(tx, place)
        assert pauses.covers(tx, role)
        assert pauses.covers(tx, elsewhere)
        pauses.remove(tx, place)
        pauses.add(
            tx, IssuancePause(vault="https://v:1", vault_namespace="", mount="my-postgres-se", connection="another")
        )
        assert not pauses.covers(tx, role)


def test_a_token_is_made_beforehand_only_while_pending(ledger: Ledger) -> None:
    with ledger.write() as tx:
        request, role = seed(tx, approval=Approval.PENDING)
        reassess.reassess(tx, request, role)
        (made,) = attempts.open_of(tx, "uid-1")
        assert (made.state, made.sequence, made.due_at) == (S.PENDING, 1, tx.now)
        requests.decide(tx, "uid-1", [a_decision(digest=made.grant)])
        approved = reassess.reassess(tx, requests.find(tx, "uid-1") or request, role)
        assert approved.approved
        assert [each.id for each in attempts.open_of(tx, "uid-1")] == [made.id]


def test_a_decision_on_another_digest_leaves_the_request_pending(ledger: Ledger) -> None:
    with ledger.write() as tx:
        request, role = seed(tx, approval=Approval.PENDING)
        digest = approving.digest_of(request, role)
        assert digest != DIGEST
        requests.decide(tx, "uid-1", [a_decision(digest=digest)])
        request = reassess.reassess(tx, request, role)
        issued = in_state(tx, S.ISSUED)
        changed = catalog.put_role(tx, a_role(target=role.target, digest="r2"))
        reassess.role_changed(tx, changed)
        now = requests.find(tx, "uid-1")
        assert now is not None
        assert (now.approval, now.outdated) == (Approval.PENDING, True)
        assert attempts.get(tx, issued.id).state is S.REVOKING
        reassess.role_changed(tx, catalog.put_role(tx, a_role(target=role.target)))
        back = requests.find(tx, "uid-1")
        assert back is not None
        assert back.approved


def test_the_rules_and_the_ledger_know_the_same_states() -> None:
    assert rules.ALLOWED.keys() == set(AttemptState)
