"""The engine and role services behind real gRPC servers on loopback, and requests as the watcher builds them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.engine.v1 import engine_service_pb2 as engine_pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import db_role_pb2, role_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2 as roles_pb
from leasegate.types.v1 import types_pb2
from services.common.config import PLAINTEXT, HostPort, ServerConfig
from services.common.rpc.channel import connect
from services.common.rpc.server import Service, running, service
from services.common.vault.scope import Scope
from services.common.vault.sessions import Sessions
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import read_vault_config
from services.engine import scope as engine_scope
from services.engine.engines import SecretEngines
from services.engine.servicer import EngineServicer
from services.roles import scope as roles_scope
from services.roles.roles import DbRoles
from services.roles.servicer import RoleServicer
from tests.servers import Servers
from tests.vaults import MAIN, entry_of, write

MOUNT = "my-postgres-se"
UID = "11111111-aaaa"
ANYBODYS = [
    {"path": path, "namespaces": ["*"]}
    for path in (MOUNT, "database", "team-a", "team-b", "team-c", "team/*", "somewhere-else")
]
CLEANUP_ROLE = "leasegate-cleanup.0123456789ab"
CREATE = (
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";',
)


@contextmanager
def own_auth_file(servers: Servers, policy: str, *addresses: str, **changes: Any) -> Iterator[Path]:
    """The file of --vault-config by which a service authenticates as itself at the tests' Vault, with one policy.

    Unless ``changes`` says otherwise, every path is for every namespace.
    """
    servers.vault("POST", "sys/auth/own", type="approle")
    servers.must("POST", f"auth/own/role/{policy}", token_policies=[policy], token_no_default_policy=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        role_id = servers.must("GET", f"auth/own/role/{policy}/role-id")["data"]["role_id"]
        secret_id = servers.must("POST", f"auth/own/role/{policy}/secret-id", metadata="{}")["data"]["secret_id"]
        (folder / "role-id").write_text(role_id)
        (folder / "secret-id").write_text(secret_id)
        files = {"roleIdFile": str(folder / "role-id"), "secretIdFile": str(folder / "secret-id")}
        auth = {service: {"approle": {"mount": "own", **files}} for service in ("engine", "roles", "access")}
        changes = {"mounts": {"owned": ANYBODYS, "adoptable": ANYBODYS}, "auth": auth} | changes
        yield write(folder / "own.yaml", entry_of(servers, *addresses, **changes))


def vaults_of(file: Path) -> Vaults:
    """What a service makes of such a file."""
    return Vaults(read_vault_config(file), service="engine")


def own_sessions(servers: Servers) -> set[str]:
    """Accessors of all sessions that services opened so."""
    found: set[str] = set()
    for accessor in servers.must("LIST", "auth/token/accessors")["data"]["keys"]:
        status, body = servers.vault("POST", "auth/token/lookup-accessor", accessor=accessor)
        if status == 200 and body["data"]["path"] == "auth/own/login":
            found.add(accessor)
    return found


@contextmanager
def service_sessions(
    servers: Servers, scope: Scope, policy: str, *addresses: str, **changes: Any
) -> Iterator[Sessions]:
    """Sessions of a service that acts with its own auth."""
    with (
        own_auth_file(servers, policy, *addresses, **changes) as file,
        closing(Sessions(scope, vaults=vaults_of(file))) as sessions,
    ):
        yield sessions


@contextmanager
def engine_service(
    servers: Servers, *addresses: str, **changes: Any
) -> Iterator[engine_service_pb2_grpc.EngineServiceStub]:
    """The engine service and a stub to call it."""
    with (
        service_sessions(servers, engine_scope.SCOPE, "leasegate-engine", *addresses, **changes) as sessions,
        engine_service_with(sessions) as stub,
    ):
        yield stub


@contextmanager
def engine_service_with(sessions: Sessions) -> Iterator[engine_service_pb2_grpc.EngineServiceStub]:
    """The engine service with these sessions, and a stub to call it."""
    descriptor = engine_pb.DESCRIPTOR.services_by_name["EngineService"]
    servicer = EngineServicer(SecretEngines(sessions), sessions._vaults)
    add = engine_service_pb2_grpc.add_EngineServiceServicer_to_server
    with _serving("engine", service(descriptor, add, servicer), sessions) as address:
        channel = connect(address, tls=None)
        yield engine_service_pb2_grpc.EngineServiceStub(channel)
        channel.close()


@contextmanager
def role_service(servers: Servers) -> Iterator[role_service_pb2_grpc.RoleServiceStub]:
    """The role service and a stub to call it."""
    descriptor = roles_pb.DESCRIPTOR.services_by_name["RoleService"]
    add = role_service_pb2_grpc.add_RoleServiceServicer_to_server
    with (
        service_sessions(servers, roles_scope.SCOPE, "leasegate-roles") as sessions,
        _serving(
            "roles", service(descriptor, add, RoleServicer(DbRoles(sessions), sessions._vaults)), sessions
        ) as address,
    ):
        channel = connect(address, tls=None)
        stub = role_service_pb2_grpc.RoleServiceStub(channel)
        ensure = stub.EnsureDbRole
        stub.EnsureDbRole = lambda request: ensure(counted_for(request))  # type: ignore[assignment]
        yield stub
        channel.close()


def counted_for(request: roles_pb.EnsureDbRoleRequest) -> roles_pb.EnsureDbRoleRequest:
    """The request with access' report for what it asks for, unless its report is for something else already."""
    if not request.HasField("pause_report") or request.pause_report.HasField("revocation"):
        return request
    asked = roles_pb.EnsureDbRoleRequest()
    asked.CopyFrom(request)
    asked.pause_report.revocation.CopyFrom(revocation_of(request.definition))
    return asked


