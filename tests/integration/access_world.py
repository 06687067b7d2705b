"""The access service on real servers: a mount with a connection and a role, mutual TLS, its callers, a fake watcher.

The watcher is played where the service needs it: it reads the change feed and makes the cleanup roles, with the role
service's statements.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import psycopg
import yaml
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import access_request_pb2, approval_pb2, change_pb2, lease_pb2
from leasegate.access.v1 import approver_service_pb2 as approver
from leasegate.access.v1 import approver_service_pb2_grpc as approver_grpc
from leasegate.access.v1 import operator_service_pb2_grpc as operator_grpc
from leasegate.access.v1 import requester_service_pb2 as requester
from leasegate.access.v1 import requester_service_pb2_grpc as requester_grpc
from leasegate.access.v1 import watcher_service_pb2 as watcher
from leasegate.access.v1 import watcher_service_pb2_grpc as watcher_grpc
from leasegate.roles.v1 import db_role_pb2
from leasegate.types.v1 import types_pb2
from services.access.app import access
from services.access.domain import failpoints
from services.access.domain.settings import Settings
from services.access.requests.catalog_file import read_catalog
from services.common.config import ClientTls, HostPort, ServerConfig
from services.common.errors import LeasegateError
from services.common.rpc import status
from services.common.rpc.channel import connect
from services.common.rpc.server import running
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import read_vault_config
from services.roles.definition import cleanup_role as cleanup_role_definition
from tests.certificates import Authority
from tests.eventually import eventually
from tests.servers import Servers
from tests.vaults import ANY_VAULT, MAIN, entry_of, write

SECOND = "second"
"""A Vault that nothing is in: a Vault namespace that does not exist, at the address of the other entry."""
MOUNT, DB, ROLE = "team/access", "k8s.-.demo.postgres-app", "k8s.-.demo.psql-role"
CREATE = ["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"]
CLUSTER_UID = "7f1c4a90-0000-4000-8000-00000000c1d2"
ANYWHERE = HostPort("127.0.0.1", 0)
WATCHER, ALICE, BOB, CAROL = (
    f"spiffe://leasegate/{name}" for name in ("watcher", "client/alice", "client/bob", "client/carol")
)
OPERATOR = "spiffe://leasegate/operator"
OTHER_WATCHER, OTHER_CLUSTER_UID = "spiffe://leasegate/other-watcher", "0a0b0c0d-0000-4000-8000-00000000c1d2"
WATCHER_CLUSTERS = {WATCHER: CLUSTER_UID, OTHER_WATCHER: OTHER_CLUSTER_UID}
ALLOWED = {
    "leasegate.access.v1.WatcherService": {WATCHER, OTHER_WATCHER},
    "leasegate.access.v1.RequesterService": {WATCHER, ALICE, BOB},
    "leasegate.access.v1.ApproverService": {ALICE, CAROL},
    "leasegate.access.v1.OperatorService": {OPERATOR},
}


@dataclass(frozen=True, slots=True)
class Callers:
    """The stubs of one caller."""

    watcher: watcher_grpc.WatcherServiceStub
    requester: requester_grpc.RequesterServiceStub
    approver: approver_grpc.ApproverServiceStub
    operator: operator_grpc.OperatorServiceStub


@dataclass
class World:
    """Everything that stays when the service is started again."""

    servers: Servers
    folder: Path
    authority: Authority
    mount: str = MOUNT
    clients: dict[str, ClientTls] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def vault_config_file(self) -> Path:
        return self.folder / "vaults.yaml"

    @property
    def catalog_file(self) -> Path:
        return self.folder / "catalog.yaml"

    def client(self, san: str) -> ClientTls:
        if san not in self.clients:
            self.clients[san] = self.authority.client(san, name=san.rpartition("/")[2]).client()
        return self.clients[san]

    def database_users(self) -> set[str]:
        """The attempts' roles in PostgreSQL, those that may log in and those that may not."""
        return {row[0] for row in self.servers.psql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'token-%'")}

    def can_log_in(self, credential: lease_pb2.Credential) -> bool:
        try:
            self.connect(credential).close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, credential: lease_pb2.Credential) -> psycopg.Connection[Any]:
        where: dict[str, Any] = {
            "host": self.servers.postgres_host,
            "port": self.servers.postgres_port,
            "dbname": "postgres",
        }
        return psycopg.connect(
            **where, user=credential.username, password=credential.password, autocommit=True, connect_timeout=5
        )

    def leases(self, role: str = ROLE) -> set[str]:
        status, body = self.servers.vault("LIST", f"sys/leases/lookup/{self.mount}/creds/{role}")
        return set(body["data"]["keys"]) if status == 200 else set()

    def write_role(
        self,
        name: str = ROLE,
        *,
        ttl: str = "1h",
        max_ttl: str = "24h",
        create: list[str] | None = None,
        revoke: list[str] | None = None,
    ) -> None:
        role = {"db_name": DB, "default_ttl": ttl, "max_ttl": max_ttl}
        self.servers.must(
            "POST",
            f"{self.mount}/roles/{name}",
            **role,
            creation_statements=create or CREATE,
            revocation_statements=revoke or [],
        )

    def target_ref(self) -> types_pb2.VaultTargetRef:
        return types_pb2.VaultTargetRef(
            cluster="-", namespace="demo", name="vault", vault=MAIN, address=self.servers.vault_addr
        )

    def snapshot(
        self,
        *,
        create: list[str] | None = None,
        ttl_s: int = 3600,
        max_ttl_s: int = 86400,
        name: str = "psql-role",
        revoke: list[str] | None = None,
        allow_from: Sequence[str] = (),
        allow_subjects_from: Sequence[str] = (),
    ) -> db_role_pb2.DbRoleSnapshot:
        return db_role_pb2.DbRoleSnapshot(
            object=types_pb2.ObjectRef(cluster="-", cluster_uid=CLUSTER_UID, namespace="demo", name=name),
            target=self.target_ref(),
            mount=self.mount,
            vault_role=f"k8s.-.demo.{name}",
            definition=db_role_pb2.DbRoleDefinition(
                db_name=DB,
                creation_statements=create or CREATE,
                revocation_statements=revoke or [],
                default_ttl=Duration(seconds=ttl_s),
                max_ttl=Duration(seconds=max_ttl_s),
            ),
            digest="d" * 64,
            database="127.0.0.1:5432/postgres",
            plugin="postgresql-database-plugin",
            allow_from=allow_from,
            allow_subjects_from=allow_subjects_from,
        )


