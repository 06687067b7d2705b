"""What every implementation of ``services.common.vault.client.Vault`` has to do, shown on a real bao."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from services.common.errors import (
    DeadlineTooShortError,
    PathNotOwnedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultSealedError,
)
from services.common.rpc import deadline
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError
from services.common.vault.scope import Scope
from services.common.vault.sessions import Sessions
from services.common.vault.target import TokenAuth, VaultTarget
from tests.servers import Servers
from tests.vaults import any_vault

MOUNT = "team-c"
SCOPE = Scope(
    "GET,POST,DELETE <mount>/roles/*",
    "GET,POST <mount>/config/*",
    "GET <mount>/creds/*",
    "GET sys/mounts/<mount>",
    "POST auth/token/create",
    "POST sys/leases/revoke/<mount>/creds/*/*",
)


@pytest.fixture
def vault(servers: Servers) -> Iterator[Vault]:
    servers.must("POST", f"sys/mounts/{MOUNT}", type="database")
    auth = TokenAuth(token=servers.root_token)
    target = VaultTarget(name="vault", address=servers.vault_addr, ca_bundle=servers.vault_ca.read_bytes(), auth=auth)
    with closing(Sessions(SCOPE, vaults=any_vault())) as sessions:
        yield sessions.team_vault(target)
    servers.vault("DELETE", f"sys/mounts/{MOUNT}")


def test_write_read_delete(vault: Vault) -> None:
    written = vault.write(f"{MOUNT}/roles/r", {"db_name": "db", "creation_statements": ["SELECT 1"]})
    assert written.data == {}
    assert vault.read(f"{MOUNT}/roles/r").data["creation_statements"] == ["SELECT 1"]
    vault.delete(f"{MOUNT}/roles/r")
    vault.delete(f"{MOUNT}/roles/r")
    with pytest.raises(VaultNotFoundError) as gone:
        vault.read(f"{MOUNT}/roles/r")
    assert not gone.value.no_mount


def test_a_path_without_a_mount_is_recognised(vault: Vault) -> None:
    for call in (vault.read, vault.write, vault.delete):
        with pytest.raises(VaultNotFoundError) as nothing:
            call("nowhere/roles/r")
        assert nothing.value.no_mount


def test_a_token_comes_as_auth_and_is_no_text(vault: Vault) -> None:
    answer = vault.write("auth/token/create", {"ttl": "5m", "policies": ["default"]})
    assert answer.auth is not None
    assert (answer.auth.lease_duration_s, answer.auth.renewable) == (300, True)
    assert answer.auth.accessor
    assert answer.auth.client_token not in repr(answer)


def test_a_credential_comes_with_its_lease_and_neither_is_text(vault: Vault, servers: Servers) -> None:
    place = f"{servers.postgres_host}:{servers.postgres_port}"
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{place}/postgres?sslmode=disable"
    config = {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": url,
        "username": "postgres",
        "password": "root",
    }
    vault.write(f"{MOUNT}/config/db", {**config, "allowed_roles": "*"})
    vault.write(
        f"{MOUNT}/roles/r", {"db_name": "db", "default_ttl": 60, "creation_statements": ['CREATE ROLE "{{name}}"']}
    )

    answer = vault.read(f"{MOUNT}/creds/r")

    assert answer.lease_id.startswith(f"{MOUNT}/creds/r/")
    assert (answer.lease_duration_s, answer.renewable) == (60, True)
    assert answer.data["password"] not in repr(answer)
    assert answer.lease_id not in repr(answer)
    vault.write(f"sys/leases/revoke/{answer.lease_id}", {"sync": True})


def test_what_vault_refuses_carries_its_words_without_secrets(vault: Vault) -> None:
    with pytest.raises(VaultRefusedError, match="plugin") as refused:
        vault.write(f"{MOUNT}/config/db", {"plugin_name": "nope", "connection_url": "x", "password": "hunter2"})
    assert "hunter2" not in refused.value.message
    assert refused.value.metadata["path"] == f"{MOUNT}/config/db"


def test_another_token_is_used_and_no_new_session_tried(vault: Vault, servers: Servers) -> None:
    token = servers.token_with("leasegate-roles")
    vault.write(f"{MOUNT}/roles/r", {"db_name": "db", "creation_statements": ["SELECT 1"]}, token=token)
    with pytest.raises(VaultPolicyMissingError, match="a Vault policy has to permit it"):
        vault.read(f"{MOUNT}/config/db", token=token)


def test_other_paths_are_refused_before_a_request_leaves(vault: Vault) -> None:
    paths = [
        "sys/policies/acl/x",
        "sys/raw/x",
        f"{MOUNT}/static-roles/x",
        f"{MOUNT}/roles/a/b",
        f"{MOUNT}/roles/../config/db",
        "roles/x",
        "",
    ]
    for path in paths:
        with pytest.raises(PathNotOwnedError):
            vault.read(path)
    with pytest.raises(PathNotOwnedError):
        vault.delete(f"{MOUNT}/config/db")
    with pytest.raises(PathNotOwnedError):
        vault.write(f"{MOUNT}/roles/a?x=y")


def test_a_sealed_vault(vault: Vault, servers: Servers) -> None:
    servers.bao.seal()
    try:
        with pytest.raises(VaultSealedError) as sealed:
            vault.read(f"{MOUNT}/roles/r")
    finally:
        servers.bao.unseal()
    assert sealed.value.metadata["address"] == servers.vault_addr


def test_a_deadline_that_has_passed_sends_nothing(vault: Vault) -> None:
    with deadline.within(-1), pytest.raises(DeadlineTooShortError):
        vault.write(f"{MOUNT}/roles/late", {"db_name": "db", "creation_statements": ["SELECT 1"]})
    with pytest.raises(VaultNotFoundError):
        vault.read(f"{MOUNT}/roles/late")
