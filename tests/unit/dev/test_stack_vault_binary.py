"""VAULT_BINARY names the server that the stack and the tests start in place of OpenBao."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.stack import bao
from dev.stack.bao import Bao, bao_binary, server_binary, server_version
from dev.stack.errors import StackError
from dev.stack.ports import Ports


def program(folder: Path, says: str) -> Path:
    path = folder / "server"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def configuration(folder: Path) -> str:
    ports = Ports()
    ports.reserve(bao.PORTS)
    (folder / "stack").mkdir()
    try:
        Bao(folder / "stack", ports=ports).prepare()
    finally:
        ports.close()
    return (folder / "stack/vault/bao.hcl").read_text()


def test_without_the_variable_it_is_openbao(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VAULT_BINARY", raising=False)
    assert server_binary() == bao_binary()
    assert server_version(server_binary()).startswith("OpenBao v2.")
    assert "unsafe_allow_api_audit_creation" in configuration(tmp_path)


@pytest.mark.parametrize("said", ["Vault v1.21.4 (abcdef), built 2026-03-04T17:34:19Z", "Vault v1.21.4+ent (abcdef)"])
def test_a_vault_gets_what_it_asks_for_with_raft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str) -> None:
    monkeypatch.setenv("VAULT_BINARY", str(program(tmp_path, said)))
    assert server_version(server_binary()) == " ".join(said.split()[:2])
    written = configuration(tmp_path)
    assert "disable_mlock = true" in written
    assert "unsafe_allow_api_audit_creation" not in written


def test_what_is_no_vault_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="neither a Vault nor an OpenBao"):
        server_version(program(tmp_path, "Consul v1.2.3"))
    for wrong in (tmp_path, tmp_path / "nowhere"):
        monkeypatch.setenv("VAULT_BINARY", str(wrong))
        with pytest.raises(StackError, match="is no program: name a vault or bao binary"):
            server_binary()
