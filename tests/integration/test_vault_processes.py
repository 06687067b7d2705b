"""The engine and role services as processes: mutual TLS, only the watcher may call, and a drain revokes sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2 as roles_pb
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.errors import CallerNotAllowedError
from services.common.rpc.channel import connect
from tests.certificates import LOCALHOST, Authority
from tests.eventually import eventually
from tests.integration.vault_services import (
    MOUNT,
    counted_for,
    delete_engine,
    ensure_engine,
    ensure_role,
    own_auth_file,
    own_sessions,
    owner,
    target,
)
from tests.servers import Servers, real_servers

ROOT = Path(__file__).parents[2]
SERVICES = {"engine": "leasegate.engine.v1.EngineService", "roles": "leasegate.roles.v1.RoleService"}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers of its own, as these tests look at everything that is left in Vault."""
    with real_servers() as running:
        yield running


class Running:
    """One process, its address and its log."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process, self._folder = process, folder

    @property
    def address(self) -> str:
        """Where it listens; empty until it does."""
        path = self._folder / "address"
        return path.read_text().strip() if path.exists() else ""

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@contextmanager
def started(name: str, folder: Path, *arguments: str) -> Iterator[Running]:
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        f"services.{name}",
        "--listen=127.0.0.1:0",
        "--health-listen=127.0.0.1:0",
        "--drain-delay=0",
    ]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--address-file={folder / 'address'}", *arguments], env=env, cwd=ROOT, stderr=log
        )
    try:
        yield Running(process, folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=20)


def test_both_processes_serve_the_watcher_alone_and_leave_no_session(servers: Servers, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server = authority.issue("server", *LOCALHOST)
    watcher = authority.issue("watcher", x509.UniformResourceIdentifier("spiffe://leasegate/watcher"))
    other = authority.issue("other", x509.UniformResourceIdentifier("spiffe://leasegate/client/x"))
    tls = [
        f"--tls-cert={server.cert}",
        f"--tls-key={server.key}",
        f"--tls-client-ca={authority.ca}",
    ]
    allow = {name: f"--allow={service}=spiffe://leasegate/watcher" for name, service in SERVICES.items()}
    with (
        own_auth_file(servers, "leasegate-engine") as engines_own,
        own_auth_file(servers, "leasegate-roles") as roles_own,
        started("engine", tmp_path / "engine", *tls, allow["engine"], f"--vault-config={engines_own}") as engine,
        started("roles", tmp_path / "roles", *tls, allow["roles"], f"--vault-config={roles_own}") as roles,
    ):
        for each in (engine, roles):
            eventually(lambda each=each: each.address, what=each.log())  # type: ignore[misc]
        engine_channel, roles_channel = (connect(each.address, tls=watcher.client()) for each in (engine, roles))
        engines = engine_service_pb2_grpc.EngineServiceStub(engine_channel)
        role_stub = role_service_pb2_grpc.RoleServiceStub(roles_channel)

        engines.EnsureEngine(ensure_engine(servers))
        role_stub.EnsureDbRole(counted_for(ensure_role(servers)))
        assert len(own_sessions(servers)) == 2
        stranger = connect(engine.address, tls=other.client())
        with pytest.raises(CallerNotAllowedError):
            engine_service_pb2_grpc.EngineServiceStub(stranger).EnsureEngine(ensure_engine(servers))
        role_stub.DeleteDbRole(
            roles_pb.DeleteDbRoleRequest(owner=owner("psql-role"), target=target(servers), mount=MOUNT)
        )
        assert engines.DeleteEngine(delete_engine(servers)).unmounted

        for channel in (engine_channel, roles_channel, stranger):
            channel.close()
        assert [each.stop() for each in (engine, roles)] == [0, 0]
        assert own_sessions(servers) == set()
        assert '"root"' not in engine.log()
        assert "mount enabled" in engine.log()


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--tls-cert"),
        (["--plaintext-loopback"], "--vault-config is missing"),
        (["--plaintext-loopback", "--allow-any-vault", "--vault-config={file}"], "exclude each other"),
        (["--plaintext-loopback", "--vault-config={file}"], "list `vaults`"),
        (["--plaintext-loopback", "--vault-config={file}/none"], "none"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(name: str, arguments: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- {address: vault}")
    with started(name, tmp_path / "p", *(each.format(file=tmp_path / "own.yaml") for each in arguments)) as process:
        assert process.process.wait(timeout=20) == 2
        assert expected in process.log()
        assert len(process.log().splitlines()) == 1
