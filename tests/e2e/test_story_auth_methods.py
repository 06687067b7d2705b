"""Each auth method that an AppBinding may name, from its Secret to the credential, against a real Vault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.stack.certificates import Authority
from dev.stack.stack import LocalStack
from services.common.vault_config.read import TEAM_METHODS
from tests.e2e.space import ENGINE, ROLE, Space, space
from tests.eventually import eventually

METHODS = ("userpass", "cert", "approle")
CONFIGURATION = {"apiVersion": "config.kubevault.com/v1alpha1", "kind": "VaultServerConfiguration"}


@pytest.fixture(scope="module")
def methods(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack with auth methods besides Kubernetes, all of which the operator allows."""
    for method in METHODS:
        stack.bao("auth", "enable", f"-path=team-{method}", method)
    stack.set_options("watcher", team_auth_methods=",".join(TEAM_METHODS))
    _restart(stack, "watcher")
    yield stack
    stack.set_options("watcher")
    _restart(stack, "watcher")
    for method in METHODS:
        stack.bao("auth", "disable", f"team-{method}")


def _restart(stack: LocalStack, name: str) -> None:
    process = stack.process(name)
    process.terminate()
    process.start()
    process.wait_ready()


def _must(stack: LocalStack, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = stack.vault_api().call(method, path, body)
    assert answer.ok, (path, answer.errors)
    return answer.body


def _secret(made: Space, kind: str, **values: str) -> None:
    made.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-auth"}, "type": kind, "stringData": values}
    )


def _token(made: Space, _: Path) -> dict[str, str]:
    body = {"policies": ["default"], "ttl": "1h"}
    token = _must(made.stack, "POST", "auth/token/create-orphan", body)["auth"]["client_token"]
    _secret(made, "kubevault.com/token", token=token)
    return {}


def _userpass(made: Space, _: Path) -> dict[str, str]:
    _must(made.stack, "POST", "auth/team-userpass/users/team", {"password": "a-long-password"})
    _secret(made, "kubernetes.io/basic-auth", username="team", password="a-long-password")
    return {"path": "team-userpass"}


def _certificate(made: Space, folder: Path) -> dict[str, str]:
    authority = Authority(folder)
    pair = authority.client("team")
    _must(
        made.stack,
        "POST",
        "auth/team-cert/certs/team",
        {"certificate": authority.ca.read_text()},
    )
    _secret(made, "kubernetes.io/tls", **{"tls.crt": pair.cert.read_text(), "tls.key": pair.key.read_text()})
    return {"path": "team-cert", "vaultRole": "team"}


def _app_role(made: Space, _: Path) -> dict[str, str]:
    _must(made.stack, "POST", "auth/team-approle/role/team", {"secret_id_num_uses": 0})
    role_id = made.stack.vault_api().call("GET", "auth/team-approle/role/team/role-id").body["data"]["role_id"]
    secret_id = _must(made.stack, "POST", "auth/team-approle/role/team/secret-id", {})["data"]["secret_id"]
    _secret(made, "leasegate.dev/approle", role_id=role_id, secret_id=secret_id)
    return {"path": "team-approle"}


USERS = {
    "kubevault.com/token": _token,
    "kubernetes.io/basic-auth": _userpass,
    "kubernetes.io/tls": _certificate,
    "leasegate.dev/approle": _app_role,
}


def _binding(made: Space) -> dict[str, Any]:
    """The enabled namespace's AppBinding of Vault, to be changed and applied."""
    found = made.get("appbinding/vault")
    return {
        "apiVersion": found["apiVersion"],
        "kind": "AppBinding",
        "metadata": {"name": "vault"},
        "spec": found["spec"],
    }


def _replace(made: Space, binding: dict[str, Any]) -> None:
    made.kubectl("delete", "appbinding", "vault")
    made.apply(binding)


def _story(made: Space) -> None:
    made.apply(*made.guide())
    made.phase(ENGINE, "Success")
    made.phase(ROLE, "Success")
    assert made.user_works(made.secret(made.granted()))


