"""What ``tests.model.world.vault`` says of Vault and PostgreSQL, asked of it and of the real ones alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from dev.stack.bao import server_binary, server_version
from services.common.errors import (
    LeasegateError,
    VaultFailedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultThrottledError,
)
from services.common.vault.response import Answer, VaultNotFoundError
from services.common.vault.transport import Endpoint, Transport
from services.common.vault_config.address import Address
from services.roles.statements import LOCKOUT
from tests.eventually import eventually
from tests.model.world.vault import MOUNT, ROLE, AttemptVault
from tests.servers import Servers, real_servers

CREATE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
STRICT = 'DROP ROLE "{{name}}";'
CLEANUP_ROLE = "leasegate-cleanup.0123456789ab"


class Asked(Protocol):
    """Either of them."""

    def send(self, method: str, path: str, body: Mapping[str, Any], token: str = "") -> Answer:
        """One call, with the service's own token unless one is given."""

    def database_users(self) -> dict[str, bool]:
        """The attempts' database users: whether each may connect."""

    def background(self) -> None:
        """Give what goes on by itself a chance."""


@dataclass
class Fake:
    """The one in memory."""

    vault: AttemptVault

    def send(self, method: str, path: str, body: Mapping[str, Any], token: str = "") -> Answer:
        call = self.vault.begin(method, path, body, token)
        while not call.done:
            self.vault.advance(call)
        if call.error:
            raise call.error
        return call.answer

    def database_users(self) -> dict[str, bool]:
        return self.vault.users

    def background(self) -> None:
        for lease_id in sorted(self.vault.revoking):
            self.vault.revoke_in_background(lease_id)


@dataclass
class Real:
    """The real ones."""

    servers: Servers
    transport: Transport

    def send(self, method: str, path: str, body: Mapping[str, Any], token: str = "") -> Answer:
        return self.transport.send(method, path, body=body or None, token=token or self.servers.root_token)

    def database_users(self) -> dict[str, bool]:
        return dict(self.servers.psql("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname LIKE 'token-%'"))

    def background(self) -> None:
        pass


@pytest.fixture(params=["fake", "real"])
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    if request.param == "fake":
        vault = AttemptVault(lambda: 0.0, strict=True, absent=False)
        vault.cleanup_roles[CLEANUP_ROLE] = "cleanup_role"
        yield Fake(vault)
        return
    servers: Servers = request.getfixturevalue("servers")
    transport = Transport(Endpoint(address=Address.parse(servers.vault_addr), ca_bundle=servers.vault_ca.read_bytes()))
    _set_up(servers)
    try:
        yield Real(servers, transport)
    finally:
        servers.vault("POST", f"sys/leases/revoke-force/{MOUNT}")
        servers.must("DELETE", f"sys/mounts/{MOUNT}")
        transport.close()
        for (user,) in servers.psql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'token-%'"):
            servers.psql(f'DROP ROLE "{user}"')


def _set_up(servers: Servers) -> None:
    servers.must("POST", f"sys/mounts/{MOUNT}", type="database")
    servers.must(
        "POST",
        f"{MOUNT}/config/db",
        plugin_name="postgresql-database-plugin",
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@{servers.postgres_host}:{servers.postgres_port}/postgres",
        username="postgres",
        password="root",
        allowed_roles="*",
        username_template="{{ .DisplayName | truncate 63 }}",
    )
    for name, create in ((ROLE, [CREATE]), (CLEANUP_ROLE, list(LOCKOUT))):
        role: dict[str, Any] = {
            "db_name": "db",
            "default_ttl": "1h",
            "max_ttl": "4h",
            "creation_statements": create,
            "revocation_statements": [STRICT],
        }
        servers.must("POST", f"{MOUNT}/roles/{name}", **role)


def make(asked: Asked, display: str) -> tuple[str, str]:
    """Token and accessor."""
    auth = asked.send("POST", "auth/token/create/leasegate", {"ttl": "18000s", "display_name": display}).auth
    assert auth
    return auth.client_token, auth.accessor


