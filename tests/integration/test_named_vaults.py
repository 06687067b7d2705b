"""Only Vaults that the operator names are called, and another name or address of the same one moves nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from leasegate.access.v1 import approval_pb2, lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as access_pb
from leasegate.roles.v1 import role_service_pb2 as roles_pb
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import CLUSTER_UID, WATCHER, Callee, Dar, World, in_process, put_role, world
from tests.integration.vault_services import (
    CLEANUP_ROLE,
    MOUNT,
    cleanup_role,
    delete_engine,
    engine_service,
    ensure_engine,
    ensure_role,
    owner,
    role_service,
)
from tests.servers import Servers
from tests.vaults import MAIN, write


@contextmanager
def listening() -> Iterator[tuple[str, list[object]]]:
    """A server of a team's own: its address, and what connected to it."""
    taken: list[object] = []

    def take(server: socket.socket) -> None:
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            connection.close()
            taken.append(peer)

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=take, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", taken
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def forged(target: types_pb2.VaultTarget | types_pb2.VaultTargetRef, address: str, vault: str) -> None:
    target.address, target.vault = address, vault


def refused(call: Callable[[Any], object], request: Any, *, address: str, vault: str) -> None:
    forged(request.snapshot.target if hasattr(request, "snapshot") else request.target, address, vault)
    with pytest.raises(errors.VaultNotAllowedError, match="--vault-config") as caught:
        call(request)
    assert caught.value.changed_nothing


@pytest.mark.parametrize("vault", ["", MAIN, "other"])
def test_c2_m8_no_service_calls_an_address_of_no_entry(servers: Servers, made: World, vault: str) -> None:
    with (
        listening() as (address, taken),
        engine_service(servers) as engine,
        role_service(servers) as roles,
        in_process(made) as callee,
    ):
        access, ref = callee.as_(WATCHER).watcher, made.target_ref()
        target = ensure_role(servers).target
        theirs = ensure_role(servers).target
        theirs.source.cluster_uid = CLUSTER_UID
        calls: list[tuple[Callable[[Any], object], Any]] = [
            (engine.EnsureEngine, ensure_engine(servers)),
            (engine.DeleteEngine, delete_engine(servers)),
            (roles.EnsureDbRole, ensure_role(servers)),
            (roles.DeleteDbRole, roles_pb.DeleteDbRoleRequest(owner=owner(), target=target, mount=MOUNT)),
            (roles.EnsureCleanupRole, cleanup_role(servers)),
            (roles.DeleteCleanupRole, roles_pb.DeleteCleanupRoleRequest(target=target, mount=MOUNT, name=CLEANUP_ROLE)),
            (access.EnsureVaultTarget, access_pb.EnsureVaultTargetRequest(target=theirs)),
            (access.PutDbRoleSnapshot, access_pb.PutDbRoleSnapshotRequest(snapshot=made.snapshot())),
            (access.Quiesce, access_pb.QuiesceRequest(target=ref, mount=made.mount)),
            (access.Resume, access_pb.ResumeRequest(target=ref, mount=made.mount)),
            (access.PauseDbRoles, access_pb.PauseDbRolesRequest(target=ref, mount=made.mount)),
            (access.ReportCleanupRole, access_pb.ReportCleanupRoleRequest(name=CLEANUP_ROLE, target=ref)),
        ]
        for call, request in calls:
            refused(call, request, address=address, vault=vault)
        assert taken == []


def test_of_a_caller_only_name_and_session_count(servers: Servers) -> None:
    """The connection goes to the entry's first address, with its certificates, whatever the call says."""
    with engine_service(servers, "http://vault.*.svc:8200") as engine:
        request = ensure_engine(servers)
        request.target.address, request.target.ca_bundle = "HTTP://Vault.demo.svc.:8200/", b""
        request.target.server_name = "elsewhere"
        answer = engine.EnsureEngine(request)
        assert (answer.target.vault, answer.target.address) == (MAIN, servers.vault_addr)
        done = delete_engine(servers)
        done.target.vault, done.quiesce_report.target.vault = MAIN, MAIN
        assert engine.DeleteEngine(done).unmounted