@contextmanager
def world(servers: Servers, folder: Path, *, mount: str = MOUNT) -> Iterator[World]:
    """A mount, a connection and a role in Vault, the service's own auth, and a catalog; all are deleted afterwards."""
    made = World(servers=servers, folder=folder, authority=Authority(folder / "tls"), mount=mount)
    add_mount(made)
    _service_auth(made)
    _catalog(made)
    try:
        yield made
    finally:
        servers.must("DELETE", f"sys/mounts/{made.mount}")
        for user in made.database_users():
            servers.psql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')


def add_mount(made: World) -> None:
    """The mount with its connection and the guide's role."""
    s = made.servers
    s.must("POST", f"sys/mounts/{made.mount}", type="database")
    s.must(
        "POST",
        f"{made.mount}/config/{DB}",
        plugin_name="postgresql-database-plugin",
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{s.postgres_host}:{s.postgres_port}/postgres?sslmode=disable",
        username="postgres",
        password="root",
        allowed_roles="*",
        username_template="{{ .DisplayName | truncate 63 }}",
    )
    made.write_role()


def _service_auth(made: World) -> None:
    s = made.servers
    if "approle/" not in s.must("GET", "sys/auth")["data"]:
        s.must("POST", "sys/auth/approle", type="approle")
    s.must(
        "POST",
        "auth/approle/role/leasegate-access",
        token_policies=["leasegate-access"],
        token_no_default_policy=True,
        token_ttl="1h",
    )
    (made.folder / "role_id").write_text(s.must("GET", "auth/approle/role/leasegate-access/role-id")["data"]["role_id"])
    (made.folder / "secret_id").write_text(
        s.must("POST", "auth/approle/role/leasegate-access/secret-id")["data"]["secret_id"]
    )
    files = {"roleIdFile": str(made.folder / "role_id"), "secretIdFile": str(made.folder / "secret_id")}
    write(
        made.vault_config_file,
        entry_of(s, auth={"access": {"approle": files}}, maxRequestDuration="5s"),
        entry_of(s, name=SECOND, vaultNamespace="second", auth={"access": {"approle": files}}),
    )


