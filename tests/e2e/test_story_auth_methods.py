"""Each auth method that an AppBinding may name, from its Secret to the credential, against a real Vault."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.vault.setup import TEAM_ROLE, TEAM_TTL_S
from dev.stack.certificates import Authority
from dev.stack.services import NAMES
from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually

OTHER_CA = base64.b64encode(b"of another authority").decode()
POLICIES = ["leasegate-engine", "leasegate-roles"]
METHODS = ("userpass", "cert", "approle")
CONFIGURATION = {"apiVersion": "config.kubevault.com/v1alpha1", "kind": "VaultServerConfiguration"}


@pytest.fixture(scope="module")
def methods(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack with auth methods besides Kubernetes, all of which the operator allows."""
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


def test_m8_only_the_operators_certificates_count(stack: LocalStack) -> None:
    """C1: the authority of an AppBinding does not decide who is asked: it has no effect, and a condition says so."""
    with space(stack, "insecure") as made:
        binding = _binding(made)
        binding["spec"]["clientConfig"] |= {"caBundle": OTHER_CA, "insecureSkipTLSVerify": True, "serverName": "x"}
        _replace(made, binding)
        made.apply(*made.guide("postgres-app", "postgresSecretEngine"))
        made.phase(ENGINE, "Success")
        message = made.condition(ENGINE, "VaultSettingsNotUsed")["message"]
        assert "caBundle, insecureSkipTLSVerify, serverName of AppBinding insecure/vault has no effect" in message


def _restart(stack: LocalStack, *names: str) -> None:
    for name in names:
        stack.process(name).terminate()
    for name in names:
        stack.process(name).start()
    for name in names:
        stack.process(name).wait_ready()


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


@pytest.fixture
def any_vault(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack with every Vault allowed, and a team that may issue, as in the guide of 2019."""
    team = {"token_policies": [], "token_type": "batch", "token_ttl": TEAM_TTL_S, "token_max_ttl": TEAM_TTL_S}
    acts = {"token_policies": [*POLICIES, "leasegate-access"], "token_type": "service", "token_ttl": 1200}
    for name in NAMES:
        catalog = {"catalog": ""} if name == "access" else {}  # it names an entry
        stack.set_options(name, vault_config="", allow_any_vault="true", **catalog)
    _must(stack, "POST", f"auth/kubernetes/role/{TEAM_ROLE}", acts | {"token_max_ttl": 1200})
    _restart(stack, *NAMES)
    yield stack
    for name in NAMES:
        stack.set_options(name)
    _must(stack, "POST", f"auth/kubernetes/role/{TEAM_ROLE}", team)
    _restart(stack, *NAMES)


def test_with_any_vault_the_teams_session_issues(any_vault: LocalStack) -> None:
    """It works as the guide has it, each object says that approval can be bypassed, and a restart needs no help."""
    with space(any_vault, "noown") as made:
        _story(made)
        for each in (ENGINE, ROLE, REQUEST):
            assert made.condition(each, "ApprovalNotEnforced")["status"] == "True"
        made.reported(REQUEST, "Warning", "ServiceAuthNotConfigured")
        _restart(any_vault, "access")
        made.decide("deny")
        eventually(lambda: not made.database_users(), timeout_s=60, what="the user dropped after a restart")