@pytest.mark.parametrize(
    ("namespace", "path"), [("evil", MOUNT), ("evil", "team/demo"), ("", MOUNT), ("shared", "team/shared")]
)
def test_m7_the_engine_refuses_another_namespaces_path(servers: Servers, namespace: str, path: str) -> None:
    owned = [
        {"path": MOUNT, "namespaces": ["demo"]},
        {"path": "team/{namespace}"},
        {"path": "team/shared", "namespaces": ["demo"]},
    ]
    with engine_service(servers, mounts={"owned": owned}) as engine:
        request = ensure_engine(servers, path)
        request.owner.namespace = namespace
        request.postgres.name = f"k8s.-.{namespace}.postgres-app" if namespace else "own"
        request.target.token.token = "s.not-even-tried"
        with pytest.raises(errors.PathNotOwnedError, match=r"mounts\.owned") as caught:
            engine.EnsureEngine(request)
        assert caught.value.changed_nothing
    assert servers.vault("GET", f"sys/mounts/{path}")[0] == 400


# -- the same Vault, under other names and addresses


@pytest.fixture
def made(servers: Servers, tmp_path: Path) -> Iterator[World]:
    with world(servers, tmp_path, mount="team/named") as found:
        yield found


def rewrite(made: World, *more: str, **changes: Any) -> None:
    """Change the entry of the real server in the file."""
    before = yaml.safe_load(made.vault_config_file.read_text())["vaults"][0]
    write(made.vault_config_file, before | {"addresses": [*more, *before["addresses"]]} | changes)


def issued(made: World, callee: Callee) -> tuple[Dar, lease_pb2.Credential]:
    put_role(made, callee)
    dar = Dar(callee)
    return dar, dar.issue()


def goes_on(made: World, callee: Callee, dar: Dar, credential: lease_pb2.Credential, **target: str) -> None:
    """The credential works, the approval counts, and the watcher's next calls change nothing."""
    ref = made.target_ref()
    for name, value in target.items():
        setattr(ref, name, value)
    snapshot = made.snapshot()
    snapshot.target.CopyFrom(ref)
    callee.as_(WATCHER).watcher.PutDbRoleSnapshot(access_pb.PutDbRoleSnapshotRequest(snapshot=snapshot))
    shown = dar.again(callee).ensure(secret_attempt=credential.attempt)
    assert shown.access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
    assert shown.next_step == access_pb.NEXT_STEP_NONE
    assert shown.access_request.open_attempts == 1
    assert made.can_log_in(credential)


def test_m7_report_4_another_name_or_address_revokes_nothing(servers: Servers, made: World) -> None:
    with in_process(made) as callee:
        dar, credential = issued(made, callee)
    localhost = servers.vault_addr.replace("127.0.0.1", "LOCALHOST")
    rewrite(made, localhost, "https://added.example.com", name="new", formerNames=[MAIN])
    with in_process(made) as callee:
        goes_on(made, callee, dar, credential, vault="new", address=servers.vault_addr.replace("https", "HTTPS"))
        goes_on(made, callee, dar, credential, vault="", address="https://ADDED.example.com.:443/")
    rewrite(made, addresses=[localhost], name="newest", formerNames=[MAIN, "new"])
    with in_process(made) as callee:
        goes_on(made, callee, dar, credential, vault=MAIN, address=localhost)
        dar.again(callee).end()
        eventually(lambda: credential.username not in made.database_users(), what="the revocation")


def test_m7_a_removed_vault_is_not_called_and_ends_nothing(servers: Servers, made: World) -> None:
    with in_process(made) as callee:
        dar, credential = issued(made, callee)
    before = made.vault_config_file.read_text()
    made.catalog_file.write_text("")  # it names the entry
    rewrite(made, addresses=["https://127.0.0.1:1"], name="other")
    with in_process(made) as callee:
        assert dar.again(callee).end().open_attempts == 1
        eventually(
            lambda: any("--vault-config" in each.message for each in dar.again(callee).end().conditions),
            what="a condition that says why",
        )
        assert made.can_log_in(credential)
    made.vault_config_file.write_text(before)
    with in_process(made):
        eventually(lambda: credential.username not in made.database_users(), what="the revocation")