def _catalog(made: World) -> None:
    usual = {"target": "prod", "mount": made.mount, "db_name": DB}
    roles = [
        usual | {"name": "reader", "vault_role": ROLE, "default_ttl": "1h", "max_ttl": "24h"},
        usual | {"name": "brief", "default_ttl": "3s", "max_ttl": "8s"},
        usual | {"name": "held", "default_ttl": "15s", "max_ttl": "40s"},
    ]
    target = {"name": "prod", "vault": MAIN}
    made.catalog_file.write_text(yaml.safe_dump({"targets": [target], "roles": roles}))


class Callee:
    """The running service as its callers reach it."""

    def __init__(self, made: World, address: str) -> None:
        self._world, self.address = made, address
        self._channels: dict[str, grpc.Channel] = {}

    def as_(self, san: str) -> Callers:
        channel = self._channels.setdefault(san, connect(self.address, tls=self._world.client(san)))
        return Callers(
            watcher_grpc.WatcherServiceStub(channel),
            requester_grpc.RequesterServiceStub(channel),
            approver_grpc.ApproverServiceStub(channel),
            operator_grpc.OperatorServiceStub(channel),
        )

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


@contextmanager
def in_process(made: World, *, own: bool = True, **settings: Any) -> Iterator[Callee]:
    """The service in this process, behind a real server; without its own auth every Vault is allowed."""
    config = ServerConfig(
        process="access",
        listen=ANYWHERE,
        health_listen=ANYWHERE,
        drain_delay_s=0,
        drain_grace_s=5,
        tls=made.authority.server().server(),
        allow={name: frozenset(callers) for name, callers in ALLOWED.items()},
    )
    named = read_vault_config(made.vault_config_file) if own else ANY_VAULT
    chosen = Settings(**{"max_request_duration_s": 5.0, **settings})
    with ExitStack() as stack:
        service = stack.enter_context(
            access(
                made.ledger,
                vaults=Vaults(named, service="access"),
                configured=read_catalog(made.catalog_file, named) if own else (),
                watcher_clusters=WATCHER_CLUSTERS,
                settings=chosen,
                clock=time.time,
            )
        )
        server = stack.enter_context(
            running(config, service.services, health=service.ready, long_polls=service.polls, on_drain=service.wake)
        )
        callee = Callee(made, str(server.address))
        stack.callback(server.drain)
        stack.callback(callee.close)
        yield callee


@dataclass
class Killed:
    """The service as a process of its own, which may be killed."""

    made: World
    process: subprocess.Popen[bytes]
    callee: Callee
    log: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def close(self) -> None:
        self.callee.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)


def start(made: World, *switches: str, crash_at: str = "", **options: str) -> Killed:
    """Start the service as a process; ``crash_at`` names a point to die at, ``switches`` options without a value."""
    made.client(WATCHER)
    server = made.authority.server().server()
    number = len(list(made.folder.glob("access-*.log")))
    address, log = made.folder / f"address-{number}", made.folder / f"access-{number}.log"
    flags = {
        "ledger": made.ledger,
        "catalog": made.catalog_file,
        "vault-config": made.vault_config_file,
        "listen": "127.0.0.1:0",
        "health-listen": "127.0.0.1:0",
        "address-file": address,
        "tls-cert": server.cert,
        "tls-key": server.key,
        "tls-client-ca": server.client_ca,
        "drain-delay": "0",
        **options,
    }
    command = [sys.executable, "-m", "services.access", *(f"--{name}={value}" for name, value in flags.items())]
    command += [f"--{switch}" for switch in switches]
    command += [f"--watcher-cluster={name}={uid}" for name, uid in WATCHER_CLUSTERS.items()]
    command += [f"--allow={name}={caller}" for name, callers in ALLOWED.items() for caller in sorted(callers)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stderr=out, env={**os.environ, **({failpoints.VARIABLE: crash_at} if crash_at else {})}
        )
    try:
        eventually(lambda: process.poll() is not None or address.exists(), timeout_s=30)
        assert process.poll() in ((None, 137) if crash_at else (None,)), log.read_text()
        bound = (
            address.read_text().strip() if address.exists() else "127.0.0.1:1"
        )  # nobody answers there: it died before it could
        return Killed(made, process, Callee(made, bound), log)
    except BaseException:
        process.kill()
        process.wait()
        raise


