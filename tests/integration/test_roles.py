"""The role service against a real bao and PostgreSQL, called over real gRPC."""

from __future__ import annotations

import re
import subprocess

import pytest

from dev.stack.bao import bao_binary
from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.errors import (
    ChangeDueError,
    DbRoleNotReadyError,
    LeasesInUseError,
    MountConflictError,
    VaultPolicyMissingError,
    VaultSealedError,
)
from services.common.vault.error_texts import Drop, drop_failure
from services.common.vault.object_ref import ObjectRef
from services.common.vault.target import VaultTarget
from services.roles.roles import DbRoles
from services.roles.scope import SCOPE
from services.roles.statements import checked
from tests.eventually import eventually
from tests.integration.vault_services import (
    CREATE,
    MOUNT,
    delete_engine,
    ensure_role,
    exists,
    issue,
    log_in,
    owner,
    paused,
    quiet,
    revocation_of,
    revoke,
    service_sessions,
    target,
)
from tests.servers import Servers

ROLE = f"{MOUNT}/roles/k8s.-.demo.psql-role"
Stub = role_service_pb2_grpc.RoleServiceStub
EngineStub = engine_service_pb2_grpc.EngineServiceStub

pytestmark = pytest.mark.usefixtures("unmounted")


def shown(servers: Servers, path: str = ROLE) -> dict[str, object]:
    return dict(servers.must("GET", path)["data"])


def bao(servers: Servers, *arguments: str) -> str:
    done = subprocess.run(
        [bao_binary(), *arguments],
        env=servers.bao.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


@pytest.mark.usefixtures("engine")
def test_vault_reads_the_role_as_the_guide_prints_it(servers: Servers, roles: Stub) -> None:
    answer = roles.EnsureDbRole(ensure_role(servers))

    assert answer.changed
    assert not answer.notices
    assert bao(servers, "list", f"{MOUNT}/roles").split() == ["Keys", "----", "k8s.-.demo.psql-role"]
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in bao(servers, "read", ROLE).splitlines())
    assert rows["creation_statements"] == f"[{' '.join(CREATE)}]"
    assert rows["db_name"] == "k8s.-.demo.postgres-app"
    assert rows["default_ttl"] == "1h"
    assert rows["max_ttl"] == "24h"
    assert [rows[f"{which}_statements"] for which in ("renew", "revocation", "rollback")] == ["[]", "[]", "[]"]


