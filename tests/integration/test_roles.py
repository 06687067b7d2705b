"""The role service against a real bao and PostgreSQL, called over real gRPC."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from deploy.local.bao import bao_binary
from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from leasegate.types.v1 import types_pb2
from services.common.errors import LoginMissing, MountConflict, QuiesceRequired, RoleNotReady, SpecInvalid, VaultPolicyMissing, VaultSealed
from services.roles.statements import CREATE_IF_ABSENT, FINISH
from tests.integration.vault_services import (
    CREATE,
    MOUNT,
    delete_engine,
    engine_service,
    ensure_engine,
    ensure_role,
    owner,
    quiet,
    role_service,
    target,
)
from tests.servers import Servers

ROLE = f"{MOUNT}/roles/k8s.-.demo.psql-role"
ADOPTER = "leasegate-adopter.0123456789ab"
Stub = role_service_pb2_grpc.RoleServiceStub
EngineStub = engine_service_pb2_grpc.EngineServiceStub


@pytest.fixture
def roles() -> Iterator[Stub]:
    with role_service() as stub:
        yield stub


@pytest.fixture
def engine(servers: Servers) -> Iterator[EngineStub]:
    """The engine service, with the guide's engine made."""
    with engine_service() as stub:
        stub.EnsureEngine(ensure_engine(servers))
        yield stub


@pytest.fixture(autouse=True)
def _clean(servers: Servers) -> Iterator[None]:
    yield
    for path in (MOUNT, "team-a"):
        servers.vault("POST", f"sys/leases/revoke-prefix/{path}", sync=True)
        servers.vault("DELETE", f"sys/mounts/{path}")


def shown(servers: Servers, path: str = ROLE) -> dict[str, object]:
    return dict(servers.must("GET", path)["data"])


