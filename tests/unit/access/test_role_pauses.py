"""H1: access pauses a db_role before it changes; only a snapshot from after the pause lets anything be issued again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.access.domain.decide import Claim, Wait, WaitReason
from services.access.domain.models import LONGEST_PAUSE_S, AttemptState, DbRole
from services.access.ledger import catalog, pauses
from services.access.requests.catalog import Catalog
from services.access.requests.quiesce import READS_MAY_TAKE_S, IssuancePauses, Paused
from services.access.worker.startup import recover
from services.common.errors import CallerNotAllowedError, ConflictError, DbRoleNotReadyError, SnapshotStaleError
from services.common.vault.pause_report import LeaseRevocation
from services.common.vault.target import VaultTarget
from tests.unit.access.access_builders import a_role, a_target
from tests.unit.access.access_world import World as WorkerWorld
from tests.unit.access.ensure_world import OWNER, World

AT = VaultTarget(cluster="-", namespace="demo", name="vault", address="https://v:1")
MOUNT, CONNECTION, VAULT_ROLE = "my-postgres-se", "k8s.-.demo.postgres-app", "k8s.-.demo.psql-role"
CHANGED = "r2"


class Pausing:
    """The watcher's part: it pauses, and puts snapshots."""

    def __init__(self, world: World | WorkerWorld, **options: Any) -> None:
        nothing: Any = None
        self.pauses = IssuancePauses(world.ledger, **options)
        self.catalog = Catalog(world.ledger, nothing, nothing)
        row = a_target()
        self.at = replace(AT, name=row.name, address=row.address)

    def pause(self, *, connection: str = "", revocation: LeaseRevocation | None = None, caller: str = OWNER) -> Paused:
        """Pause the role, or all roles of a connection."""
        vault_role = "" if connection else VAULT_ROLE
        return self.pauses.pause_db_roles(
            self.at, mount=MOUNT, connection=connection, vault_role=vault_role, revocation=revocation, caller=caller
        )

    def put(self, digest: str, number: int, *, caller: str = OWNER) -> bool:
        """Put a snapshot; answers whether the role is paused nevertheless."""
        return self.catalog.put_role(snapshot(digest), at=self.at, pause_number=number, caller=caller)

    def written(self) -> int:
        """The connection is written."""
        return self.pauses.resume(self.at, mount=MOUNT, connection=CONNECTION, written=True)


def snapshot(digest: str) -> DbRole:
    return a_role(target=0, digest=digest)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    made.pending()
    yield made
    made.ledger.close()


@pytest.fixture
def by(world: World) -> Pausing:
    return Pausing(world)


def test_h3_a_role_of_the_catalog_file_is_put_by_no_watcher(world: World, by: Pausing) -> None:
    """A watcher's roles have a namespace, and those of the file have none: this holds if they were mixed up."""
    with world.ledger.write() as tx:
        before = catalog.put_role(tx, replace(a_role(target=1), configured=True))
    with pytest.raises(CallerNotAllowedError, match="is defined by --catalog: change it there"):
        by.put(CHANGED, 0)
    with world.ledger.read() as tx:
        assert catalog.find_role(tx, before.cluster, before.cluster_uid, before.namespace, before.name) == before


def waits(world: World, reason: WaitReason, *, secret_attempt: int = 0) -> Wait:
    step = world.ensure(secret_attempt=secret_attempt).next_step
    assert isinstance(step, Wait), step
    assert step.reason is reason
    return step


def shown(world: World) -> str:
    """The reason of RoleChanging; empty where it is not shown."""
    return next((found.reason for found in world.view().conditions() if found.type == "RoleChanging"), "")


def counted(world: World) -> tuple[int, int]:
    """How many db_roles are paused, and how many outdated, as the metrics have it."""
    with world.ledger.read() as tx:
        return pauses.count_roles(tx)


def test_nothing_is_read_until_a_snapshot_from_after_the_pause(world: World, by: Pausing) -> None:
    """H1: also with the approval that counts for what the role was, and by a caller who claims by itself."""
    world.decide()
    number = by.pause().number
    assert waits(world, WaitReason.ROLE_CHANGING).until == world.clock() + LONGEST_PAUSE_S
    with pytest.raises(DbRoleNotReadyError, match="about to change"):
        world.issuer.claim_credential("uid-1", owner=OWNER, secret_attempt=0)
    assert not [path for path in world.vault.calls if "/creds/" in path]
    assert shown(world) == "RolePaused"

    assert not by.put(CHANGED, number)
    waits(world, WaitReason.NOT_APPROVED)
    assert not shown(world)