@pytest.mark.usefixtures("engine")
def test_the_snapshot_is_what_was_written(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    snapshot = roles.EnsureDbRole(request).snapshot

    assert snapshot.object == request.owner
    assert (snapshot.mount, snapshot.vault_role) == (MOUNT, "k8s.-.demo.psql-role")
    assert snapshot.definition == request.definition
    assert len(snapshot.digest) == 64
    assert snapshot.target.address.lower() == servers.vault_addr

    again = roles.EnsureDbRole(request)
    assert not again.changed
    assert again.snapshot.digest == snapshot.digest
    request.definition.max_ttl.seconds = 7200
    assert roles.EnsureDbRole(request).snapshot.digest != snapshot.digest


@pytest.mark.usefixtures("engine")
def test_what_is_taken_out_of_the_spec_goes_out_of_vault(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    request.definition.revocation_statements.append('DROP ROLE "{{name}}";')
    request.definition.rollback_statements.append('DROP ROLE IF EXISTS "{{name}}";')
    request.definition.renew_statements.append("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}';")
    snapshot = roles.EnsureDbRole(request).snapshot
    assert snapshot.definition == request.definition  # as the team wrote it, without what Leasegate adds
    written = list(checked(['DROP ROLE "{{name}}";']))
    assert shown(servers)["revocation_statements"] == written
    assert not roles.EnsureDbRole(request).changed

    for field in ("revocation_statements", "rollback_statements", "renew_statements", "default_ttl", "max_ttl"):
        request.definition.ClearField(field)
    assert roles.EnsureDbRole(request).changed
    found = shown(servers)
    assert [found[f"{which}_statements"] for which in ("renew", "revocation", "rollback")] == [[], [], []]
    assert (found["default_ttl"], found["max_ttl"]) == (0, 0)
    assert not roles.EnsureDbRole(request).changed


@pytest.mark.usefixtures("engine")
def test_white_space_around_statements_is_no_drift(servers: Servers, roles: Stub) -> None:
    """As YAML block scalars have it, which Vault takes off (field report 11); also what only Unicode calls so."""
    request = ensure_role(servers)
    plain = roles.EnsureDbRole(request).snapshot
    around = ensure_role(servers)
    del around.definition.creation_statements[:]
    around.definition.creation_statements.extend(f"\n \t{each}\u3000\u0085\r\n" for each in CREATE)
    answer = roles.EnsureDbRole(around)
    assert not answer.changed
    assert answer.snapshot == plain
    for field in ("revocation_statements", "rollback_statements", "renew_statements"):
        getattr(around.definition, field).append('\tDROP ROLE IF EXISTS "{{name}}";\x1c\n')
    assert roles.EnsureDbRole(around).changed
    assert not roles.EnsureDbRole(around).changed


@pytest.mark.usefixtures("engine")
def test_a_db_role_that_somebody_changed_is_corrected(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    servers.must("POST", ROLE, max_ttl="9h", db_name="k8s.-.demo.postgres-app", creation_statements=["SELECT 1"])

    assert roles.EnsureDbRole(request).changed

    assert shown(servers)["max_ttl"] == 86400


@pytest.mark.usefixtures("engine")
def test_strict_revocation_statements_work_twice_on_one_name(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    request.definition.revocation_statements[:] = [
        'REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";',
        'DROP ROLE "{{name}}";',
    ]
    roles.EnsureDbRole(request)
    lease = issue(servers, "k8s.-.demo.psql-role")
    servers.psql(f'DROP OWNED BY "{lease["username"]}"; DROP ROLE "{lease["username"]}"')

    assert revoke(servers, lease) < 300


def test_a_role_needs_an_engine_of_its_cluster(servers: Servers, roles: Stub) -> None:
    with pytest.raises(DbRoleNotReadyError, match="nothing is mounted") as missing:
        roles.EnsureDbRole(ensure_role(servers))
    assert missing.value.retry_after_s is not None
    assert missing.value.changed_nothing
    servers.must("POST", f"sys/mounts/{MOUNT}", type="database", description="somebody's own")
    with pytest.raises(DbRoleNotReadyError, match="no SecretEngine"):
        roles.EnsureDbRole(ensure_role(servers))
    assert servers.vault("GET", ROLE)[0] == 404
    servers.must("POST", "sys/mounts/team-a", type="kv")
    with pytest.raises(MountConflictError, match="type kv"):
        roles.EnsureDbRole(ensure_role(servers, "team-a"))


@pytest.mark.usefixtures("engine")
def test_another_clusters_mount_is_neither_written_nor_deleted_from(servers: Servers, roles: Stub) -> None:
    roles.EnsureDbRole(ensure_role(servers))
    before = shown(servers)
    theirs = ensure_role(servers, uid="22222222-bbbb")
    theirs.definition.creation_statements[:] = ['CREATE ROLE "{{name}}" SUPERUSER']

    with pytest.raises(MountConflictError) as conflict:
        roles.EnsureDbRole(theirs)
    assert conflict.value.metadata["owner"] == "11111111-aaaa"
    roles.DeleteDbRole(pb.DeleteDbRoleRequest(owner=theirs.owner, target=target(servers), mount=MOUNT))

    assert shown(servers) == before


@pytest.mark.usefixtures("engine")
def test_db_name_changes_only_when_no_lease_depends_on_it(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    request.definition.db_name = "k8s.-.demo.other-app"
    for quiesce_report in (
        None,
        quiet(servers, MOUNT, "k8s.-.demo.other-app"),
        quiet(servers, MOUNT, "k8s.-.demo.postgres-app", remaining=2),
    ):
        request.ClearField("quiesce_report")
        if quiesce_report:
            request.quiesce_report.CopyFrom(quiesce_report)
        with pytest.raises(LeasesInUseError, match="db_name"):
            roles.EnsureDbRole(request)
        assert shown(servers)["db_name"] == "k8s.-.demo.postgres-app"
    request.quiesce_report.CopyFrom(quiet(servers, MOUNT, "k8s.-.demo.postgres-app"))

    assert roles.EnsureDbRole(request).changed

    assert shown(servers)["db_name"] == "k8s.-.demo.other-app"


@pytest.mark.usefixtures("engine")
def test_no_role_is_written_before_access_has_paused_it(servers: Servers, roles: Stub) -> None:
    """H1: not an existing one, not one that somebody removed or changed in Vault; what is right needs no report.

    The report also says that no lease of before ends by what is written (H7).
    """
    name = "k8s.-.demo.psql-role"
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    before = shown(servers)
    request.ClearField("pause_report")
    assert not roles.EnsureDbRole(request).changed
    changed = ensure_role(servers)
    changed.definition.creation_statements.append('GRANT pg_read_all_data TO "{{name}}";')
    for report in (
        None,
        paused(servers, "team-a"),
        paused(servers, vault_role="k8s.-.demo.other"),
        paused(servers, vault_role=name, under_way=1),
        paused(servers, vault_role=name, revoked_otherwise=1),
        paused(servers, vault_role=name, revocation=revocation_of(request.definition, connection="k8s.-.demo.other")),
        paused(servers, vault_role=name, revocation=revocation_of(request.definition, statements=["SELECT 1"])),
        paused(servers, vault_role=name, age_s=700),
    ):
        changed.ClearField("pause_report")
        if report:
            changed.pause_report.CopyFrom(report)
        with pytest.raises(ChangeDueError, match="once") as due:
            roles.EnsureDbRole(changed)
        assert due.value.changed_nothing
        assert shown(servers) == before
    servers.must("POST", ROLE, db_name=before["db_name"], creation_statements=["SELECT 1"])
    with pytest.raises(ChangeDueError):
        roles.EnsureDbRole(request)
    servers.must("DELETE", ROLE)
    with pytest.raises(ChangeDueError):
        roles.EnsureDbRole(request)
    request.pause_report.CopyFrom(paused(servers, vault_role=name))
    assert roles.EnsureDbRole(request).changed
    assert shown(servers) == before


def test_a_deleted_role_is_gone_and_gone_is_enough(servers: Servers, roles: Stub, engine: EngineStub) -> None:
    request = pb.DeleteDbRoleRequest(owner=owner("psql-role"), target=target(servers), mount=MOUNT)
    roles.EnsureDbRole(ensure_role(servers))

    roles.DeleteDbRole(request)
    assert servers.vault("GET", ROLE)[0] == 404
    roles.DeleteDbRole(request)
    engine.DeleteEngine(delete_engine(servers))
    roles.DeleteDbRole(request)


@pytest.mark.usefixtures("engine")
def test_a_forbidden_delete_is_no_success(servers: Servers, roles: Stub) -> None:
    roles.EnsureDbRole(ensure_role(servers))
    rules = [f'path "{path}" {{ capabilities = ["read"] }}' for path in (f"sys/mounts/{MOUNT}", f"{MOUNT}/roles/*")]
    servers.must("POST", "sys/policies/acl/looks-only", policy="\n".join(rules))
    request = pb.DeleteDbRoleRequest(owner=owner("psql-role"), target=target(servers), mount=MOUNT)
    with service_sessions(servers, SCOPE, "looks-only") as sessions, pytest.raises(VaultPolicyMissingError):
        DbRoles(sessions).delete_db_role(
            ObjectRef.from_proto(request.owner),
            sessions._vaults.resolve(VaultTarget.from_proto(request.target)),
            MOUNT,
        )
    assert servers.vault("GET", ROLE)[0] == 200


@pytest.mark.usefixtures("engine")
def test_the_teams_auth_is_needed_for_nothing(servers: Servers, roles: Stub) -> None:
    """C1: the service acts with its own session, with or without what the AppBinding authenticates by."""
    request = ensure_role(servers)
    request.target.token.token = servers.root_token
    assert roles.EnsureDbRole(request).changed
    request.target.CopyFrom(target(servers, auth=False))
    assert not roles.EnsureDbRole(request).changed
    roles.DeleteDbRole(pb.DeleteDbRoleRequest(owner=owner("psql-role"), target=request.target, mount=MOUNT))
    assert servers.vault("GET", ROLE)[0] == 404


@pytest.mark.usefixtures("engine")
def test_a_sealed_vault(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    servers.bao.seal()
    try:
        with pytest.raises(VaultSealedError):
            roles.EnsureDbRole(request)
    finally:
        servers.bao.unseal()
    assert not roles.EnsureDbRole(request).changed


LEAVING = {
    "nothing": "SELECT 1;",
    "renamed": 'ALTER ROLE "{{name}}" RENAME TO "token-renamed";',
    "locked and renamed": 'ALTER ROLE "{{name}}" NOLOGIN; ALTER ROLE "{{name}}" RENAME TO "token-renamed";',
    "another dropped": "DO $$ BEGIN PERFORM 1; END $$;",
    "logs in again": 'ALTER ROLE "{{name}}" NOLOGIN; ALTER ROLE "{{name}}" LOGIN;',
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("statement", LEAVING.values(), ids=LEAVING)
def test_h7_a_revocation_that_leaves_a_user_is_refused(servers: Servers, roles: Stub, statement: str) -> None:
    """By oid, so that a new name does not help, and the text says what is wrong."""
    request = ensure_role(servers)
    request.definition.revocation_statements.append(statement)
    roles.EnsureDbRole(request)
    lease = issue(servers, "k8s.-.demo.psql-role", f"demo-h7-{abs(hash(statement)) % 10**6}")
    status, answer = servers.vault("POST", f"sys/leases/revoke/{lease['lease_id']}", sync=True)
    assert status == 400
    assert "that can log in, or rename it: they have to drop it (SQLSTATE LG001)" in str(answer)
    assert drop_failure(str(answer["errors"][0])) is Drop.OWNS  # access drops it
    servers.psql(f'DROP OWNED BY "{lease["username"]}"; DROP ROLE "{lease["username"]}"')
    assert revoke(servers, lease) < 300
    assert not exists(servers, lease["username"])  # nor what only the statements made


NOBODY = "AS SELECT * FROM pg_catalog.pg_roles WHERE false"
HIDING = {
    "the oid": "SELECT set_config('leasegate.oid', '0', true);",
    "all that is remembered": "SELECT set_config('leasegate.oid', '0', true), set_config('leasegate.made', '1', true);",
    "a temporary table": f"CREATE TEMP TABLE pg_roles {NOBODY};",
    "another path": f"CREATE SCHEMA s; CREATE VIEW s.pg_roles {NOBODY}; SET LOCAL search_path = s, pg_catalog;",
}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("statement", HIDING.values(), ids=HIDING)
def test_h7_a_revocation_that_hides_a_user_is_refused(servers: Servers, roles: Stub, statement: str) -> None:
    """The statements run before the check, in its transaction: neither names nor settings of theirs mislead it."""
    request = ensure_role(servers)
    request.definition.revocation_statements.append(statement)
    roles.EnsureDbRole(request)
    lease = issue(servers, "k8s.-.demo.psql-role", f"demo-h7-{abs(hash(statement)) % 10**6}")
    status, answer = servers.vault("POST", f"sys/leases/revoke/{lease['lease_id']}", sync=True)
    servers.must("POST", f"sys/leases/revoke-force/{MOUNT}")
    assert (status, "(SQLSTATE LG001)" in str(answer), exists(servers, lease["username"])) == (400, True, True)
    servers.psql(f'DROP OWNED BY "{lease["username"]}"; DROP ROLE "{lease["username"]}"')


@pytest.mark.usefixtures("engine")
def test_h7_a_revocation_that_leaves_a_session_is_refused(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    request.definition.revocation_statements.append('ALTER ROLE "{{name}}" NOLOGIN;')
    roles.EnsureDbRole(request)
    lease = issue(servers, "k8s.-.demo.psql-role", "demo-h7-session")
    with log_in(servers, lease) as session:
        session.execute("SELECT 1")
        status, answer = servers.vault("POST", f"sys/leases/revoke/{lease['lease_id']}", sync=True)
        assert status == 400
        assert "they have to end them (SQLSTATE LG002)" in str(answer)
    eventually(lambda: revoke(servers, lease) < 300, timeout_s=10, what="the revocation, as no session is open")
    servers.psql(f'DROP OWNED BY "{lease["username"]}"; DROP ROLE "{lease["username"]}"')
