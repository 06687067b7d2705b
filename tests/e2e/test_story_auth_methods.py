"""Each auth method that an AppBinding may name, from its Secret to the credential, against a real Vault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.vault.setup import TEAM_ROLE
from dev.stack.certificates import Authority
from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually

POLICIES = ["leasegate-engine", "leasegate-roles"]
METHODS = ("userpass", "cert", "approle")
CONFIGURATION = {"apiVersion": "config.kubevault.com/v1alpha1", "kind": "VaultServerConfiguration"}


@pytest.fixture(scope="module")
def methods(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack with auth methods besides Kubernetes."""
    for method in METHODS:
        stack.bao("auth", "enable", f"-path=team-{method}", method)
    yield stack
    for method in METHODS:
        stack.bao("auth", "disable", f"team-{method}")


def _must(stack: LocalStack, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = stack.vault_api().call(method, path, body)
    assert answer.ok, (path, answer.errors)
    return answer.body


def _secret(made: Space, kind: str, **values: str) -> None:
    made.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault-auth"}, "type": kind, "stringData": values}
    )


def _token(made: Space, _: Path) -> dict[str, str]:
    body = {"policies": POLICIES, "no_default_policy": True, "ttl": "1h"}
    token = _must(made.stack, "POST", "auth/token/create-orphan", body)["auth"]["client_token"]
    _secret(made, "kubevault.com/token", token=token)
    return {}


def _userpass(made: Space, _: Path) -> dict[str, str]:
    _must(
        made.stack, "POST", "auth/team-userpass/users/team", {"password": "a-long-password", "token_policies": POLICIES}
    )
    _secret(made, "kubernetes.io/basic-auth", username="team", password="a-long-password")
    return {"path": "team-userpass"}


def _certificate(made: Space, folder: Path) -> dict[str, str]:
    authority = Authority(folder)
    pair = authority.client("team")
    _must(
        made.stack,
        "POST",
        "auth/team-cert/certs/team",
        {"certificate": authority.ca.read_text(), "token_policies": POLICIES},
    )
    _secret(made, "kubernetes.io/tls", **{"tls.crt": pair.cert.read_text(), "tls.key": pair.key.read_text()})
    return {"path": "team-cert", "vaultRole": "team"}


def _app_role(made: Space, _: Path) -> dict[str, str]:
    _must(made.stack, "POST", "auth/team-approle/role/team", {"token_policies": POLICIES, "secret_id_num_uses": 0})
    role_id = made.stack.vault_api().call("GET", "auth/team-approle/role/team/role-id").body["data"]["role_id"]
    secret_id = _must(made.stack, "POST", "auth/team-approle/role/team/secret-id", {})["data"]["secret_id"]
    _secret(made, "leasegate.dev/approle", role_id=role_id, secret_id=secret_id)
    return {"path": "team-approle"}


def _account_token(made: Space, _: Path) -> dict[str, str]:
    metadata = {"name": "vault-auth", "annotations": {"kubernetes.io/service-account.name": "vault"}}
    made.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/service-account-token"}
    )
    eventually(lambda: made.secret("vault-auth").get("token"), timeout_s=30, what="the token of the ServiceAccount")
    return {"path": "kubernetes", "vaultRole": "vault-policy-controller"}


USERS = {
    "kubevault.com/token": _token,
    "kubernetes.io/basic-auth": _userpass,
    "kubernetes.io/tls": _certificate,
    "leasegate.dev/approle": _app_role,
    "kubernetes.io/service-account-token": _account_token,
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


def test_an_unverified_vault_only_where_asked(stack: LocalStack) -> None:
    """Without its authority Vault is refused, unless insecureSkipTLSVerify says not to look."""
    with space(stack, "insecure") as made:
        binding = _binding(made)
        del binding["spec"]["clientConfig"]["caBundle"]
        _replace(made, binding)
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        eventually(
            lambda: "certificate" in json.dumps(made.status(ENGINE)),
            timeout_s=30,
            what="the refusal of the certificate",
        )
        assert made.status(ENGINE)["phase"] != "Success"
        assert made.described() is None
        made.patch("appbinding/vault", {"spec": {"clientConfig": {"insecureSkipTLSVerify": True}}})
        made.phase(ENGINE, "Success")


@pytest.fixture
def without_service_auth(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack whose access service has no auth of its own, and whose team may issue, as in the guide of 2019."""
    file = stack.directory / "services" / "access-vaults.yaml"
    before = file.read_text(encoding="utf-8")
    team = stack.vault_api().call("GET", f"auth/kubernetes/role/{TEAM_ROLE}").body["data"]["token_policies"]
    file.write_text("[]\n", encoding="utf-8")
    _must(stack, "POST", f"auth/kubernetes/role/{TEAM_ROLE}", {"token_policies": [*team, "leasegate-access"]})
    _restart(stack)
    yield stack
    file.write_text(before, encoding="utf-8")
    _must(stack, "POST", f"auth/kubernetes/role/{TEAM_ROLE}", {"token_policies": team})
    _restart(stack)


def _restart(stack: LocalStack) -> None:
    access = stack.process("access")
    access.terminate()
    access.start()
    access.wait_ready()


def test_the_teams_session_issues_without_service_auth(without_service_auth: LocalStack) -> None:
    """It works as the guide has it, status and Event say that approval can be bypassed, and a restart needs no help."""
    with space(without_service_auth, "noown") as made:
        _story(made)
        assert made.condition(REQUEST, "ApprovalNotEnforced")["status"] == "True"
        made.reported(REQUEST, "Warning", "ServiceAuthNotConfigured")
        _restart(without_service_auth)
        made.decide("deny")
        eventually(lambda: not made.database_users(), timeout_s=60, what="the user dropped after a restart")
