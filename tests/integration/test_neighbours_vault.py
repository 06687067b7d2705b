"""Attack C4, and what lies beside it: a neighbour's mount and connection at the engine and role services.

The calls are the watcher's, so that nothing here rests on the watcher: a call says whose object it is for, and the
services compare that with the mount's marker and with the name of the connection, on a real bao and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.errors import MountConflictError, NotAllowedFromError, SpecInvalidError
from tests.integration.vault_services import (
    CREATE,
    MOUNT,
    delete_engine,
    engine_service,
    ensure_engine,
    ensure_role,
    issue,
    quiet,
    role_service,
)
from tests.servers import Servers

EngineStub = engine_service_pb2_grpc.EngineServiceStub
RoleStub = role_service_pb2_grpc.RoleServiceStub
CONFIG = f"{MOUNT}/config/k8s.-.demo.postgres-app"
OPERATORS: dict[str, Any] = {"connection_url": "postgresql://db:5432/postgres", "verify_connection": False}


@pytest.fixture(scope="module")
def engine(servers: Servers) -> Iterator[EngineStub]:
    with engine_service(servers) as stub:
        yield stub


@pytest.fixture(scope="module")
def roles(servers: Servers) -> Iterator[RoleStub]:
    with role_service(servers) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _demo(servers: Servers, engine: EngineStub) -> Iterator[None]:
    """The guide's engine, of namespace demo."""
    engine.EnsureEngine(ensure_engine(servers))
    yield
    for path in (MOUNT, "team/evils"):
        servers.vault("DELETE", f"sys/mounts/{path}")


def in_vault(servers: Servers) -> Any:
    """All that a neighbour must not change: the mount's description, the connection, and the names of the roles."""
    return (
        servers.must("GET", f"sys/mounts/{MOUNT}")["data"]["description"],
        servers.must("GET", CONFIG)["data"],
        servers.vault("LIST", f"{MOUNT}/roles"),
    )


def test_c4_a_neighbours_engine_does_not_join_the_mount(servers: Servers, engine: EngineStub) -> None:
    before = in_vault(servers)
    theirs = ensure_engine(servers, namespace="evil", app_binding="evil.db")
    for shared in ([], ["evil"]):  # a list of its own gives it nothing
        theirs.shared_with[:] = shared
        with pytest.raises(NotAllowedFromError, match=r"SecretEngine with leasegate[.]dev/shared-with: evil"):
            engine.EnsureEngine(theirs)
    assert in_vault(servers) == before


def test_a_mount_is_shared_by_its_namespace_alone(servers: Servers, engine: EngineStub, roles: RoleStub) -> None:
    ours, theirs = ensure_engine(servers), ensure_engine(servers, namespace="ns-b", app_binding="ns-b.db")
    theirs_role = ensure_role(servers, namespace="ns-b")
    theirs_role.definition.db_name = "k8s.-.ns-b.db"
    with pytest.raises(NotAllowedFromError):
        roles.EnsureDbRole(theirs_role)
    ours.shared_with.append("ns-b")
    assert engine.EnsureEngine(ours).changed
    theirs.shared_with.append("evil")
    engine.EnsureEngine(theirs)
    roles.EnsureDbRole(theirs_role)
    marker = in_vault(servers)[0]
    assert '"namespace":"demo","shared":["ns-b"],"owners":["demo/postgresql-engine","ns-b/postgresql-engine"]' in marker
    with pytest.raises(NotAllowedFromError):
        engine.EnsureEngine(ensure_engine(servers, namespace="evil", app_binding="evil.db"))

    del ours.shared_with[:]  # withdrawn
    engine.EnsureEngine(ours)
    with pytest.raises(NotAllowedFromError):
        engine.EnsureEngine(theirs)
    with pytest.raises(NotAllowedFromError):
        roles.EnsureDbRole(theirs_role)
    leaving = delete_engine(servers, namespace="ns-b")
    leaving.connection = "k8s.-.ns-b.db"
    assert engine.DeleteEngine(leaving).remaining_owners == ["demo/postgresql-engine"]


def test_sharing_a_mount_shares_no_connection(servers: Servers, engine: EngineStub, roles: RoleStub) -> None:
    ours = ensure_engine(servers)
    ours.shared_with.append("evil")
    engine.EnsureEngine(ours)
    before = in_vault(servers)
    theirs, role = ensure_engine(servers, namespace="evil"), ensure_role(servers, namespace="evil")
    hint = "annotates the AppBinding with leasegate.dev/allow-from: evil"
    with pytest.raises(NotAllowedFromError, match=hint):
        engine.EnsureEngine(theirs)
    with pytest.raises(NotAllowedFromError, match=hint):
        roles.EnsureDbRole(role)
    for name in ("k8s.other.evil.db", "k8s.-.evil", "k8s.", "k8s.-.ev*l.db"):  # nobody's, or of another cluster
        role.definition.db_name = name
        with pytest.raises((NotAllowedFromError, SpecInvalidError)):
            roles.EnsureDbRole(role)
    servers.must("POST", f"{MOUNT}/config/operators", plugin_name="postgresql-database-plugin", **OPERATORS)
    role.definition.db_name = "operators"  # written by Vault's operator for the mount's own namespace
    with pytest.raises(NotAllowedFromError, match="written by an operator, for namespace demo"):
        roles.EnsureDbRole(role)
    assert in_vault(servers) == before