def read(asked: Asked, token: str, role: str = ROLE) -> Answer:
    return asked.send("GET", f"{MOUNT}/creds/{role}", {}, token)


def revoke(asked: Asked, lease_id: str) -> None:
    asked.send("POST", f"sys/leases/revoke/{lease_id}", {"sync": True})


@pytest.fixture
def display() -> str:
    return f"demo-role-{secrets.token_hex(10)}"


def test_a_credential_is_named_after_its_token_and_goes_with_its_lease(asked: Asked, display: str) -> None:
    token, _ = make(asked, display)
    lease = read(asked, token)
    assert lease.data["username"] == f"token-{display}"
    assert asked.database_users() == {f"token-{display}": True}
    revoke(asked, lease.lease_id)
    assert not asked.database_users()
    revoke(asked, lease.lease_id)  # what Vault does not know, it has ended


def test_a_database_user_is_dropped_after_its_token_is_revoked(asked: Asked, display: str) -> None:
    token, accessor = make(asked, display)
    read(asked, token)
    asked.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})

    def gone() -> bool:
        asked.background()
        return not asked.database_users()

    eventually(gone, timeout_s=10)
    for known in (accessor, "nobodys"):
        with suppress(VaultNotFoundError):  # the one or the other: it does no harm
            asked.send("POST", "auth/token/revoke-accessor", {"accessor": known})


@pytest.fixture(params=["fake", "real"])
def half_ended(request: pytest.FixtureRequest, display: str) -> Iterator[tuple[Asked, str, str, bool]]:
    """Token and accessor of one whose end a seal met, and whether it broke that end off.

    HashiCorp Vault lets the revocations under way finish before it seals.
    """
    if request.param == "fake":
        fake = Fake(AttemptVault(lambda: 0.0))
        token, accessor = make(fake, display)
        call = fake.vault.begin("POST", "auth/token/revoke-accessor", {"accessor": accessor}, "")
        fake.vault.break_off_end(call, VaultFailedError("Vault answered 500"))
        yield fake, token, accessor, True
        return
    with real_servers() as servers:
        seal = servers.bao.seal  # or the test is skipped
        transport = Transport(
            Endpoint(address=Address.parse(servers.vault_addr), ca_bundle=servers.vault_ca.read_bytes())
        )
        asked = Real(servers, transport)
        _set_up(servers)
        try:
            yield asked, *_broken_off(asked, display, seal)
        finally:
            transport.close()


def _broken_off(asked: Real, display: str, seal: Callable[[], None]) -> tuple[str, str, bool]:
    """Seal Vault while it revokes tokens, eight at a time, until OpenBao leaves one half revoked (one in fifty)."""
    openbao = server_version(server_binary()).startswith("OpenBao")
    made: list[tuple[str, str]] = []
    for _ in range(20 if openbao else 3):
        made = [make(asked, display) for _ in range(100)]
        with ThreadPoolExecutor(8) as pool:
            ended = [pool.submit(_refused, asked, accessor) for _, accessor in made]
            ended[20].result()
            seal()
        asked.servers.bao.unseal()
        for token, accessor in made:
            if said := _refused(asked, accessor):
                assert "token not found" in said
                return token, accessor, True
    if openbao:
        pytest.fail("no seal has broken off the end of a token")
    return *made[21], False


def _refused(asked: Real, accessor: str) -> str:
    """End a token; what Vault has against it."""
    try:
        asked.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    except (LeasegateError, VaultNotFoundError) as err:
        return str(err)
    return ""


def test_a_token_whose_revocation_was_interrupted_serves_nobody(
    half_ended: tuple[Asked, str, str, bool],
) -> None:
    asked, token, accessor, broken_off = half_ended
    with pytest.raises(VaultPolicyMissingError):
        read(asked, token)
    assert not asked.database_users()
    if not broken_off:
        asked.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        return
    with pytest.raises(VaultRefusedError, match="token not found"):
        asked.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})