def test_a_role_that_is_put_back_is_approved_again(world: World, by: Pausing) -> None:
    """H1: the approval was given for that content, and nothing was issued for any other (ADR 67)."""
    world.decide()
    by.put(CHANGED, by.pause().number)
    waits(world, WaitReason.NOT_APPROVED)
    by.put("r1", by.pause().number)
    assert isinstance(world.ensure(claim=False).next_step, Claim)


@pytest.mark.parametrize("unprepared", [True, False])
def test_a_claim_under_way_at_the_pause_reads_nothing_later(world: World, by: Pausing, unprepared: bool) -> None:
    """H1: its token may be there, its attempt may be begun; what has not read yet is ended with the pause."""
    if unprepared:
        world.start()  # without the token in memory, the claim makes another one first
    world.decide()
    made = world.vault.write

    def write(path: str, *args: Any, **options: Any) -> Any:
        answer = made(path, *args, **options)
        if path.startswith("auth/token/create/"):
            assert by.pause().under_way == 0
        return answer

    world.vault.write = write  # type: ignore[method-assign]
    if not unprepared:
        assert by.pause().under_way == 0
        waits(world, WaitReason.ROLE_CHANGING)
    else:
        assert isinstance(world.ensure().refused, ConflictError)
    assert not [path for path in world.vault.calls if "/creds/" in path]
    assert AttemptState.ISSUING not in world.states()


def test_a_read_under_way_is_waited_for(world: World, by: Pausing) -> None:
    """What it reads is what was approved, so it is taken in; the change comes after it."""
    world.decide()
    counted: list[int] = []
    world.vault.reading = lambda: counted.append(by.pause().under_way)
    done = world.ensure()
    assert counted == [1]
    assert done.issued
    assert by.pause().under_way == 0


def test_a_read_that_takes_too_long_is_recovered(world: World, by: Pausing) -> None:
    """H1: a database that hangs holds no change up, and what the read still makes is refused and revoked."""
    world.decide()

    def reading() -> None:
        assert by.pause().under_way == 1
        world.clock.now += READS_MAY_TAKE_S
        assert by.pause().under_way == 0

    world.vault.reading = reading
    done = world.ensure()
    assert isinstance(done.refused, ConflictError)
    assert [path for path in world.vault.calls if path.startswith("sys/leases/revoke/")]


def test_reads_that_a_dead_process_began_are_counted(world: World, by: Pausing) -> None:
    world.decide()

    def dies() -> None:
        raise KeyboardInterrupt

    world.vault.reading = dies
    with pytest.raises(KeyboardInterrupt):
        world.ensure()
    recover(world.ledger, max_access_s=None)
    world.start()
    assert by.pause().under_way == 1


def test_a_pause_outlives_the_process(world: World, by: Pausing) -> None:
    """H1: neither access nor the watcher has to remember it."""
    world.decide()
    number = by.pause().number
    world.start()
    waits(world, WaitReason.ROLE_CHANGING)
    assert not Pausing(world).put("r1", number)
    assert isinstance(world.ensure(claim=False).next_step, Claim)


def test_a_snapshot_from_before_the_pause_ends_nothing(world: World, by: Pausing) -> None:
    """H1: of a reconcile that was under way, or of a former leader that woke up."""
    world.decide()
    before = by.pause().number
    by.put("r1", before)
    number = by.pause().number
    with pytest.raises(SnapshotStaleError) as stale:
        by.put("r1", before)
    assert stale.value.metadata == {"pause_number": str(number)}
    waits(world, WaitReason.ROLE_CHANGING)


def test_a_pause_belongs_to_who_asked_last(world: World, by: Pausing) -> None:
    """Another watcher learns the number only by a pause of its own, after which it reads Vault again."""
    world.decide()
    number = by.pause(caller="spiffe://leasegate/former").number
    with pytest.raises(SnapshotStaleError) as stale:
        by.put("r1", number - 1)
    assert stale.value.metadata == {}
    assert not by.put("r1", by.pause().number)


def test_a_pause_that_lasts_too_long_is_outdated(world: World, by: Pausing) -> None:
    """H1: the former approval does not come back; a snapshot, however late, ends it."""
    world.decide()
    number = by.pause().number
    world.clock.now += LONGEST_PAUSE_S - 1
    assert shown(world) == "RolePaused"
    assert counted(world) == (1, 0)
    world.clock.now += 2
    assert counted(world) == (0, 1)
    assert waits(world, WaitReason.ROLE_CHANGING).until is None
    assert shown(world) == "RoleOutdated"
    assert by.pause().conditions[0].reason == "RoleOutdated"
    by.put("r1", number + 1)
    assert isinstance(world.ensure(claim=False).next_step, Claim)


