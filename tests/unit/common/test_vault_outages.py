"""Servers that are no Vault, and many Vault servers that do not answer; nothing here opens a socket."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import pytest

from deploy.vault.api import VaultApi, VaultError
from services.access.vault.circuit_breaker import FAILURES
from services.access.vault.circuit_breaker import Key as Circuit
from services.access.vault.clients import VaultClients
from services.common import errors, logs
from services.common.rpc import deadline
from services.common.vault import health
from services.common.vault.response import decode
from services.common.vault.scope import Scope
from services.common.vault.sessions import Sessions
from services.common.vault.target import TokenAuth, VaultTarget
from services.common.vault.transport import Transport, VaultUnreachedError
from services.engine.engines import SecretEngines
from tests.vaults import any_vault

ADDRESS = "https://vault:8200"
DOWN = errors.VaultUnavailableError("Vault does not answer", address=ADDRESS)


def target(name: str = "vault", address: str = ADDRESS) -> VaultTarget:
    return VaultTarget(name=name, namespace="demo", address=address, auth=TokenAuth("a-token"))


@pytest.mark.parametrize(
    "body",
    [
        {"auth": {"accessor": "no token"}},
        {"auth": ["a", "list"]},
        {"auth": "text"},
        {"data": "text"},
        {"data": [1, 2]},
        {"lease_duration": "soon"},
        {"warnings": 7},
        {"auth": {"client_token": "x", "policies": 3}},
    ],
    ids=str,
)
def test_a_body_that_is_not_vaults_is_a_failure_of_that_vault(body: dict[str, Any]) -> None:
    """A server that is no Vault is an error of its address, not a defect of Leasegate."""
    with pytest.raises(errors.VaultFailedError, match="not do so as a Vault does") as failed:
        decode(200, json.dumps(body).encode(), path="team/creds/x", address=ADDRESS)
    assert failed.value.retry_after_s is not None


@pytest.fixture
def up(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Addresses of the Vaults that answer."""
    answering: set[str] = set()
    monkeypatch.setattr(health, "reachable", lambda transport: transport.base_uri in answering)
    return answering


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(Scope("GET <mount>/creds/*"), vaults=any_vault())


def test_the_vault_that_answered_is_asked_first(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check has four seconds: Vaults of teams that are gone must not use them up while another one answers."""
    made = [
        Transport(sessions._transport_of(t, TokenAuth("x")).endpoint)
        for t in (target("a", "https://a"), target("b", "https://b"))
    ]
    asked: list[str] = []

    def reachable(transport: Transport) -> bool:
        asked.append(transport.base_uri)
        return transport.base_uri == "https://b:443"

    monkeypatch.setattr(health, "reachable", reachable)
    monkeypatch.setattr(sessions, "_known_transports", lambda: list(made))
    assert sessions.serving()
    assert asked == ["https://a:443", "https://b:443"]
    assert sessions.serving()
    assert asked[2:] == ["https://b:443"]


def test_none_answering_is_not_serving_and_none_known_is(
    sessions: Sessions, up: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sessions.serving()
    made = sessions._transport_of(target(), TokenAuth("x"))
    monkeypatch.setattr(sessions, "_known_transports", lambda: [made])
    assert not sessions.serving()
    up.add(made.base_uri)
    assert sessions.serving()


class FakeSessions:
    """Stands in for a Sessions: counts opened sessions, which fail while the Vault is away."""

    def __init__(self) -> None:
        self.opened, self.probes, self.up = 0, 0, False

    def team_vault(self, _target: VaultTarget) -> None:
        self.opened += 1
        if not self.up:
            raise DOWN

    def answers(self, _target: VaultTarget) -> bool:
        self.probes += 1
        return self.up


def test_a_team_is_not_logged_in_where_vault_is_known_not_to_answer() -> None:
    sessions: Any = FakeSessions()
    vaults = VaultClients(sessions, vaults=any_vault(), max_request_duration_s=90)
    for _ in range(FAILURES):
        vaults.breakers.record_failure(Circuit(ADDRESS, ""), DOWN)
    with pytest.raises(VaultUnreachedError, match="not asked again") as refused:
        vaults.put_auth(target())
    assert (sessions.opened, refused.value.retry_after_s is not None) == (0, True)


def test_a_team_is_logged_in_as_soon_as_its_vault_answers_a_probe() -> None:
    sessions: Any = FakeSessions()
    now = [0.0]
    vaults = VaultClients(sessions, vaults=any_vault(), max_request_duration_s=90)
    vaults.breakers._clock = lambda: now[0]
    for _ in range(FAILURES):
        vaults.breakers.record_failure(Circuit(ADDRESS, ""), DOWN)
    now[0], sessions.up = 60.0, True
    vaults.put_auth(target())
    assert (sessions.probes, sessions.opened) == (1, 1)
    assert vaults.breakers.open_for() == {Circuit(ADDRESS, ""): False}


def test_auth_that_fails_opens_no_circuit() -> None:
    """A team's misspelt AppBinding is nothing to the other teams of that Vault."""
    vaults = VaultClients(FakeSessions(), vaults=any_vault(), max_request_duration_s=90)  # type: ignore[arg-type]
    for _ in range(3 * FAILURES):
        with pytest.raises(errors.VaultUnavailableError):
            vaults.put_auth(target())
    assert not any(vaults.breakers.open_for().values())


def test_the_turn_at_a_mount_is_waited_for_no_longer_than_the_deadline(sessions: Sessions) -> None:
    engines = SecretEngines(sessions)
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with engines._lock_mount(target(), "team/a"):
            inside.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30)
    try:
        with (
            pytest.raises(errors.DeadlineTooShortError, match="team/a"),
            deadline.within(0.1),
            engines._lock_mount(target(), "team/a"),
        ):
            pytest.fail("two at once")
        with engines._lock_mount(target(), "team/b"):
            pass
    finally:
        done.set()
        holder.join(30)
    with engines._lock_mount(target(), "team/a"):
        pass


@pytest.mark.parametrize(
    ("address", "port"), [("https://vault", 443), ("http://vault", 80), ("https://vault:8200", 8200)]
)
def test_the_set_up_goes_to_the_same_port_as_the_services(address: str, port: int) -> None:
    made = VaultApi(address)._connection()
    assert isinstance(made, http.client.HTTPConnection)
    assert (made.host, made.port) == ("vault", port)


@pytest.mark.parametrize("address", ["vault:8200", "ftp://vault", "https://", "https://vault:x", "https://[vault"])
def test_the_set_up_refuses_what_is_no_address(address: str) -> None:
    with pytest.raises(VaultError, match="is no http or https address"):
        VaultApi(address).call("GET", "sys/health")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Secret x data.password: is missing; it is needed", "Secret x data.password: is missing; it is needed"),
        ("kubernetes.jwt: has blanks", "kubernetes.jwt: has blanks"),
        ("password: is-mine", "password: [hidden]"),
        ("password: hash", "password: [hidden]"),
        ('password: "is mine"', "password: [hidden]"),
    ],
)
def test_a_sentence_about_a_secret_field_is_not_taken_for_its_value(text: str, shown: str) -> None:
    """Else conditions read "data.password: [hidden] missing"."""
    assert logs.scrub(text) == shown