@pytest.mark.parametrize(("kind", "prepare"), USERS.items(), ids=USERS.keys())
def test_a_secret_of_each_type_logs_in(
    methods: LocalStack, kind: str, prepare: Callable[[Space, Path], dict[str, str]], tmp_path: Path
) -> None:
    """Its content is enough for mount, role and the end of both, and is in no status."""
    with space(methods, f"auth{list(USERS).index(kind)}") as made:
        binding = _binding(made)
        binding["spec"]["parameters"] = CONFIGURATION | prepare(made, tmp_path)
        binding["spec"]["secret"] = {"name": "vault-auth"}
        _replace(made, binding)
        _story(made)
        values = [
            value for value in made.secret("vault-auth").values() if len(value) > 8 and "CERTIFICATE" not in value
        ]
        seen = made.kubectl(
            "get", "appbindings,secretengines,postgresroles,databaseaccessrequests,events", "-o", "json"
        )
        assert not [value for value in values if value in seen]


def test_a_changed_auth_secret_is_used(methods: LocalStack, tmp_path: Path) -> None:
    """A wrong token in the Secret is told; a right one put there mends it without touching another object."""
    with space(methods, "loginchange") as made:
        binding = _binding(made)
        del binding["spec"]["parameters"]
        _token(made, tmp_path)
        right = made.secret("vault-auth")["token"]
        binding["spec"]["secret"] = {"name": "vault-auth"}
        made.kubectl("delete", "secret", "vault-auth")
        _secret(made, "kubevault.com/token", token="s.not-a-token-of-this-vault")
        _replace(made, binding)
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        made.phase(ENGINE, "Failed")
        assert "not-a-token" not in made.reported(ENGINE, "Warning", "VaultAuthRefused")
        _secret(made, "kubevault.com/token", token=right)
        made.phase(ENGINE, "Success")


def test_the_nested_parameters_log_in(stack: LocalStack) -> None:
    """``kubernetes.serviceAccountName`` is read as the flat shape is."""
    with space(stack, "nested") as made:
        binding = _binding(made)
        parameters = binding["spec"]["parameters"]
        nested = {
            "serviceAccountName": parameters.pop("serviceAccountName"),
            "tokenReviewerServiceAccountName": parameters.pop("tokenReviewerServiceAccountName"),
            "usePodServiceAccountForCSIDriver": parameters.pop("usePodServiceAccountForCsiDriver"),
        }
        parameters["kubernetes"] = nested
        _replace(made, binding)
        _story(made)


def test_the_operators_file_says_whom_to_trust(stack: LocalStack) -> None:
    """C1: the authority of an AppBinding does not decide who is asked, so a wrong one changes nothing."""
    with space(stack, "insecure") as made:
        binding = _binding(made)
        del binding["spec"]["clientConfig"]["caBundle"]
        _replace(made, binding)
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        made.phase(ENGINE, "Success")


def test_what_the_operator_does_not_allow_gets_no_token(stack: LocalStack) -> None:
    """H4: another ServiceAccount or another audience is refused by name; once it is corrected, all goes on."""
    with space(stack, "h4") as made:
        made.kubectl("create", "serviceaccount", "deployer")
        right = _binding(made)
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        made.phase(ENGINE, "Success")
        for changes, says in (
            ({"parameters": {"serviceAccountName": "deployer"}}, "the operator lets tokens be made for these: vault"),
            ({"parameters": {"audience": "https://kubernetes.default.svc"}}, "must be leasegate-vault"),
        ):
            made.patch("appbinding/vault", {"spec": changes})
            eventually(
                lambda says=says: says in json.dumps(made.status(ENGINE)),  # type: ignore[misc]
                timeout_s=30,
                what=says,
            )
            made.patch("appbinding/vault", {"spec": {"parameters": right["spec"]["parameters"]}})
            made.patch("appbinding/vault", {"spec": {"parameters": {"audience": None}}})
            made.phase(ENGINE, "Success")


def test_a_namespace_made_again_gets_a_new_token_at_once(stack: LocalStack) -> None:
    """Field report 29: the token of the former ServiceAccount is refused, and another one is minted without a pause."""
    for _ in range(2):
        with space(stack, "again") as made:
            made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
            made.phase(ENGINE, "Success")
            events = json.loads(made.kubectl("get", "events", "-o", "json"))["items"]
            assert "VaultAuthRefused" not in {event["reason"] for event in events}
            _restart(stack, "engine")
