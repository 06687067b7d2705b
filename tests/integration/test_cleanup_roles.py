"""Cleanup roles on real servers drop a user that no lease knows, or that PostgreSQL refused to drop."""

from __future__ import annotations

import psycopg
import pytest

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from services.roles.statements import FORCE_DROP
from tests.integration.vault_services import (
    CLEANUP_ROLE,
    CREATE,
    MOUNT,
    cleanup_role,
    engine_service,
    ensure_engine,
    ensure_role,
    exists,
    issue,
    log_in,
    revoke,
    target,
)
from tests.servers import Servers

Stub = role_service_pb2_grpc.RoleServiceStub
EngineStub = engine_service_pb2_grpc.EngineServiceStub

pytestmark = pytest.mark.usefixtures("unmounted")


def shown(servers: Servers, path: str) -> dict[str, object]:
    return dict(servers.must("GET", path)["data"])


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("revocation", [(), ('DROP OWNED BY "{{name}}";', 'DROP ROLE "{{name}}";')])
def test_a_cleanup_role_drops_a_user_and_creates_no_usable_one(
    servers: Servers, roles: Stub, revocation: tuple[str, ...]
) -> None:
    roles.EnsureDbRole(ensure_role(servers))
    roles.EnsureCleanupRole(cleanup_role(servers, revocation=revocation))
    roles.EnsureCleanupRole(cleanup_role(servers, revocation=revocation))
    lease = issue(servers, "k8s.-.demo.psql-role")
    assert exists(servers, lease["username"])

    adopted = issue(servers, CLEANUP_ROLE)
    assert adopted["username"] == lease["username"]
    for credential in (lease, adopted):
        with pytest.raises(psycopg.OperationalError):
            log_in(servers, credential)
    assert revoke(servers, adopted) < 300
    assert not exists(servers, lease["username"])

    absent = issue(servers, CLEANUP_ROLE, "demo-psql-role-never")
    with pytest.raises(psycopg.OperationalError):
        log_in(servers, absent)
    assert servers.psql(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{absent['username']}'") == [(False,)]  # noqa: S608
    assert revoke(servers, absent) < 300
    assert not exists(servers, absent["username"])
    assert revoke(servers, lease) < 300
    roles.DeleteCleanupRole(pb.DeleteCleanupRoleRequest(target=target(servers), mount=MOUNT, name=CLEANUP_ROLE))
    roles.DeleteCleanupRole(pb.DeleteCleanupRoleRequest(target=target(servers), mount=MOUNT, name=CLEANUP_ROLE))
    assert servers.must("LIST", f"{MOUNT}/roles")["data"]["keys"] == ["k8s.-.demo.psql-role"]


@pytest.mark.usefixtures("engine")
def test_a_finishing_cleanup_role_ends_what_postgresql_refused_to_drop(servers: Servers, roles: Stub) -> None:
    roles.EnsureDbRole(ensure_role(servers))
    lease = issue(servers, "k8s.-.demo.psql-role")
    session = log_in(servers, lease)
    session.execute("CREATE TEMP TABLE mine (a int)")
    assert revoke(servers, lease) == 400
    log_in(servers, lease).close()

    roles.EnsureCleanupRole(cleanup_role(servers, force_drop=True))
    assert shown(servers, f"{MOUNT}/roles/{CLEANUP_ROLE}")["revocation_statements"] == list(FORCE_DROP)
    finishing = issue(servers, CLEANUP_ROLE)

    assert revoke(servers, finishing) < 300
    assert not exists(servers, lease["username"])
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()
    assert revoke(servers, lease) < 300
    again = issue(servers, CLEANUP_ROLE)
    assert revoke(servers, again) < 300
    assert not exists(servers, again["username"])


def test_a_finishing_cleanup_role_works_for_a_user_who_is_no_superuser(servers: Servers, roles: Stub) -> None:
    servers.psql(
        "CREATE ROLE limited CREATEROLE LOGIN PASSWORD 'limited'; GRANT pg_signal_backend TO limited;"
        " CREATE SCHEMA shared"
    )
    servers.psql("GRANT ALL ON SCHEMA shared TO PUBLIC")
    with engine_service(servers) as engine:
        request = ensure_engine(servers)
        request.postgres.database.username = request.postgres.database.password = "limited"
        engine.EnsureEngine(request)
        role = ensure_role(servers)
        role.definition.creation_statements[:] = [CREATE[0]]
        roles.EnsureDbRole(role)
        lease = issue(servers, "k8s.-.demo.psql-role")
        with log_in(servers, lease) as session:
            session.execute("CREATE TABLE shared.kept (a int); INSERT INTO shared.kept VALUES (1)")
        assert revoke(servers, lease) == 400
        roles.EnsureCleanupRole(cleanup_role(servers, force_drop=True))

        assert revoke(servers, issue(servers, CLEANUP_ROLE)) < 300

    assert not exists(servers, lease["username"])
    assert servers.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'kept'") == [("limited",)]
    assert revoke(servers, lease) < 300
    servers.psql("DROP SCHEMA shared CASCADE; DROP OWNED BY limited; DROP ROLE limited")


@pytest.mark.usefixtures("engine")
def test_a_cleanup_role_is_short_lived_and_passes_limited_allowed_roles(
    servers: Servers, roles: Stub, engine: EngineStub
) -> None:
    request = ensure_engine(servers)
    request.postgres.allowed_roles[:] = ["k8s.-.demo.psql-role"]
    engine.EnsureEngine(request)
    roles.EnsureCleanupRole(cleanup_role(servers))

    assert shown(servers, f"{MOUNT}/roles/{CLEANUP_ROLE}")["max_ttl"] == 60
    assert revoke(servers, issue(servers, CLEANUP_ROLE)) < 300