def test_a_connection_that_changes_pauses_its_roles(world: World, by: Pausing) -> None:
    """H1: no snapshot ends the pause before the connection is written, and then only one that was taken after it."""
    world.decide()
    number = by.pause(connection=CONNECTION).number
    assert by.put("r1", number)
    waits(world, WaitReason.ROLE_CHANGING)
    assert by.written() == 1
    waits(world, WaitReason.ROLE_CHANGING)
    with pytest.raises(SnapshotStaleError) as stale:
        by.put("r1", number)
    assert not by.put("r1", int(stale.value.metadata["pause_number"]))
    assert isinstance(world.ensure(claim=False).next_step, Claim)


def test_a_role_that_appears_while_its_connection_changes_waits(world: World, by: Pausing) -> None:
    by.pause(connection=CONNECTION)
    new = replace(snapshot("r9"), name="new", vault_role="k8s.-.demo.new")
    assert by.catalog.put_role(new, at=by.at, pause_number=0, caller=OWNER)
    assert by.written() == 2


def test_another_connection_is_not_paused(world: World, by: Pausing) -> None:
    world.decide()
    assert by.pause(connection="k8s.-.demo.other").number == 0
    assert isinstance(world.ensure(claim=False).next_step, Claim)


def test_a_role_of_the_operators_file_goes_on_with_the_write(world: World, by: Pausing) -> None:
    """It has no snapshot that could end its pause."""
    by.catalog.put_configured([])
    with world.ledger.write() as tx:
        catalog.put_role(tx, replace(snapshot("r1"), target=1, configured=True))
    by.pause(connection=CONNECTION)
    assert by.written() == 0


def test_a_short_pause_tells_no_access_request_of_it(world: World, by: Pausing) -> None:
    """A change of a role with thousands of requests makes the watcher read them once, not twice."""
    world.commits.clear()
    by.pause()
    assert not {uid for tx in world.commits for uid in tx.changed}
    world.clock.now += 1
    by.pause()
    by.pause()
    assert [uid for tx in world.commits for uid in tx.changed] == ["uid-1"]


def test_no_token_is_made_ahead_during_a_pause(world: World, by: Pausing) -> None:
    number = by.pause().number
    world.ensure()
    assert set(world.states()) <= {AttemptState.REVOKING_TOKEN}
    by.put(CHANGED, number)
    assert AttemptState.PENDING in world.states()


def test_no_lease_is_renewed_during_a_pause(tmp_path: Path) -> None:
    """H1: a renewal runs the statements that the role has in Vault then."""
    world = WorkerWorld(tmp_path / "ledger.db")
    active = world.begin(AttemptState.ACTIVE, begun_at=world.clock() - 3000, issued_at=world.clock() - 3000)
    by = Pausing(world, renewals=world.renewal.count_under_way)
    by.pause()
    world.do(active)
    with world.ledger.write() as tx:
        catalog.put_role(tx, replace(snapshot("r1"), target=1))  # there is no decision that the usual way would find
    assert world.vault.renewed == []
    world.do(active)
    assert len(world.vault.renewed) == 1
    world.ledger.close()


def test_a_renewal_under_way_is_waited_for(tmp_path: Path) -> None:
    world = WorkerWorld(tmp_path / "ledger.db")
    active = world.begin(AttemptState.ACTIVE, begun_at=world.clock() - 3000, issued_at=world.clock() - 3000)
    by, write, counted = Pausing(world, renewals=world.renewal.count_under_way), world.vault.write, list[int]()

    def renew(path: str, *args: Any, **options: Any) -> Any:
        counted.append(by.pause().under_way)
        counted.append(by.pause(connection=CONNECTION).under_way)
        counted.append(by.pause(connection="k8s.-.demo.other").under_way)
        return write(path, *args, **options)

    world.vault.write = renew  # type: ignore[method-assign]
    world.do(active)
    assert counted == [1, 1, 0]
    assert by.pause().under_way == 0
    world.ledger.close()


@pytest.mark.parametrize("state", [state for state in AttemptState if state is not AttemptState.CLOSED])
def test_h7_leases_that_would_end_otherwise_are_counted(tmp_path: Path, state: AttemptState) -> None:
    """Vault ends a lease by what its role says then: statements that nobody approved, or in another database."""
    world = WorkerWorld(tmp_path / "ledger.db")
    attempt = world.begin(state)
    same = LeaseRevocation(attempt.db_name, attempt.revocation_statements)
    by, there = Pausing(world), int(attempt.may_have_database_user)
    assert by.pause(revocation=same).revoked_otherwise == 0
    assert by.pause(revocation=replace(same, statements=("CREATE ROLE x SUPERUSER",))).revoked_otherwise == there
    assert by.pause(revocation=replace(same, connection="k8s.-.demo.other")).revoked_otherwise == there
    assert by.pause().revoked_otherwise == 0
    world.ledger.close()
