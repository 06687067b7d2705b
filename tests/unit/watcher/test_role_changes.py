"""H1: the watcher has access pause what changes before Vault is written, and its snapshots alone end the pause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.message import Message

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from services.common import errors, failpoints
from services.common.failpoints import Failpoints
from tests.unit.watcher.watcher_world import MOUNT, World
from watcher.kube.resources import Body
from watcher.specs.kinds import APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

PAUSE, PUT = watcher_service_pb2.PauseDbRolesRequest, watcher_service_pb2.PutDbRoleSnapshotRequest
RESUME = watcher_service_pb2.ResumeRequest
ENSURE_ROLE, ENSURE_ENGINE = role_service_pb2.EnsureDbRoleRequest, engine_service_pb2.EnsureEngineRequest
ROLE, CONNECTION = "k8s.-.demo.psql-role", "k8s.-.demo.postgres-app"
MOVE = {"leasegate.dev/same-database-moved": "postgres-new.demo.svc:5432/postgres"}


class Killed(BaseException):
    """The process died here."""


def dies() -> None:
    raise Killed


@pytest.fixture(autouse=True)
def _no_failpoint() -> Iterator[None]:
    yield
    failpoints.install(Failpoints())


@pytest.fixture
def guide(world: World) -> World:
    world.guide()
    world.decide()
    world.settle()
    for peer in (world.engine, world.roles, world.access):
        peer.calls.clear()
    return world


def change_role(world: World, statement: str = "CREATE ROLE SUPERUSER") -> None:
    world.kube.edit(POSTGRES_ROLE, "demo/psql-role", lambda obj: obj["spec"].update(creationStatements=[statement]))


def move(world: World) -> None:
    """The operator moves the database; the annotation says that it is the same one."""
    world.kube.edit(
        SECRET_ENGINE, "demo/postgresql-engine", lambda obj: obj["metadata"].setdefault("annotations", {}).update(MOVE)
    )

    def there(obj: Body) -> None:
        obj["spec"]["clientConfig"]["service"]["name"] = "postgres-new"

    world.kube.edit(APP_BINDING, "demo/postgres-app", there)


def kinds(calls: list[Message], *wanted: type[Message]) -> list[type[Message]]:
    return [type(call) for call in calls if isinstance(call, wanted)]


def test_a_reconcile_without_a_change_pauses_nothing(guide: World) -> None:
    guide.watcher.triggers.enqueue_all()
    guide.settle()
    guide.watcher.stop()
    guide.start()
    guide.settle()
    assert guide.access.asked(PUT)
    assert not guide.access.asked(PAUSE)


def test_a_change_is_paused_written_and_put_in_this_order(guide: World) -> None:
    order: list[str] = []
    for peer in (guide.roles, guide.access):
        peer.before = order.append
    change_role(guide)
    guide.settle()
    steps = [step for step in order if step in ("EnsureDbRole", "PauseDbRoles", "PutDbRoleSnapshot")]
    assert steps[:4] == ["EnsureDbRole", "PauseDbRoles", "EnsureDbRole", "PutDbRoleSnapshot"]
    assert [(call.mount, call.connection, call.vault_role) for call in guide.access.asked(PAUSE)] == [(MOUNT, "", ROLE)]
    assert guide.access.asked(PUT)[0].pause_number == guide.access.pauses[ROLE]
    assert not guide.access.role_pauses


def test_a_change_waits_for_calls_that_are_under_way(guide: World) -> None:
    guide.access.under_way = 1
    change_role(guide)
    guide.settle()
    assert guide.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "RoleChanging"
    assert [call for call in guide.roles.asked(ENSURE_ROLE) if call.HasField("pause_report")] == []
    guide.access.under_way = 0
    guide.advance(2)
    assert guide.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert not guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")


def test_h7_a_change_waits_for_leases_that_would_end_otherwise(guide: World) -> None:
    """Vault would run the new revocation statements for them; the role says what to do."""
    guide.access.revoked_otherwise = 2
    guide.kube.edit(
        POSTGRES_ROLE, "demo/psql-role", lambda role: role["spec"].update(revocationStatements=["SELECT 1"])
    )
    guide.settle()
    waits = guide.condition(POSTGRES_ROLE, "psql-role", "Available")
    assert waits["reason"] == "RoleChanging"
    assert "2 lease(s) were issued with other revocationStatements" in waits["message"]
    assert "Deny or delete" in waits["message"]
    assert guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")["status"] == "True"
    assert {tuple(call.revocation.statements) for call in guide.access.asked(PAUSE)} == {("SELECT 1",)}
    assert [call for call in guide.roles.asked(ENSURE_ROLE) if call.HasField("pause_report")] == []
    guide.access.revoked_otherwise = 0
    guide.advance(2)
    assert guide.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert not guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")


@pytest.mark.parametrize("method", ["EnsureVaultTarget", "PutDbRoleSnapshot"])
def test_a_failing_call_leaves_the_pause_on_and_says_so(guide: World, method: str) -> None:
    """H1: also after a restart, which remembers nothing of the pause; the role shows it all the while."""
    guide.watcher.stop()
    guide.access.fail_always(method, errors.VaultAuthRefusedError("not now", target="demo/vault"))
    guide.start()
    change_role(guide)
    guide.settle()
    assert guide.access.role_pauses == {ROLE}
    assert guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")["reason"] == "RolePaused"
    guide.watcher.stop()
    guide.start()
    guide.settle()
    assert guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")["status"] == "True"
    guide.access.fail_always(method, None)
    guide.advance(60, step_s=2)
    assert not guide.access.role_pauses
    assert not guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")


@pytest.mark.parametrize("point", ["role.paused", "role.written"])
def test_a_kill_while_a_role_changes_ends_with_the_next_reconcile(guide: World, point: str) -> None:
    """H1: the pause stays until the next process puts a snapshot that it has read itself."""
    failpoints.install(Failpoints(point, die=dies))
    change_role(guide)
    with pytest.raises(Killed):
        guide.settle()
    assert guide.access.role_pauses == {ROLE}
    guide.watcher.stop()
    guide.start()
    guide.settle()
    assert not guide.access.role_pauses
    assert guide.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"


@pytest.mark.parametrize("point", ["engine.paused", "engine.written"])
def test_a_kill_while_a_connection_changes_ends_with_the_next_reconcile(guide: World, point: str) -> None:
    failpoints.install(Failpoints(point, die=dies))
    move(guide)
    with pytest.raises(Killed):
        guide.settle()
    assert guide.access.changing == {(MOUNT, CONNECTION)}
    guide.watcher.stop()
    guide.start()
    guide.settle()
    assert not guide.access.changing
    assert guide.status(SECRET_ENGINE, "postgresql-engine")["database"].startswith("postgres-new")


def test_a_stale_snapshot_is_read_once_more(guide: World) -> None:
    """H1: it was read before a pause that this process did not ask for; the number comes with the refusal."""
    guide.access.pauses[ROLE] = 7
    guide.watcher.triggers.enqueue_all()
    guide.settle()
    assert [put.pause_number for put in guide.access.asked(PUT)][-1] == 7
    assert len(guide.roles.asked(ENSURE_ROLE)) == 2
    assert not guide.access.asked(PAUSE)
    assert guide.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"


def test_an_operators_move_pauses_the_roles_of_the_connection(guide: World) -> None:
    """H1, H7: all of them, until each has a snapshot from after the connection is written."""
    order: list[str] = []
    for peer in (guide.engine, guide.access):
        peer.before = order.append
    move(guide)
    guide.settle()
    assert [(call.mount, call.connection, call.vault_role) for call in guide.access.asked(PAUSE)] == [
        (MOUNT, CONNECTION, "")
    ]
    steps = [step for step in order if step in ("EnsureEngine", "PauseDbRoles", "Resume")]
    assert steps[:4] == ["EnsureEngine", "PauseDbRoles", "EnsureEngine", "Resume"]
    assert all(call.connection_written for call in guide.access.asked(RESUME))


def test_roles_that_wait_for_a_snapshot_are_reconciled_at_once(guide: World) -> None:
    """Nothing of their objects changed, and the next resync may be minutes away."""
    guide.access.waiting = 1
    move(guide)
    guide.settle()
    assert guide.access.asked(PUT)


def test_a_role_whose_connection_is_about_to_change_says_so(guide: World) -> None:
    guide.access.changing.add((MOUNT, CONNECTION))
    guide.watcher.triggers.enqueue_all()
    guide.settle()
    # The SecretEngine of this very connection says that it is written, so the role is not held up by a lost pause.
    guide.access.changing.add((MOUNT, CONNECTION))
    change_role(guide)
    guide.settle()
    assert guide.condition(POSTGRES_ROLE, "psql-role", "RoleChanging")["status"] == "True"
    guide.access.changing.clear()
    guide.advance(30, step_s=1)
    assert guide.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"


def test_another_engine_of_the_mount_ends_no_pause(guide: World) -> None:
    """H1: it has read the AppBinding before the move, and hears that all is well while the other is about to write."""
    ensure, known = guide.engine.EnsureEngine, dict(guide.engine.connections)

    def answer(request: engine_service_pb2.EnsureEngineRequest, timeout: float | None = None) -> Message:
        if request.owner.name == "second":
            request.postgres.database.CopyFrom(known[request.target.address, MOUNT, CONNECTION])
        elif request.HasField("pause_report"):
            raise errors.VaultFailedError("later", path="x")
        return ensure(request)

    guide.engine.EnsureEngine = answer  # type: ignore[assignment,method-assign]
    move(guide)
    guide.settle()
    guide.secret_engine("second")
    guide.settle()
    assert guide.status(SECRET_ENGINE, "second")["phase"] == "Success"
    assert guide.access.changing == {(MOUNT, CONNECTION)}