def revocation_of(
    definition: db_role_pb2.DbRoleDefinition, *, connection: str = "", statements: Sequence[str] | None = None
) -> types_pb2.LeaseRevocation:
    """How leases of a role with this definition end, or with what is given instead."""
    return types_pb2.LeaseRevocation(
        connection=connection or definition.db_name,
        statements=definition.revocation_statements if statements is None else statements,
    )


@contextmanager
def _serving(process: str, what: Service, sessions: Sessions) -> Iterator[HostPort]:
    anywhere = HostPort("127.0.0.1", 0)
    config = ServerConfig(
        process=process,
        listen=anywhere,
        health_listen=anywhere,
        drain_delay_s=0,
        allow={what.name: frozenset({PLAINTEXT})},
    )
    with running(config, [what], health=sessions.serving) as server:
        yield server.address


def target(servers: Servers, *, auth: bool = True, token: str = "", name: str = "vault") -> types_pb2.VaultTarget:
    """The AppBinding ``demo/vault``, with a team's token that has no right in Vault."""
    message = types_pb2.VaultTarget(
        source=types_pb2.ObjectRef(cluster="-", cluster_uid=UID, namespace="demo", name=name),
        address=servers.vault_addr.replace("https", "HTTPS"),
        ca_bundle=servers.vault_ca.read_bytes(),
    )
    if auth:
        message.token.token = token or _team_token(servers.root_token, servers)
    return message


_TEAM_TOKENS: dict[str, str] = {}


def _team_token(vault: str, servers: Servers) -> str:
    """One for each Vault, as a team has one token and not one for each call."""
    if vault not in _TEAM_TOKENS:
        _TEAM_TOKENS[vault] = servers.team_token()
    return _TEAM_TOKENS[vault]


def owner(name: str = "postgresql-engine", *, uid: str = UID, namespace: str = "demo") -> types_pb2.ObjectRef:
    """An object of the cluster ``uid``."""
    return types_pb2.ObjectRef(
        cluster="-", cluster_uid=uid, namespace=namespace, name=name, uid=f"uid-of-{name}", generation=1
    )


def connection(servers: Servers, *, name: str = "k8s.-.demo.postgres-app") -> engine_pb.PostgresConnection:
    """The guide's ``postgres-app``."""
    return engine_pb.PostgresConnection(
        name=name,
        plugin_name="postgresql-database-plugin",
        allowed_roles=["*"],
        database=types_pb2.Database(
            service=types_pb2.ServiceAddress(
                scheme="postgresql",
                host=servers.postgres_host,
                port=servers.postgres_port,
                path="postgres",
                query="sslmode=disable",
            ),
            username="postgres",
            password="root",
        ),
    )


def ensure_engine(
    servers: Servers,
    path: str = MOUNT,
    *,
    uid: str = UID,
    name: str = "postgresql-engine",
    namespace: str = "demo",
    app_binding: str = "demo.postgres-app",
) -> engine_pb.EnsureEngineRequest:
    """The guide's SecretEngine."""
    return engine_pb.EnsureEngineRequest(
        owner=owner(name, uid=uid, namespace=namespace),
        target=target(servers),
        mount=path,
        postgres=connection(servers, name=f"k8s.-.{app_binding}"),
        pause_report=paused(servers, path),
    )