def test_the_owner_of_a_database_allows_a_namespace(servers: Servers, engine: EngineStub, roles: RoleStub) -> None:
    theirs, role = (
        ensure_engine(servers, "team/evils", namespace="ns-b"),
        ensure_role(servers, "team/evils", namespace="ns-b"),
    )
    theirs.connection_allow_from.extend(["ns-b", "ns-c"])
    engine.EnsureEngine(theirs)
    with pytest.raises(NotAllowedFromError):
        roles.EnsureDbRole(role)
    role.connection_allow_from.append("ns-b")
    roles.EnsureDbRole(role)
    assert issue(servers, "k8s.-.ns-b.psql-role", mount="team/evils")["username"]
    data = servers.must("GET", "team/evils/config/k8s.-.demo.postgres-app")["data"]
    assert data["allowed_roles"] == ["k8s.-.demo.*", "k8s.-.ns-b.*", "k8s.-.ns-c.*", "leasegate-cleanup.*"]


def test_c4_vault_itself_refuses_a_neighbours_role(servers: Servers) -> None:
    """Whoever wrote it, and whatever it is called."""
    for name in ("k8s.-.evil.su", "k8s.-.demox.su", "anything"):
        servers.must("POST", f"{MOUNT}/roles/{name}", db_name="k8s.-.demo.postgres-app", creation_statements=CREATE)
        status, answer = servers.vault("GET", f"{MOUNT}/creds/{name}")
        assert status in (400, 500), answer
        assert "is not an allowed role" in str(answer)


@pytest.mark.parametrize(
    "asked", ["k8s.-.evil.su", "k8s.-.evil.*", "k8s.*", "k8s.-.dem*", "*.su", "k*", "?8s.-.evil.*"]
)
def test_a_connection_names_no_roles_of_a_neighbour(servers: Servers, engine: EngineStub, asked: str) -> None:
    request = ensure_engine(servers)
    request.postgres.allowed_roles[:] = ["k8s.-.demo.psql-role", asked]
    before = in_vault(servers)
    with pytest.raises(SpecInvalidError):
        engine.EnsureEngine(request)
    assert in_vault(servers) == before


def test_a_neighbours_deletion_removes_nothing(servers: Servers, engine: EngineStub) -> None:
    before = in_vault(servers)
    request = delete_engine(servers, namespace="evil")
    for alone in (False, True):
        request.connection_only = alone
        request.quiesce_report.CopyFrom(quiet(servers, MOUNT, "k8s.-.demo.postgres-app" if alone else ""))
        assert not engine.DeleteEngine(request).unmounted
    assert in_vault(servers) == before


def test_the_owners_of_a_mount_are_bounded(servers: Servers, engine: EngineStub) -> None:
    owners = [f"demo/{number:03d}" for number in range(64)]
    text = str(owners).replace("'", '"')
    marker = f'leasegate {{"cluster":"11111111-aaaa","namespace":"demo","owners":{text}}}'
    servers.must("POST", f"sys/mounts/{MOUNT}/tune", description=marker)
    with pytest.raises(MountConflictError, match="64 SecretEngines already"):
        engine.EnsureEngine(ensure_engine(servers))


@pytest.mark.parametrize("names", [["*"], ["Evil"], ["a/b"], [""], [f"n{number}" for number in range(33)]])
def test_a_list_of_namespaces_is_checked(servers: Servers, engine: EngineStub, names: list[str]) -> None:
    for field in ("shared_with", "connection_allow_from"):
        request = ensure_engine(servers)
        getattr(request, field).extend(names)
        with pytest.raises(SpecInvalidError, match=field):
            engine.EnsureEngine(request)


def test_m7_a_mount_is_taken_over_with_the_operators_word(servers: Servers) -> None:
    """The annotation is the taker's word; ``mounts.adoptable`` names the path with its namespace."""
    servers.must("POST", "sys/mounts/team-b", type="database", description="the DBAs' own")
    ours = [{"path": "team-b", "namespaces": ["demo"]}]
    request = ensure_engine(servers, "team-b")
    request.adopt_mount = True
    try:
        with (
            engine_service(servers, mounts={"owned": ours}) as engine,
            pytest.raises(MountConflictError, match=r"mounts\.adoptable"),
        ):
            engine.EnsureEngine(request)
        with engine_service(servers, mounts={"owned": ours, "adoptable": ours}) as engine:
            assert engine.EnsureEngine(request).changed
    finally:
        servers.vault("DELETE", "sys/mounts/team-b")


def test_m7_the_mount_of_a_rebuilt_cluster_is_taken_over_by_name(servers: Servers) -> None:
    request = ensure_engine(servers, uid="22222222-bbbb")
    own = [{"path": MOUNT, "namespaces": ["demo"]}]
    with engine_service(servers, mounts={"owned": own}) as engine:
        with pytest.raises(MountConflictError, match="adopt-mount: from-cluster:11111111-aaaa"):
            engine.EnsureEngine(request)
        request.adopt_from_cluster = "11111111-aaaa"
        with pytest.raises(MountConflictError, match=r"mounts\.adoptable"):
            engine.EnsureEngine(request)
    with engine_service(servers, mounts={"owned": own, "adoptable": own}) as engine:
        request.adopt_from_cluster = "33333333-cccc"  # another one than it is of
        with pytest.raises(MountConflictError):
            engine.EnsureEngine(request)
        request.adopt_from_cluster = "11111111-aaaa"
        assert engine.EnsureEngine(request).changed
        assert '"cluster":"22222222-bbbb","namespace":"demo"' in in_vault(servers)[0]
        with pytest.raises(MountConflictError):
            engine.EnsureEngine(ensure_engine(servers))  # the former cluster, if it lives


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"])
def test_m8_vault_is_not_sent_to_its_own_machine(servers: Servers, host: str) -> None:
    request = ensure_engine(servers)
    request.postgres.database.url = f"postgresql://{host}:5432/postgres"
    with (
        engine_service(servers, localDatabases=False) as engine,
        pytest.raises(SpecInvalidError, match="localDatabases"),
    ):
        engine.EnsureEngine(request)
