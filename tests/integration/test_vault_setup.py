"""The set-up of a Vault (deploy/vault): written once, then unchanged, corrected after drift, good for sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.vault.__main__ import main
from deploy.vault.policies import NAMES
from dev.stack.stack import LocalStack
from tests.servers import Servers, real_servers

THINGS = [
    *(f"sys/policies/acl/{name}" for name in NAMES),
    "auth/token/roles/leasegate",
    "sys/auth/kubernetes",
    "auth/kubernetes/config",
]
THINGS += [
    f"auth/kubernetes/role/{name}"
    for name in ("vault-policy-controller", "leasegate-engine", "leasegate-roles", "leasegate-access")
]
MOUNTS = ("--mount", "my-postgres-se", "--mount-prefix", "team/")


@pytest.fixture(scope="module")
def bare() -> Iterator[Servers]:
    """A Vault of its own: these tests begin with nothing there."""
    with real_servers(set_up=False) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_there(bare: Servers) -> None:
    for name in NAMES:
        bare.must("DELETE", f"sys/policies/acl/{name}")
    bare.must("DELETE", "auth/token/roles/leasegate")
    bare.must("DELETE", "sys/auth/kubernetes")


def _run(bare: Servers, command: str, *options: str, token: str | None = None) -> Result:
    reach = ["--address", bare.vault_addr, "--ca", str(bare.vault_ca)] if command != "policies" else []
    env = {"VAULT_TOKEN": token or bare.root_token, "VAULT_ADDR": None, "VAULT_CACERT": None}
    return CliRunner(env=env).invoke(main, [command, *reach, *MOUNTS, *options])


def _kubernetes(bare: Servers) -> list[str]:
    """Options for a cluster that is not asked anything here."""
    return ["--kubernetes-host", "https://127.0.0.1:6443", "--kubernetes-ca", str(bare.vault_ca)]


def _outcomes(result: Result) -> dict[str, str]:
    lines = [line.rsplit(maxsplit=1) for line in result.output.splitlines()]
    return {path: outcome for outcome, path in lines}


def test_everything_is_written_once(bare: Servers) -> None:
    first, second = _run(bare, "setup", *_kubernetes(bare)), _run(bare, "setup", *_kubernetes(bare))
    assert _outcomes(first) == dict.fromkeys(THINGS, "changed"), first.output
    assert _outcomes(second) == dict.fromkeys(THINGS, "unchanged"), second.output


def test_a_dry_run_writes_nothing(bare: Servers) -> None:
    dry = _run(bare, "setup", "--dry-run", *_kubernetes(bare))
    assert _outcomes(dry) == dict.fromkeys(THINGS, "would change"), dry.output
    assert bare.vault("GET", "sys/policies/acl/leasegate-engine")[0] == 404
    assert "kubernetes/" not in bare.must("GET", "sys/auth")["data"]


def test_check_tells_what_drifted_and_setup_repairs_it(bare: Servers) -> None:
    assert _run(bare, "check", *_kubernetes(bare)).exit_code == 1
    _run(bare, "setup", *_kubernetes(bare))
    assert _run(bare, "check", *_kubernetes(bare)).exit_code == 0
    bare.must("POST", "auth/kubernetes/role/leasegate-access", token_policies=["leasegate-access", "root-like"])
    bare.must("POST", "sys/policies/acl/leasegate-roles", policy='path "*" { capabilities = ["read"] }')
    checked = _run(bare, "check", *_kubernetes(bare))
    drifted = {path for path, outcome in _outcomes(checked).items() if outcome != "unchanged"}
    assert (checked.exit_code, drifted) == (
        1,
        {"auth/kubernetes/role/leasegate-access", "sys/policies/acl/leasegate-roles"},
    )
    assert _run(bare, "setup", *_kubernetes(bare)).exit_code == 0
    assert _run(bare, "check", *_kubernetes(bare)).exit_code == 0


def test_another_mount_changes_the_policies_alone(bare: Servers) -> None:
    _run(bare, "setup", *_kubernetes(bare))
    wider = _outcomes(_run(bare, "setup", "--mount", "more", *_kubernetes(bare)))
    assert {path for path, outcome in wider.items() if outcome == "changed"} == {
        f"sys/policies/acl/{name}" for name in NAMES
    }


def test_kubernetes_is_left_alone_where_no_host_is_given(bare: Servers) -> None:
    assert list(_outcomes(_run(bare, "setup"))) == THINGS[:5]
    assert "kubernetes/" not in bare.must("GET", "sys/auth")["data"]


def test_a_path_of_another_auth_method_is_refused(bare: Servers) -> None:
    bare.must("POST", "sys/auth/kubernetes", type="userpass")
    refused = _run(bare, "setup", *_kubernetes(bare))
    assert refused.exit_code == 1
    assert "is of type userpass" in refused.output


def test_a_token_without_rights_learns_which_call_was_refused(bare: Servers) -> None:
    refused = _run(bare, "setup", token=bare.token_with("default"))
    assert refused.exit_code == 1
    assert "sys/policies/acl/leasegate-engine: Vault answered 403" in refused.output


def test_a_vault_that_does_not_answer_is_named(bare: Servers) -> None:
    refused = CliRunner().invoke(main, ["setup", "--address", "https://127.0.0.1:1", *MOUNTS], env={"VAULT_TOKEN": "x"})
    assert refused.exit_code == 1
    assert "https://127.0.0.1:1 did not answer" in refused.output


def test_a_reviewer_token_is_written_but_never_shown(bare: Servers, tmp_path: Path) -> None:
    jwt = tmp_path / "jwt"
    jwt.write_text("reviewer-token-text\n")
    for _ in range(2):
        done = _run(bare, "setup", *_kubernetes(bare), "--reviewer-jwt-file", str(jwt))
        assert _outcomes(done)["auth/kubernetes/config"] == "changed"
        assert "reviewer-token-text" not in done.output
    assert bare.must("GET", "auth/kubernetes/config")["data"]["token_reviewer_jwt_set"] is True


def test_the_policies_can_be_written_to_files(bare: Servers, tmp_path: Path) -> None:
    _run(bare, "policies", "--output", str(tmp_path))
    _run(bare, "setup")
    for name in NAMES:
        assert (tmp_path / f"{name}.hcl").read_text().strip() == bare.must("GET", f"sys/policies/acl/{name}")["data"][
            "policy"
        ].strip()


# -- with a real cluster
# -------------------------------------------------------------------------------------------------------------------


def _authenticate(
    cluster: LocalStack, *, account: str, namespace: str, role: str, audience: str | None = "vault"
) -> tuple[int, list[str]]:
    """Log in to the cluster's Vault by a ServiceAccount's token; answers HTTP status and policies."""
    cluster.kubectl("create", "namespace", namespace, check=False)
    cluster.kubectl("create", "serviceaccount", account, f"--namespace={namespace}", check=False)
    wanted = [f"--audience={audience}"] if audience else []
    jwt = cluster.kubectl("create", "token", account, f"--namespace={namespace}", *wanted).stdout.strip()
    answer = cluster.vault_api().call("POST", "auth/kubernetes/login", {"jwt": jwt, "role": role})
    return answer.status, (answer.body.get("auth") or {}).get("policies", [])


@pytest.mark.parametrize("audience", ["vault", None])
def test_any_namespace_logs_in_as_a_team(cluster: LocalStack, audience: str | None) -> None:
    found = _authenticate(
        cluster, account="vault", namespace="setup-team", role="vault-policy-controller", audience=audience
    )
    assert found == (200, ["leasegate-engine", "leasegate-roles"])


def test_another_service_account_is_no_team(cluster: LocalStack) -> None:
    assert _authenticate(cluster, account="default", namespace="setup-team", role="vault-policy-controller")[0] == 403


@pytest.mark.parametrize("service", ["engine", "roles", "access"])
def test_a_service_logs_in_from_its_own_namespace_alone(cluster: LocalStack, service: str) -> None:
    name = f"leasegate-{service}"
    assert _authenticate(cluster, account=name, namespace="leasegate-system", role=name) == (200, [name])
    assert _authenticate(cluster, account=name, namespace="setup-team", role=name)[0] == 403
    assert _authenticate(cluster, account="vault", namespace="setup-team", role=name)[0] == 403


def test_a_deleted_service_account_cannot_log_in(cluster: LocalStack) -> None:
    """Vault asks the API server (TokenReview): a token that is well signed is not enough."""
    cluster.kubectl("create", "namespace", "setup-gone", check=False)
    cluster.kubectl("create", "serviceaccount", "vault", "--namespace=setup-gone")
    jwt = cluster.kubectl("create", "token", "vault", "--namespace=setup-gone").stdout.strip()
    cluster.kubectl("delete", "serviceaccount", "vault", "--namespace=setup-gone")
    answer = cluster.vault_api().call("POST", "auth/kubernetes/login", {"jwt": jwt, "role": "vault-policy-controller"})
    assert answer.status == 403, json.dumps(answer.errors)


def test_a_set_up_in_which_approval_can_be_bypassed_says_so(bare: Servers) -> None:
    """With a team's session that issues, `setup` and `check` warn; without, they do not."""
    issuing = _run(bare, "setup", *_kubernetes(bare), "--teams-issue")
    assert issuing.exit_code == 0
    assert "approval can be bypassed" in issuing.output
    assert "approval can be bypassed" in _run(bare, "check", *_kubernetes(bare), "--teams-issue").output
    assert "approval can be bypassed" not in _run(bare, "check", *_kubernetes(bare)).output