class Watcher:
    """Reads the change feed and makes and removes cleanup roles, as the watcher does through the role service."""

    def __init__(self, made: World, callee: Callee) -> None:
        self._world, self._stub = made, callee.as_(WATCHER).watcher
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.changes: list[change_pb2.Change] = []
        self.cleanup_roles: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        cursor = ""
        while not self._stop.is_set():
            try:
                answer = self._stub.WatchChanges(
                    watcher.WatchChangesRequest(cursor=cursor, max_wait=Duration(seconds=1))
                )
                for change in answer.changes:
                    self._take(change)
            except LeasegateError:
                self._stop.wait(0.1)
                continue
            cursor = answer.next_cursor

    def _take(self, change: change_pb2.Change) -> None:
        self.changes.append(change)
        if change.HasField("cleanup_role_needed"):
            need = change.cleanup_role_needed
            definition = cleanup_role_definition(
                db_name=need.connection,
                revocation_statements=tuple(need.revocation_statements),
                force_drop=need.force_drop,
                keep_owners=need.keep_owners,
            )
            status, body = self._world.servers.vault("POST", f"{need.mount}/roles/{need.name}", **definition.payload())
            error = "" if status < 300 else f"Vault answered {status}: {body}"
            if not error:
                self.cleanup_roles.add(need.name)
            self._stub.ReportCleanupRole(
                watcher.ReportCleanupRoleRequest(name=need.name, target=need.target, mount=need.mount, error=error)
            )
        elif change.HasField("cleanup_role_unneeded"):
            gone = change.cleanup_role_unneeded
            self._world.servers.must("DELETE", f"{gone.mount}/roles/{gone.name}")
            self.cleanup_roles.discard(gone.name)


def decision(kind: str = "APPROVED", *, digest: str = "", approver: str = "carol") -> approval_pb2.Decision:
    """A decision as kubectl writes it."""
    return approval_pb2.Decision(
        kind=approval_pb2.DecisionKind.Value(f"DECISION_KIND_{kind}"),
        approver=approver,
        proof=approval_pb2.APPROVER_PROOF_ADMISSION,
        reason="KubectlApprove" if kind == "APPROVED" else "KubectlDeny",
        decide_time=Timestamp(seconds=1_700_000_000),
        digest=digest,
    )


