"""One session over time: opened once, renewed at half of its life, replaced near the end, and what a 403 means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from services.common.errors import (
    LeasegateError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultUnavailableError,
)
from services.common.vault.client import Client
from services.common.vault.response import Answer, Auth
from services.common.vault.scope import Scope
from services.common.vault.session import Credentials, Session
from services.common.vault.target import AuthMethod, TokenAuth, UserpassAuth
from tests.clock import Clock

AUTH = UserpassAuth("userpass", "u", "p")


class ScriptedVault:
    """Plays the transport: gives out numbered tokens of ``ttl_s`` and keeps what it was asked."""

    base_uri = "https://vault:8200"

    def __init__(self) -> None:
        self.ttl_s, self.renewed_ttl_s, self.renewable = 100, 100, True
        self.asked: list[tuple[str, str]] = []
        self.fail: dict[str, LeasegateError] = {}
        self._count = 0

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        token: str = "",
        timeout_s: float | None = None,
        correlation_id: str = "",
    ) -> Answer:
        self.asked.append((path, token))
        if path in self.fail:
            raise self.fail[path]
        if path.endswith("renew-self"):
            return Answer(auth=Auth(token, "a", self.renewed_ttl_s, True))
        if path.startswith("auth/userpass"):
            self._count += 1
            return Answer(auth=Auth(f"session-{self._count}", "a", self.ttl_s, self.renewable))
        return Answer(data={"token": token})

    def count(self, path: str) -> int:
        return sum(asked.startswith(path) for asked, _ in self.asked)


@pytest.fixture
def vault() -> ScriptedVault:
    return ScriptedVault()


def session(vault: ScriptedVault, clock: Callable[[], float], *, auth: AuthMethod = AUTH) -> Session:
    return Session(credentials(vault, auth), clock=clock)


def credentials(vault: ScriptedVault, auth: AuthMethod = AUTH, identity: str = "1") -> Credentials:
    return Credentials(
        name="demo/vault",
        identity=identity,
        connect=lambda: (vault, auth),  # type: ignore[arg-type, return-value]
        revocable=not isinstance(auth, TokenAuth),
    )


def test_the_first_use_logs_in_and_the_next_ones_do_not(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    assert vault.asked == []
    assert [made.grant().token for _ in range(3)] == ["session-1"] * 3
    assert vault.count("auth/userpass/login") == 1


def test_renewal_at_half_of_the_life_of_a_token(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    clock.now += 49
    made.keep_alive()
    assert vault.count("auth/token/renew-self") == 0
    clock.now += 2
    made.keep_alive()
    assert vault.asked[-1:] == [("auth/token/renew-self", "session-1")]
    made.keep_alive()
    assert vault.count("auth/token/renew-self") == 1
    clock.now += 99
    assert made.grant().token == "session-1"


def test_a_failed_renewal_is_repeated_and_keeps_the_session(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    vault.fail["auth/token/renew-self"] = VaultUnavailableError("gone")
    clock.now += 51
    made.keep_alive()
    made.keep_alive()
    assert vault.count("auth/token/renew-self") == 1
    clock.now += 10
    del vault.fail["auth/token/renew-self"]
    made.keep_alive()
    assert vault.count("auth/token/renew-self") == 2
    assert made.grant().token == "session-1"


def test_near_its_longest_life_a_session_is_replaced(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    vault.renewed_ttl_s = 40
    clock.now += 51
    made.keep_alive()
    assert made.grant().token == "session-2"
    assert vault.asked[-1] == ("auth/token/revoke-self", "session-1")


def test_a_session_that_cannot_be_renewed_is_replaced(vault: ScriptedVault, clock: Clock) -> None:
    vault.renewable = False
    made = session(vault, clock)
    made.grant()
    clock.now += 51
    made.keep_alive()
    assert vault.count("auth/token/renew-self") == 0
    assert made.grant().token == "session-2"


def test_an_expired_session_is_replaced_at_its_next_use(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    clock.now += 101
    assert not made.is_alive
    assert made.grant().token == "session-2"


def test_a_token_that_never_ends_is_left_alone(vault: ScriptedVault, clock: Clock) -> None:
    vault.ttl_s = 0
    made = session(vault, clock)
    made.grant()
    clock.now += 1e9
    made.keep_alive()
    assert made.is_alive
    assert vault.count("auth/token/renew-self") == 0


def test_a_teams_own_token_is_never_revoked(vault: ScriptedVault, clock: Clock) -> None:
    for auth, revoked in ((TokenAuth("s.team"), 0), (AUTH, 1)):
        made = session(vault, clock, auth=auth)
        made.grant()
        made.close()
        assert vault.count("auth/token/revoke-self") == revoked


def test_other_credentials_take_over_unless_refused(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    vault.fail["auth/userpass/login/u"] = VaultRefusedError("wrong password")
    with pytest.raises(VaultAuthRefusedError):
        made.use_credentials(credentials(vault, identity="2"))
    assert made.grant().token == "session-1"
    assert made.identity == "1"
    vault.fail.clear()
    made.use_credentials(credentials(vault, identity="2"))
    assert made.grant().token == "session-2"
    made.use_credentials(credentials(vault, identity="2"))
    assert vault.count("auth/userpass/login") == 3


def client(made: Session) -> Client:
    return Client(made, scope=Scope("GET m/roles/*"), address="https://vault:8200")


def test_a_403_is_about_policies_while_the_session_is_young(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    vault.fail["m/roles/r"] = VaultPolicyMissingError("denied")
    with pytest.raises(VaultPolicyMissingError):
        client(made).read("m/roles/r")
    assert vault.count("m/roles/r") == 1


def test_an_older_session_is_replaced_once(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    clock.now += 6
    vault.fail["m/roles/r"] = VaultPolicyMissingError("denied")
    with pytest.raises(VaultPolicyMissingError):
        client(made).read("m/roles/r")
    assert [token for path, token in vault.asked if path == "m/roles/r"] == ["session-1", "session-2"]


def test_auth_that_cannot_be_repeated_is_reported_once_its_token_ended(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    made.grant()
    clock.now += 6
    vault.fail["m/roles/r"] = VaultPolicyMissingError("denied")
    vault.fail["auth/userpass/login/u"] = VaultRefusedError("expired")
    with pytest.raises(VaultPolicyMissingError):
        client(made).read("m/roles/r")
    vault.fail["auth/token/renew-self"] = VaultPolicyMissingError("denied")
    with pytest.raises(VaultAuthRefusedError):
        client(made).read("m/roles/r")
    assert not made.is_alive


def test_another_token_is_sent_as_it_is_and_no_auth_tried(vault: ScriptedVault, clock: Clock) -> None:
    made = session(vault, clock)
    assert client(made).read("m/roles/r", token="attempt").data == {"token": "attempt"}
    assert vault.asked == [("m/roles/r", "attempt")]