def ensure_role(
    servers: Servers, mount: str = MOUNT, *, uid: str = UID, name: str = "psql-role", namespace: str = "demo"
) -> roles_pb.EnsureDbRoleRequest:
    """The guide's PostgresRole."""
    return roles_pb.EnsureDbRoleRequest(
        owner=owner(name, uid=uid, namespace=namespace),
        target=target(servers),
        mount=mount,
        pause_report=paused(servers, mount),
        definition=db_role_pb2.DbRoleDefinition(
            db_name="k8s.-.demo.postgres-app",
            creation_statements=CREATE,
            default_ttl=Duration(seconds=3600),
            max_ttl=Duration(seconds=86400),
        ),
    )


def quiet(
    servers: Servers, mount: str = MOUNT, connection: str = "", *, remaining: int = 0, age_s: float = 0
) -> types_pb2.QuiesceReport:
    """Access' answer, good for ten seconds."""
    counted = Timestamp()
    counted.FromNanoseconds(int((time.time() - age_s) * 1e9))
    return types_pb2.QuiesceReport(
        target=types_pb2.VaultTargetRef(
            cluster="-", namespace="demo", name="vault", vault=MAIN, address=servers.vault_addr
        ),
        mount=mount,
        connection=connection,
        open_attempts=remaining,
        count_time=counted,
        valid_for=Duration(seconds=10),
    )


def paused(
    servers: Servers,
    mount: str = MOUNT,
    *,
    connection: str = "",
    vault_role: str = "",
    under_way: int = 0,
    revocation: types_pb2.LeaseRevocation | None = None,
    revoked_otherwise: int = 0,
    age_s: float = 0,
) -> types_pb2.PauseReport:
    """Access' answer that everything on a mount is paused, or what is named; good for ten minutes."""
    report = quiet(servers, mount, connection, age_s=age_s)
    return types_pb2.PauseReport(
        target=report.target,
        mount=mount,
        connection=connection,
        vault_role=vault_role,
        calls_under_way=under_way,
        count_time=report.count_time,
        valid_for=Duration(seconds=600),
        revocation=revocation,
        leases_revoked_otherwise=revoked_otherwise,
    )


def delete_engine(
    servers: Servers,
    path: str = MOUNT,
    *,
    uid: str = UID,
    name: str = "postgresql-engine",
    namespace: str = "demo",
) -> engine_pb.DeleteEngineRequest:
    """The guide's SecretEngine, gone, with nothing left of it in use."""
    return engine_pb.DeleteEngineRequest(
        owner=owner(name, uid=uid, namespace=namespace),
        target=target(servers),
        mount=path,
        connection="k8s.-.demo.postgres-app",
        quiesce_report=quiet(servers, path),
    )


def cleanup_role(
    servers: Servers, *, force_drop: bool = False, keep_owners: bool = False, revocation: tuple[str, ...] = ()
) -> roles_pb.EnsureCleanupRoleRequest:
    """A cleanup role for attempts of the guide's role."""
    return roles_pb.EnsureCleanupRoleRequest(
        target=target(servers),
        mount=MOUNT,
        name=CLEANUP_ROLE,
        connection="k8s.-.demo.postgres-app",
        revocation_statements=revocation,
        force_drop=force_drop,
        keep_owners=keep_owners,
    )


def issue(
    servers: Servers, role: str, display_name: str = "demo-psql-role-abc", *, mount: str = MOUNT
) -> dict[str, str]:
    """A credential as access would get it; answers also its lease id."""
    token = servers.must(
        "POST", "auth/token/create", policies=["leasegate-issuer"], display_name=display_name, no_parent=True
    )["auth"]
    answer = servers.must("GET", f"{mount}/creds/{role}", token["client_token"])
    return {**answer["data"], "lease_id": answer["lease_id"]}


def revoke(servers: Servers, lease: dict[str, str]) -> int:
    return servers.vault("POST", f"sys/leases/revoke/{lease['lease_id']}", sync=True)[0]


def exists(servers: Servers, user: str) -> bool:
    return bool(servers.psql(f"SELECT 1 FROM pg_roles WHERE rolname = '{user}'"))  # noqa: S608 - a name that Vault made


def log_in(servers: Servers, lease: dict[str, str]) -> psycopg.Connection[tuple[object, ...]]:
    place = {"host": servers.postgres_host, "port": servers.postgres_port, "dbname": "postgres"}
    return psycopg.connect(**place, user=lease["username"], password=lease["password"], autocommit=True)  # type: ignore[arg-type]