def bao(servers: Servers, *arguments: str) -> str:
    done = subprocess.run([bao_binary(), *arguments], env=servers.bao.environment(), capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.usefixtures("engine")
def test_vault_reads_the_role_as_the_guide_prints_it(servers: Servers, roles: Stub) -> None:
    answer = roles.EnsureRole(ensure_role(servers))

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
    snapshot = roles.EnsureRole(request).snapshot

    assert snapshot.object == request.owner
    assert (snapshot.mount, snapshot.vault_role) == (MOUNT, "k8s.-.demo.psql-role")
    assert snapshot.definition == request.definition
    assert len(snapshot.digest) == 64
    assert snapshot.target.address.lower() == servers.vault_addr

    again = roles.EnsureRole(request)
    assert not again.changed
    assert again.snapshot.digest == snapshot.digest
    request.definition.max_ttl.seconds = 7200
    assert roles.EnsureRole(request).snapshot.digest != snapshot.digest


@pytest.mark.usefixtures("engine")
def test_what_is_taken_out_of_the_spec_goes_out_of_vault(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    request.definition.revocation_statements.append('DROP ROLE "{{name}}";')
    request.definition.rollback_statements.append('DROP ROLE IF EXISTS "{{name}}";')
    request.definition.renew_statements.append("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}';")
    snapshot = roles.EnsureRole(request).snapshot
    assert list(snapshot.definition.revocation_statements) == [CREATE_IF_ABSENT, 'DROP ROLE "{{name}}";']
    assert shown(servers)["revocation_statements"] == [CREATE_IF_ABSENT, 'DROP ROLE "{{name}}";']
    assert not roles.EnsureRole(request).changed

    for field in ("revocation_statements", "rollback_statements", "renew_statements", "default_ttl", "max_ttl"):
        request.definition.ClearField(field)
    assert roles.EnsureRole(request).changed
    found = shown(servers)
    assert [found[f"{which}_statements"] for which in ("renew", "revocation", "rollback")] == [[], [], []]
    assert (found["default_ttl"], found["max_ttl"]) == (0, 0)
    assert not roles.EnsureRole(request).changed


@pytest.mark.usefixtures("engine")
def test_a_role_changed_behind_our_back_is_put_right(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureRole(request)
    servers.must("POST", ROLE, max_ttl="9h", db_name="k8s.-.demo.postgres-app", creation_statements=["SELECT 1"])

    assert roles.EnsureRole(request).changed

    assert shown(servers)["max_ttl"] == 86400


@pytest.mark.usefixtures("engine")
def test_strict_revocation_statements_work_twice_on_one_name(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    request.definition.revocation_statements[:] = ['REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";']
    roles.EnsureRole(request)
    lease = issue(servers, "k8s.-.demo.psql-role")
    servers.psql(f'DROP OWNED BY "{lease["username"]}"; DROP ROLE "{lease["username"]}"')

    assert revoke(servers, lease) < 300


def test_a_role_needs_an_engine_of_its_cluster(servers: Servers, roles: Stub) -> None:
    with pytest.raises(RoleNotReady, match="nothing is mounted") as missing:
        roles.EnsureRole(ensure_role(servers))
    assert missing.value.retryable
    servers.must("POST", f"sys/mounts/{MOUNT}", type="database", description="somebody's own")
    with pytest.raises(RoleNotReady, match="no SecretEngine"):
        roles.EnsureRole(ensure_role(servers))
    assert servers.vault("GET", ROLE)[0] == 404
    servers.must("POST", "sys/mounts/team-a", type="kv")
    with pytest.raises(MountConflict, match="type kv"):
        roles.EnsureRole(ensure_role(servers, "team-a"))


@pytest.mark.usefixtures("engine")
def test_another_clusters_mount_is_neither_written_nor_deleted_from(servers: Servers, roles: Stub) -> None:
    roles.EnsureRole(ensure_role(servers))
    before = shown(servers)
    theirs = ensure_role(servers, uid="22222222-bbbb")
    theirs.definition.creation_statements[:] = ['CREATE ROLE "{{name}}" SUPERUSER']

    with pytest.raises(MountConflict) as conflict:
        roles.EnsureRole(theirs)
    assert conflict.value.metadata["owner"] == "11111111-aaaa"
    roles.DeleteRole(pb.DeleteRoleRequest(owner=theirs.owner, target=target(servers), mount=MOUNT))

    assert shown(servers) == before


@pytest.mark.usefixtures("engine")
def test_db_name_changes_only_when_no_lease_depends_on_it(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureRole(request)
    request.definition.db_name = "k8s.-.demo.other-app"
    for quiescence in (None, quiet(servers, MOUNT, "k8s.-.demo.other-app"), quiet(servers, MOUNT, "k8s.-.demo.postgres-app", remaining=2)):
        request.ClearField("quiescence")
        if quiescence:
            request.quiescence.CopyFrom(quiescence)
        with pytest.raises(QuiesceRequired, match="db_name"):
            roles.EnsureRole(request)
        assert shown(servers)["db_name"] == "k8s.-.demo.postgres-app"
    request.quiescence.CopyFrom(quiet(servers, MOUNT, "k8s.-.demo.postgres-app"))

    assert roles.EnsureRole(request).changed

    assert shown(servers)["db_name"] == "k8s.-.demo.other-app"


def test_a_deleted_role_is_gone_and_gone_is_enough(servers: Servers, roles: Stub, engine: EngineStub) -> None:
    request = pb.DeleteRoleRequest(owner=owner("psql-role"), target=target(servers), mount=MOUNT)
    roles.EnsureRole(ensure_role(servers))

    roles.DeleteRole(request)
    assert servers.vault("GET", ROLE)[0] == 404
    roles.DeleteRole(request)
    engine.DeleteEngine(delete_engine(servers))
    roles.DeleteRole(request)


@pytest.mark.usefixtures("engine")
def test_a_forbidden_delete_is_no_success(servers: Servers, roles: Stub) -> None:
    roles.EnsureRole(ensure_role(servers))
    rules = [f'path "{path}" {{ capabilities = ["read"] }}' for path in (f"sys/mounts/{MOUNT}", f"{MOUNT}/roles/*")]
    servers.must("POST", "sys/policies/acl/looks-only", policy="\n".join(rules))
    request = pb.DeleteRoleRequest(owner=owner("psql-role"), mount=MOUNT)
    request.target.CopyFrom(target(servers, token=servers.login("looks-only")))
    with role_service() as fresh, pytest.raises(VaultPolicyMissing):
        fresh.DeleteRole(request)
    assert servers.vault("GET", ROLE)[0] == 200


@pytest.mark.usefixtures("engine")
def test_deleting_without_a_login_uses_the_one_in_memory(servers: Servers, roles: Stub) -> None:
    request = pb.DeleteRoleRequest(owner=owner("psql-role"), target=target(servers, login=False), mount=MOUNT)
    with pytest.raises(LoginMissing):
        roles.DeleteRole(request)
    roles.EnsureRole(ensure_role(servers))
    roles.DeleteRole(request)
    assert servers.vault("GET", ROLE)[0] == 404


@pytest.mark.usefixtures("engine")
def test_a_sealed_vault(servers: Servers, roles: Stub) -> None:
    request = ensure_role(servers)
    roles.EnsureRole(request)
    servers.bao.seal()
    try:
        with pytest.raises(VaultSealed):
            roles.EnsureRole(request)
    finally:
        servers.bao.unseal()
    assert not roles.EnsureRole(request).changed


# Adopters


def adopter(servers: Servers, *, finish: bool = False, revocation: tuple[str, ...] = ()) -> pb.EnsureAdopterRequest:
    return pb.EnsureAdopterRequest(
        target=target(servers),
        mount=MOUNT,
        name=ADOPTER,
        db_name="k8s.-.demo.postgres-app",
        revocation_statements=revocation,
        finish=finish,
    )


def issue(servers: Servers, role: str, display_name: str = "demo-psql-role-abc") -> dict[str, str]:
    """A credential as access would get it; answers also its lease id."""
    token = servers.must("POST", "auth/token/create", policies=["leasegate-issuer"], display_name=display_name, no_parent=True)["auth"]
    answer = servers.must("GET", f"{MOUNT}/creds/{role}", token["client_token"])
    return {**answer["data"], "lease_id": answer["lease_id"]}


def revoke(servers: Servers, lease: dict[str, str]) -> int:
    return servers.vault("POST", f"sys/leases/revoke/{lease['lease_id']}", sync=True)[0]


def exists(servers: Servers, login: str) -> bool:
    return bool(servers.psql(f"SELECT 1 FROM pg_roles WHERE rolname = '{login}'"))  # noqa: S608 - a name that Vault made


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("revocation", [(), ('DROP OWNED BY "{{name}}";', 'DROP ROLE "{{name}}";')])
def test_an_adopter_drops_a_login_and_makes_no_usable_one(servers: Servers, roles: Stub, revocation: tuple[str, ...]) -> None:
    roles.EnsureRole(ensure_role(servers))
    roles.EnsureAdopter(adopter(servers, revocation=revocation))
    roles.EnsureAdopter(adopter(servers, revocation=revocation))
    lease = issue(servers, "k8s.-.demo.psql-role")
    assert exists(servers, lease["username"])

    adopted = issue(servers, ADOPTER)
    assert adopted["username"] == lease["username"]
    assert revoke(servers, adopted) < 300
    assert not exists(servers, lease["username"])

    absent = issue(servers, ADOPTER, "demo-psql-role-never")
    with pytest.raises(psycopg.OperationalError):
        log_in(servers, absent)
    assert servers.psql(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{absent['username']}'") == [(False,)]  # noqa: S608
    assert revoke(servers, absent) < 300
    assert not exists(servers, absent["username"])
    assert revoke(servers, lease) < 300
    roles.DeleteAdopter(pb.DeleteAdopterRequest(target=target(servers), mount=MOUNT, name=ADOPTER))
    roles.DeleteAdopter(pb.DeleteAdopterRequest(target=target(servers), mount=MOUNT, name=ADOPTER))
    assert bao(servers, "list", f"{MOUNT}/roles").split()[2:] == ["k8s.-.demo.psql-role"]


def log_in(servers: Servers, lease: dict[str, str]) -> psycopg.Connection[tuple[object, ...]]:
    place = {"host": servers.postgres_host, "port": servers.postgres_port, "dbname": "postgres"}
    return psycopg.connect(**place, user=lease["username"], password=lease["password"], autocommit=True)  # type: ignore[arg-type]


@pytest.mark.usefixtures("engine")
def test_a_finishing_adopter_ends_what_postgresql_refused_to_drop(servers: Servers, roles: Stub) -> None:
    roles.EnsureRole(ensure_role(servers))
    lease = issue(servers, "k8s.-.demo.psql-role")
    session = log_in(servers, lease)
    session.execute("CREATE TEMP TABLE mine (a int)")
    assert revoke(servers, lease) == 400
    log_in(servers, lease).close()

    roles.EnsureAdopter(adopter(servers, finish=True))
    assert shown(servers, f"{MOUNT}/roles/{ADOPTER}")["revocation_statements"] == list(FINISH)
    finishing = issue(servers, ADOPTER)

    assert revoke(servers, finishing) < 300
    assert not exists(servers, lease["username"])
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()
    assert revoke(servers, lease) < 300
    again = issue(servers, ADOPTER)
    assert revoke(servers, again) < 300
    assert not exists(servers, again["username"])


def test_a_finishing_adopter_works_for_a_user_who_is_no_superuser(servers: Servers, roles: Stub) -> None:
    servers.psql("CREATE ROLE limited CREATEROLE LOGIN PASSWORD 'limited'; GRANT pg_signal_backend TO limited; CREATE SCHEMA shared")
    servers.psql("GRANT ALL ON SCHEMA shared TO PUBLIC")
    with engine_service() as engine:
        request = ensure_engine(servers)
        request.postgres.database.username = request.postgres.database.password = "limited"
        engine.EnsureEngine(request)
        role = ensure_role(servers)
        role.definition.creation_statements[:] = [CREATE[0]]
        roles.EnsureRole(role)
        lease = issue(servers, "k8s.-.demo.psql-role")
        with log_in(servers, lease) as session:
            session.execute("CREATE TABLE shared.kept (a int); INSERT INTO shared.kept VALUES (1)")
        assert revoke(servers, lease) == 400
        roles.EnsureAdopter(adopter(servers, finish=True))

        assert revoke(servers, issue(servers, ADOPTER)) < 300

    assert not exists(servers, lease["username"])
    assert servers.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'kept'") == [("limited",)]
    assert revoke(servers, lease) < 300
    servers.psql("DROP SCHEMA shared CASCADE; DROP OWNED BY limited; DROP ROLE limited")


@pytest.mark.usefixtures("engine")
def test_an_adopter_is_short_lived_and_passes_limited_allowed_roles(servers: Servers, roles: Stub, engine: EngineStub) -> None:
    request = ensure_engine(servers)
    request.postgres.allowed_roles[:] = ["k8s.-.demo.psql-role"]
    engine.EnsureEngine(request)
    roles.EnsureAdopter(adopter(servers))

    assert shown(servers, f"{MOUNT}/roles/{ADOPTER}")["max_ttl"] == 60
    assert revoke(servers, issue(servers, ADOPTER)) < 300


# Bad input

BIG = "x" * (64 * 1024 + 1)
WRONG: list[tuple[str, Callable[[pb.EnsureRoleRequest], object]]] = [
    ("owner.name", lambda r: r.owner.ClearField("name")),
    ("owner.name", lambda r: setattr(r.owner, "name", "a/b")),
    ("owner.name", lambda r: r.owner.CopyFrom(types_pb2.ObjectRef(name="k8s.-.demo.x"))),
    ("owner.name", lambda r: r.owner.CopyFrom(types_pb2.ObjectRef(name="leasegate-adopter.0123456789ab"))),
    ("owner.namespace", lambda r: setattr(r.owner, "namespace", "Demo")),
    ("target.address", lambda r: setattr(r.target, "address", "ftp://vault")),
    ("mount", lambda r: setattr(r, "mount", "auth/token")),
    ("mount", lambda r: setattr(r, "mount", "a b")),
    ("definition.db_name", lambda r: r.definition.ClearField("db_name")),
    ("definition.db_name", lambda r: setattr(r.definition, "db_name", "a/b")),
    ("definition.creation_statements", lambda r: r.definition.ClearField("creation_statements")),
    ("definition.creation_statements", lambda r: r.definition.creation_statements.__setitem__(slice(None), ["SELECT 1"])),
    ("definition.creation_statements[2]", lambda r: r.definition.creation_statements.append("  ")),
    ("definition.creation_statements[2]", lambda r: r.definition.creation_statements.append(BIG)),
    ("definition.creation_statements", lambda r: r.definition.creation_statements.extend(["SELECT 1"] * 63)),
    ("definition.revocation_statements[0]", lambda r: r.definition.revocation_statements.append("")),
    ("definition.rollback_statements[0]", lambda r: r.definition.rollback_statements.append("SELECT '\0'")),
    ("definition.renew_statements", lambda r: r.definition.renew_statements.extend(["SELECT 1"] * 65)),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration(seconds=86401))),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration())),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration(seconds=1, nanos=1))),
    ("definition.max_ttl", lambda r: r.definition.max_ttl.CopyFrom(Duration(seconds=-5))),
    ("definition.max_ttl", lambda r: r.definition.max_ttl.CopyFrom(Duration(seconds=10**12))),
]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("field", "break_it"), WRONG, ids=[f"{number}-{field}" for number, (field, _) in enumerate(WRONG)])
def test_a_wrong_field_is_named_and_nothing_is_written(
    servers: Servers, roles: Stub, field: str, break_it: Callable[[pb.EnsureRoleRequest], object]
) -> None:
    request = ensure_role(servers)
    break_it(request)

    with pytest.raises(SpecInvalid) as invalid:
        roles.EnsureRole(request)

    assert field in {violation.field for violation in invalid.value.violations}
    assert servers.vault("LIST", f"{MOUNT}/roles")[0] == 404


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "k8s.-.demo.psql-role"}),
        ("name", {"name": "leasegate-adopter.0123456789AB"}),
        ("name", {"name": f"{ADOPTER}/x"}),
        ("mount", {"mount": "sys"}),
        ("db_name", {"db_name": "a/b"}),
        ("revocation_statements[0]", {"revocation_statements": [" "]}),
    ],
)
@pytest.mark.usefixtures("engine")
def test_a_wrong_adopter(servers: Servers, roles: Stub, field: str, change: dict[str, object]) -> None:
    request = adopter(servers)
    request.MergeFrom(pb.EnsureAdopterRequest(**change))  # type: ignore[arg-type]

    with pytest.raises(SpecInvalid) as invalid:
        roles.EnsureAdopter(request)

    assert [violation.field for violation in invalid.value.violations] == [field]
    assert servers.vault("LIST", f"{MOUNT}/roles")[0] == 404
    if field == "name":
        with pytest.raises(SpecInvalid):
            roles.DeleteAdopter(pb.DeleteAdopterRequest(target=target(servers), mount=MOUNT, name=request.name))
