"""Which Vault answers: its id and version are shown, in a status and in the log, and decide nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.common import logs
from services.common.vault import health
from services.common.vault.health import KnownServers, VaultServer
from services.common.vault.sessions import Sessions
from services.common.vault.transport import Endpoint, Transport
from services.common.vault_config.address import Address
from tests.clock import Clock
from tests.eventually import eventually
from tests.integration.stub_vault import Reply, stub
from tests.integration.vault_services import MOUNT, delete_engine, engine_service, ensure_engine
from tests.integration.vault_users import SCOPE
from tests.servers import Servers, real_servers
from tests.vaults import MAIN, entry_of, vaults

NONSENSE = {"cluster_id": "\x1b[31m\u202eevil" + "x" * 5000, "version": 7, "initialized": "no"}


@pytest.fixture
def unmade(servers: Servers) -> Iterator[None]:
    """Afterwards the guide's mount is gone."""
    yield
    servers.vault("DELETE", f"sys/mounts/{MOUNT}")


def real(servers: Servers, vault_namespace: str = "") -> Transport:
    endpoint = Endpoint(address=Address.parse(servers.vault_addr), ca_bundle=servers.vault_ca.read_bytes())
    return Transport(endpoint, vault_namespace=vault_namespace)


def of_health(servers: Servers) -> VaultServer:
    """What Vault itself says."""
    said = servers.must("GET", "sys/health")
    return VaultServer(said["cluster_id"], said["version"])


def at(address: str) -> Transport:
    return Transport(Endpoint(address=Address.parse(address)))


def lines(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    """The lines of the log about this, since the last call."""
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    return [each for each in found if each["event"] == event]


@pytest.mark.usefixtures("unmade")
def test_the_engine_answers_which_vault_it_is(servers: Servers) -> None:
    with engine_service(servers) as engine:
        for _ in range(2):
            said = engine.EnsureEngine(ensure_engine(servers)).vault_server
            assert VaultServer(said.cluster_id, said.version) == of_health(servers)


@pytest.mark.usefixtures("unmade")
def test_an_engine_is_made_where_the_vault_does_not_say(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ask", lambda _: None)
    with engine_service(servers) as engine:
        answer = engine.EnsureEngine(ensure_engine(servers))
    assert answer.mount == MOUNT
    assert not answer.HasField("vault_server")


def test_a_vault_namespace_is_left_out(servers: Servers, tmp_path: Path) -> None:
    """A service of such an entry is serving, and its circuit closes: OpenBao answers 400 with the header."""
    servers.must("POST", "sys/namespaces/org")
    (tmp_path / "id").write_text("never-sent")
    files = {"roleIdFile": str(tmp_path / "id"), "secretIdFile": str(tmp_path / "id")}
    main = entry_of(servers, vaultNamespace="org", auth={"roles": {"approle": files}})
    assert health.ask(real(servers, "org")) == of_health(servers)
    with closing(Sessions(SCOPE, vaults=vaults(main, service="roles"))) as sessions:
        assert sessions.serving()
        assert sessions.reachable(servers.vault_addr)
    servers.must("DELETE", "sys/namespaces/org")


def test_a_sealed_vault_says_nothing_and_then_the_same() -> None:
    with real_servers(set_up=False) as servers:
        before = of_health(servers)
        servers.bao.seal()
        assert health.ask(real(servers)) is None
        servers.bao.unseal()
        assert eventually(lambda: health.ask(real(servers)), timeout_s=30, what="an unsealed Vault") == before


def test_nonsense_is_bounded_and_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="engine")
    with stub(lambda _: Reply(200, json.dumps(NONSENSE).encode())) as vault:
        known = KnownServers().find_server("main", at(vault.address))
        assert vault.seen[0].path == "/v1/sys/health?standbyok=true&perfstandbyok=true"
        assert "X-Vault-Token" not in vault.seen[0].headers
    assert known is not None
    assert known.cluster_id.startswith("\\x1b[31m\\u202eevilxxx")
    assert (len(known.cluster_id), known.version) == (64, "")
    assert lines(capsys, "vault answers")[0]["cluster_id"] == known.cluster_id


@pytest.mark.parametrize("reply", [Reply(200, b"<html>"), Reply(200, b"[1]"), Reply(500), Reply(301)], ids=str)
def test_what_is_no_vault_says_nothing(reply: Reply) -> None:
    with stub(lambda _: reply) as vault:
        assert health.ask(at(vault.address)) is None


def test_another_vault_is_a_warning_and_asked_for_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", process="engine")
    clock, said = Clock(), {"cluster_id": "one", "version": "1.21.4"}
    with stub(lambda _: Reply(200, json.dumps(said).encode())) as vault:
        servers, to = KnownServers(clock), at(vault.address)
        for _ in range(3):
            assert servers.find_server(MAIN, to) == VaultServer("one", "1.21.4")
        assert len(vault.seen) == 1
        assert [(each["vault"], each["cluster_id"], each["version"]) for each in lines(capsys, "vault answers")] == [
            (MAIN, "one", "1.21.4")
        ]
        clock.now += 60
        assert servers.find_server(MAIN, to) == VaultServer("one", "1.21.4")
        assert lines(capsys, "vault answers") == [], "which is known"
        said["cluster_id"] = "two"
        clock.now += 60
        assert servers.find_server(MAIN, to) == VaultServer("two", "1.21.4")
        warned = lines(capsys, "another vault answers")[0]
        assert (warned["cluster_id_before"], warned["cluster_id"], warned["level"]) == ("one", "two", "warning")


def test_each_service_logs_the_vault_that_it_authenticated_at(
    servers: Servers, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info", process="engine")
    with engine_service(servers) as engine:
        engine.DeleteEngine(delete_engine(servers, "team/nothing"))  # which asks for no id
        found = eventually(lambda: lines(capsys, "vault answers"), what="the line of the log")
    assert [(each["vault"], each["cluster_id"]) for each in found] == [(MAIN, of_health(servers).cluster_id)]
