"""Attacks C2 (address) and M7 of the threat model on the running stack: a Vault and a path that are not a team's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, ROLE, Space, space
from tests.eventually import eventually
from tests.listening import fake_vault


@pytest.fixture
def evil(stack: LocalStack, request: pytest.FixtureRequest) -> Iterator[Space]:
    with space(stack, f"vaults{abs(hash(request.node.name)) % 10**6}", at_once=True) as made:
        yield made


def refused(made: Space, name: str, reason: str) -> str:
    """Wait until an object is refused so; answers the message."""

    def found() -> str:
        condition = made.condition(name, "Ready")
        assert (condition.get("status"), condition.get("reason")) == ("False", reason), condition
        return str(condition["message"])

    return eventually(found, timeout_s=30, what=f"{reason} of {name}")


def test_c2_m8_a_neighbours_server_gets_nothing(evil: Space) -> None:
    """Neither a token nor the managing user's password goes to a server of the team's, and the way back is open."""
    good = evil.get("appbinding/vault")["spec"]
    with fake_vault() as (address, seen):
        evil.patch(
            "appbinding/vault", [{"op": "replace", "path": "/spec/clientConfig", "value": {"url": address}}], "json"
        )
        evil.apply(*evil.guide("postgres-app", "postgresSecretEngine", "postgresRole"))
        for name in (ENGINE, ROLE, "appbinding/vault"):
            assert "have the operator add this one" in refused(evil, name, "VaultNotAllowed")
        assert seen == []
        back = [{"op": "replace", "path": "/spec/clientConfig", "value": good["clientConfig"]}]
        evil.patch("appbinding/vault", back, "json")
        evil.phase(ROLE, "Success")
        assert seen == []


def test_m7_another_namespaces_path_is_not_taken(evil: Space) -> None:
    """The guide's path is demo's, whether demo has it already or not; a path of its own is named."""
    for path in ("my-postgres-se", "team/demo"):
        engine = next(each for each in evil.guide("postgresSecretEngine") if each["kind"] == "SecretEngine")
        engine["spec"]["path"] = path
        evil.apply(*evil.guide("postgres-app"), engine)
        message = refused(evil, ENGINE, "PathNotOwned")
        assert f"the mount {path} of Vault main is not for namespace {evil.name}" in message
        assert "such as " in message
        evil.kubectl("delete", ENGINE, "--timeout=30s")  # a path is not changed
    assert evil.stack.vault_api().call("GET", "sys/mounts/team/demo").status == 400
