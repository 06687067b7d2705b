"""A Vault that the environment names to the local stack is refused at once where it cannot be used, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dev.stack import bao
from dev.stack.bao import Bao
from dev.stack.errors import StackError
from dev.stack.external_servers import ExternalServers
from dev.stack.ports import Ports
from dev.stack.stack import LocalStack
from tests.integration.stub_vault import Reply, stub
from tests.servers import Servers

POLICY = "stack-reader"


@pytest.fixture
def named(servers: Servers) -> ExternalServers:
    ca = str(servers.vault_ca)
    return ExternalServers(vault_addr=servers.vault_addr, vault_token=servers.root_token, vault_ca=ca)


@pytest.fixture
def reader(servers: Servers) -> Iterator[str]:
    """A token that may read policies and write none."""
    servers.must("PUT", f"sys/policies/acl/{POLICY}", policy='path "sys/policies/acl/*" { capabilities = ["read"] }')
    yield servers.token_with(POLICY)
    servers.must("DELETE", f"sys/policies/acl/{POLICY}")


def test_a_vault_that_can_be_used_is_taken(named: ExternalServers) -> None:
    named.check_vault()
    ExternalServers().check_vault()  # none is named


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"vault_ca": "/nowhere.crt"}, "VAULT_CACERT is wrong: /nowhere.crt cannot be read as certificates"),
        ({"vault_ca": __file__}, "cannot be read as certificates"),
        ({"vault_addr": "https://127.0.0.1:1"}, "https://127.0.0.1:1 did not answer"),
        ({"vault_addr": "127.0.0.1:8200"}, "needs the scheme https"),
        ({"vault_addr": "https://127.0.0.1:x"}, "is no URL"),
        ({"vault_addr": "https://127.0.0.1:8200/ui"}, "must end after the port"),
        ({"vault_addr": "http://vault.example:8200"}, "is plain http: Leasegate calls it on this machine alone"),
        ({"vault_token": "s.unknown"}, "answers 403 permission denied .*: set VAULT_TOKEN to a token that is valid"),
    ],
)
def test_what_is_wrong_with_the_variables_is_said(named: ExternalServers, wrong: dict[str, str], says: str) -> None:
    with pytest.raises(StackError, match=says):
        replace(named, **wrong).check_vault()


def test_a_certificate_of_another_authority_is_said(named: ExternalServers, tmp_path: Path) -> None:
    with other_server(tmp_path) as other, pytest.raises(StackError, match="proves no identity to the authorities of"):
        replace(named, vault_ca=str(other.ca)).check_vault()


def test_http_to_a_server_with_tls_is_said(named: ExternalServers, servers: Servers) -> None:
    plain = servers.vault_addr.replace("https", "http")
    with pytest.raises(StackError, match=r"sys/health with 400 there is no Vault; it may be one .* https alone"):
        replace(named, vault_addr=plain).check_vault()


def test_https_to_a_server_without_tls_is_said(named: ExternalServers) -> None:
    with stub(lambda _: Reply()) as plain, pytest.raises(StackError, match="look at its scheme and port"):
        replace(named, vault_addr=plain.address.replace("http", "https")).check_vault()


def test_a_sealed_vault_is_said(named: ExternalServers, servers: Servers) -> None:
    servers.bao.seal()
    try:
        with pytest.raises(StackError, match="it is sealed: run `vault operator unseal`"):
            named.check_vault()
    finally:
        servers.bao.unseal()


def test_a_vault_that_is_not_initialized_is_said(named: ExternalServers, tmp_path: Path) -> None:
    with other_server(tmp_path) as other, pytest.raises(StackError, match="it is not initialized"):
        replace(named, vault_addr=other.address, vault_ca=str(other.ca)).check_vault()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"{}", "with 200 there is no Vault"),
        (404, b"<html>", "with 404 there is no Vault"),
        (429, b'{"sealed": false}', ""),
        (472, b'{"sealed": false}', "a secondary for disaster recovery"),
        (473, b'{"sealed": false}', ""),
    ],
)
def test_a_server_of_another_kind_is_said(named: ExternalServers, status: int, body: bytes, says: str) -> None:
    with stub(lambda seen: Reply(status, body) if seen.path == "/v1/sys/health" else Reply(404)) as there:
        other = replace(named, vault_addr=there.address)
        if not says:
            other.check_vault()
            return
        with pytest.raises(StackError, match=says):
            other.check_vault()


def test_a_token_that_may_write_nothing_is_said(named: ExternalServers, reader: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"Vault cannot be set up: sys/policies/acl/leasegate-.* answered 403"):
        LocalStack.start(tmp_path / "stack", services=False, external=replace(named, vault_token=reader)).stop()


@pytest.mark.parametrize("command", [["dev.demo"], ["dev.stack", "--dir", "stack", "up"]])
def test_the_commands_print_it_and_start_nothing(servers: Servers, tmp_path: Path, command: list[str]) -> None:
    variables = {"VAULT_ADDR": servers.vault_addr, "VAULT_CACERT": str(servers.vault_ca), "VAULT_TOKEN": "s.unknown"}
    env = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "LEASEGATE_POSTGRES_URL")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=env | variables, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "set VAULT_TOKEN to a token that is valid there" in done.stderr
    assert "Traceback" not in done.stderr
    assert "s.unknown" not in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


@contextmanager
def other_server(folder: Path) -> Iterator[Bao]:
    """A server of its own, which is not initialized."""
    ports = Ports()
    ports.reserve(bao.PORTS)
    made = Bao(folder, ports=ports)
    made.prepare()
    try:
        made.process.start()
        made.process.wait_ready()
        yield made
    finally:
        ports.close()
        made.process.kill()