class Dar:
    """One DatabaseAccessRequest, as the watcher forwards it."""

    def __init__(self, callee: Callee, *, role: str = "psql-role", ttl_s: int = 0, namespace: str = "demo") -> None:
        self.calls = callee.as_(WATCHER)
        name = f"cred-{secrets.token_hex(3)}"
        ref = types_pb2.ObjectRef(
            cluster="-", cluster_uid=CLUSTER_UID, namespace=namespace, name=name, uid=f"uid-{name}", generation=1
        )
        self.desired = watcher.EnsureAccessRequestRequest(
            object=ref,
            db_role=types_pb2.ObjectRef(cluster="-", cluster_uid=CLUSTER_UID, namespace="demo", name=role),
            subjects=[access_request_pb2.Subject(kind="ServiceAccount", name="demo-sa", namespace="demo")],
            ttl=Duration(seconds=ttl_s) if ttl_s else None,
            requester="system:serviceaccount:demo:someone",
        )

    @property
    def uid(self) -> str:
        return self.desired.object.uid

    def again(self, callee: Callee) -> Dar:
        """The same object, at a service that was started again."""
        other = Dar(callee)
        other.desired.CopyFrom(self.desired)
        return other

    def ensure(self, *, secret_attempt: int = 0, claim: bool = False) -> watcher.EnsureAccessRequestResponse:
        self.desired.secret_attempt, self.desired.claim = secret_attempt, claim
        answer = self.calls.watcher.EnsureAccessRequest(self.desired)
        self.desired.status_digest = answer.access_request.digest
        return answer

    def decide(
        self, kind: str = "APPROVED", *, digest: str | None = None, claim: bool = False
    ) -> watcher.EnsureAccessRequestResponse:
        self.decided(kind, digest=digest)
        return self.ensure(claim=claim)

    def decided(self, kind: str = "APPROVED", *, digest: str | None = None) -> None:
        """Somebody has decided, which the watcher has not forwarded yet."""
        self.desired.decisions.append(decision(kind, digest=self.desired.status_digest if digest is None else digest))

    def claimed(self, answer: watcher.EnsureAccessRequestResponse, *, secret_attempt: int = 0) -> lease_pb2.Credential:
        """What an answer carries if it had been asked to claim, else what a call of its own claims.

        Raises:
            LeasegateError: Either claim failed so.
        """
        if answer.HasField("claim_error"):
            raise status.from_any(answer.claim_error)
        return answer.credential if answer.HasField("credential") else self.claim(secret_attempt=secret_attempt)

    def claim(self, *, secret_attempt: int = 0) -> lease_pb2.Credential:
        return self.calls.requester.ClaimCredential(
            requester.ClaimCredentialRequest(access_request_id=self.uid, known_attempt=secret_attempt)
        ).credential

    def acknowledge(self, attempt: int) -> access_request_pb2.AccessRequest:
        message = requester.AcknowledgeCredentialRequest(access_request_id=self.uid, attempt=attempt)
        return self.calls.requester.AcknowledgeCredential(message).access_request

    def end(self) -> watcher.DeleteAccessRequestResponse:
        return self.calls.watcher.DeleteAccessRequest(watcher.DeleteAccessRequestRequest(object=self.desired.object))

    def issue(self) -> lease_pb2.Credential:
        """From nothing to an acknowledged credential."""
        self.ensure()
        self.decide()
        credential = self.claim()
        self.acknowledge(credential.attempt)
        return credential


def put_role(made: World, callee: Callee, **changes: Any) -> None:
    """Put the role into the catalog, as the watcher does."""
    callee.as_(WATCHER).watcher.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=made.snapshot(**changes)))


def ask(
    callee: Callee, *, san: str = ALICE, ttl_s: int = 0, request_id: str = "", ticket: str = ""
) -> access_request_pb2.AccessRequest:
    """An access request over gRPC for the role of the catalog file."""
    message = requester.CreateAccessRequestRequest(
        request_id=request_id or secrets.token_hex(8),
        vault_target="prod",
        db_role="reader",
        reason="to look",
        ticket=ticket,
    )
    if ttl_s:
        message.ttl.FromSeconds(ttl_s)
    return callee.as_(san).requester.CreateAccessRequest(message).access_request


def approve(callee: Callee, uid: str, *, san: str = CAROL, **changes: str) -> access_request_pb2.AccessRequest:
    """Approve over gRPC."""
    message = approver.ApproveAccessRequestRequest(
        **{"request_id": secrets.token_hex(8), "access_request_id": uid, **changes}
    )
    return callee.as_(san).approver.ApproveAccessRequest(message).access_request


def deny(callee: Callee, uid: str, *, san: str = CAROL) -> access_request_pb2.AccessRequest:
    """Deny over gRPC."""
    return (
        callee.as_(san)
        .approver.DenyAccessRequest(
            approver.DenyAccessRequestRequest(request_id=secrets.token_hex(8), access_request_id=uid)
        )
        .access_request
    )