def test_a_dead_token_reads_nothing(asked: Asked, display: str) -> None:
    token, accessor = make(asked, display)
    asked.send("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    with pytest.raises(VaultPolicyMissingError):
        read(asked, token)
    assert not asked.database_users()


@pytest.mark.parametrize("asked", ["real"], indirect=True)
def test_a_throttled_read_makes_nothing(asked: Asked, servers: Servers, display: str) -> None:
    token, _ = make(asked, display)
    quota = {"path": MOUNT, "rate": 0.001, "interval": "1h"}
    asked.send("POST", "sys/quotas/rate-limit/contract", quota)
    try:
        eventually(lambda: servers.vault("GET", f"{MOUNT}/roles/{ROLE}")[0] == 429, timeout_s=10)
        with pytest.raises(VaultThrottledError):
            read(asked, token)
    finally:
        servers.must("DELETE", "sys/quotas/rate-limit/contract")
    assert not asked.database_users()


def test_an_unknown_role_is_refused_before_anything_is_made(asked: Asked, display: str) -> None:
    token, _ = make(asked, display)
    with pytest.raises(VaultRefusedError, match=r"creds/nosuch: unknown role$"):
        read(asked, token, "nosuch")
    assert not asked.database_users()


def test_one_display_name_makes_one_database_user(asked: Asked, display: str) -> None:
    read(asked, make(asked, display)[0])
    with pytest.raises(VaultFailedError, match="SQLSTATE 42710"):
        read(asked, make(asked, display)[0])
    assert asked.database_users() == {f"token-{display}": True}


@pytest.mark.parametrize("there", [False, True])
def test_a_cleanup_role_locks_the_user_of_its_name_out_and_drops_it(asked: Asked, display: str, there: bool) -> None:
    lease = read(asked, make(asked, display)[0]) if there else None
    recovered = read(asked, make(asked, display)[0], CLEANUP_ROLE)
    assert recovered.data["username"] == f"token-{display}"
    assert asked.database_users() == {f"token-{display}": False}
    revoke(asked, recovered.lease_id)
    assert not asked.database_users()
    if lease:
        with pytest.raises(VaultRefusedError, match="SQLSTATE 42704"):  # strict statements fail where the role is gone
            revoke(asked, lease.lease_id)


def test_a_lease_is_renewed_until_it_is_lost(asked: Asked, display: str) -> None:
    lease = read(asked, make(asked, display)[0])
    renewed = asked.send("POST", f"sys/leases/renew/{lease.lease_id}", {"increment": 3600})
    assert 3590 <= renewed.lease_duration_s <= 3600
    revoke(asked, lease.lease_id)
    with pytest.raises(LeasegateError, match="lease not found"):
        asked.send("POST", f"sys/leases/renew/{lease.lease_id}", {"increment": 3600})


@pytest.mark.parametrize("asked", ["real"], indirect=True)
@pytest.mark.parametrize(
    ("statements", "left"),
    [
        ([CREATE, 'GRANT "nosuch" TO "{{name}}";'], False),
        ([CREATE, "COMMIT;", 'GRANT "nosuch" TO "{{name}}";'], True),
        ([CREATE, "COMMIT;", "SELECT pg_terminate_backend(pg_backend_pid());"], True),
    ],
)
def test_what_fails_in_the_database_is_never_a_4xx(
    asked: Asked, servers: Servers, display: str, statements: list[str], left: bool
) -> None:
    """No refusal that ``leases.issue`` takes for "nothing was made" comes once the database was asked."""
    role: dict[str, Any] = {"db_name": "db", "creation_statements": statements}
    servers.must("POST", f"{MOUNT}/roles/fails", **role)
    with pytest.raises(VaultFailedError):
        read(asked, make(asked, display)[0], "fails")
    assert asked.database_users() == ({f"token-{display}": True} if left else {})
