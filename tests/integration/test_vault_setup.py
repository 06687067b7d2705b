"""The set-up of a Vault (deploy/vault): written once, then unchanged, corrected after drift, good for sessions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.vault.__main__ import main
from deploy.vault.api import Answer, VaultApi
from deploy.vault.policies import NAMES
from deploy.vault.setup import KubernetesAuth, Setup
from dev.stack.stack import LocalStack
from tests.integration.stub_vault import Reply, Seen, stub
from tests.integration.vault_users import unsigned_token
from tests.servers import Servers, real_servers

THINGS = [
    *(f"sys/policies/acl/{name}" for name in NAMES),
    "auth/token/roles/leasegate",
    "sys/config/auditing/request-headers/X-Correlation-ID",
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
    bare.must("DELETE", "sys/config/auditing/request-headers/X-Correlation-ID")


def _run(bare: Servers, command: str, *options: str, token: str | None = None) -> Result:
    reach = ["--address", bare.vault_addr, "--ca", str(bare.vault_ca)] if command != "policies" else []
    env = {"VAULT_TOKEN": token or bare.root_token, "VAULT_ADDR": None, "VAULT_CACERT": None}
    return CliRunner(env=env).invoke(main, [command, *reach, *MOUNTS, *options])


def _kubernetes(bare: Servers) -> list[str]:
    """Options for a cluster that is not asked anything here."""
    return ["--kubernetes-host", "https://127.0.0.1:6443", "--kubernetes-ca", str(bare.vault_ca)]


def _outcomes(result: Result) -> dict[str, str]:
    lines = [line.rsplit(maxsplit=1) for line in result.stdout.splitlines()]
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
    assert list(_outcomes(_run(bare, "setup"))) == THINGS[:6]
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
    jwt, reviewer = tmp_path / "jwt", unsigned_token("reviewer")
    jwt.write_text(f"{reviewer}\n")
    for _ in range(2):
        done = _run(bare, "setup", *_kubernetes(bare), "--reviewer-jwt-file", str(jwt))
        assert _outcomes(done)["auth/kubernetes/config"] == "changed"
        assert reviewer not in done.output
    found = bare.must("GET", "auth/kubernetes/config")["data"]
    assert found.get("token_reviewer_jwt_set", True) is True  # Vault 1.14 does not tell


def test_the_policies_can_be_written_to_files(bare: Servers, tmp_path: Path) -> None:
    _run(bare, "policies", "--output", str(tmp_path))
    _run(bare, "setup")
    for name in NAMES:
        assert (tmp_path / f"{name}.hcl").read_text().strip() == bare.must("GET", f"sys/policies/acl/{name}")["data"][
            "policy"
        ].strip()


TEAM = "auth/kubernetes/role/vault-policy-controller"
ROLES = (TEAM, *(f"auth/kubernetes/role/leasegate-{name}" for name in ("engine", "roles", "access")))


def test_the_teams_session_permits_nothing_and_is_kept_nowhere(bare: Servers) -> None:
    """C1, F6, F8: a batch token of a minute without policies, and an audience on all four roles."""
    _run(bare, "setup", *_kubernetes(bare))
    role = bare.must("GET", TEAM)["data"]
    assert (role["token_type"], role["token_ttl"], role["token_max_ttl"]) == ("batch", 60, 60)
    assert (role["token_policies"] or [], role["token_no_default_policy"]) == ([], True)
    assert {bare.must("GET", path)["data"]["audience"] for path in ROLES} == {"leasegate-vault"}


def test_a_set_up_of_before_loses_its_policies_and_its_sessions(bare: Servers) -> None:
    """F10: sessions that were made with the policies of before end at once, and no others do."""
    _run(bare, "setup", *_kubernetes(bare), "--allow-any-vault")
    bare.must("POST", TEAM, token_policies=["leasegate-engine", "leasegate-roles", "mine"])
    session = _session_of_before(bare)
    other = bare.token_with("leasegate-engine")
    done = _run(bare, "setup", *_kubernetes(bare))
    assert _outcomes(done)[TEAM] == "changed"
    assert "sessions of vault-policy-controller with leasegate-engine, leasegate-roles, mine revoked: 1" in done.stderr
    assert bare.vault("POST", "auth/token/renew-self", session)[0] == 403
    assert bare.vault("POST", "auth/token/renew-self", other)[0] == 200
    again = _run(bare, "setup", *_kubernetes(bare))
    assert set(_outcomes(again).values()) == {"unchanged"}
    assert not again.stderr


@dataclass(frozen=True, slots=True)
class Late(VaultApi):
    """A Vault that lists an accessor whose token has ended meanwhile."""

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        answer = VaultApi.call(self, method, path, body)
        if method == "LIST":
            answer.body["data"]["keys"].insert(0, "ended")
        return answer


def test_a_session_that_ends_meanwhile_does_not_stop_the_others(bare: Servers) -> None:
    """F10: Vault answers 400 for an accessor that it does not know any more."""
    _run(bare, "setup", *_kubernetes(bare), "--allow-any-vault")
    session = _session_of_before(bare)
    auth = KubernetesAuth(host="https://127.0.0.1:6443", ca=bare.vault_ca.read_text())
    steps = list(Setup(Late(bare.vault_addr, ca=bare.vault_ca, token=bare.root_token)).kubernetes(auth))
    assert [step.note.rpartition(" ")[2] for step in steps if step.note] == ["1"]
    assert bare.vault("POST", "auth/token/renew-self", session)[0] == 403


@pytest.mark.parametrize("denied", ["auth/token/accessors*", "auth/token/lookup-accessor"])
def test_sessions_that_cannot_be_revoked_are_told(bare: Servers, denied: str) -> None:
    """F10: a token that may set up and not list says until when the sessions of before live."""
    _run(bare, "setup", *_kubernetes(bare), "--allow-any-vault")
    everything = 'path "*" { capabilities = ["create", "read", "update", "list", "sudo"] }'
    bare.must(
        "POST",
        "sys/policies/acl/operator",
        policy=everything + f'path "{denied}" {{ capabilities = ["deny"] }}',
    )
    done = _run(bare, "setup", *_kubernetes(bare), token=bare.token_with("operator"))
    assert done.exit_code == 0, done.output
    assert "live for up to 1200 seconds" in done.stderr


def _session_of_before(bare: Servers) -> str:
    """A session of the teams' role, logged in through an API server that says yes."""
    jwt = unsigned_token("vault", "leasegate-vault")

    def review(_: Seen) -> Reply:
        user = {"username": "system:serviceaccount:demo:vault", "uid": "u1", "groups": ["system:serviceaccounts"]}
        status = {"authenticated": True, "user": user, "audiences": ["leasegate-vault"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        return Reply(201, body=json.dumps(body).encode())

    before = bare.must("GET", "auth/kubernetes/config")["data"]
    with stub(review) as apiserver:
        elsewhere = before | {"kubernetes_host": apiserver.address, "token_reviewer_jwt": unsigned_token("reviewer")}
        given = {key: value for key, value in elsewhere.items() if value and key != "token_reviewer_jwt_set"}
        bare.must("POST", "auth/kubernetes/config", **given)
        made = bare.must("POST", "auth/kubernetes/login", role="vault-policy-controller", jwt=jwt)["auth"]
    assert "leasegate-engine" in made["policies"]
    return str(made["client_token"])


def _file(bare: Servers, folder: Path, **changes: Any) -> Path:
    """A file of --vault-config with one entry."""
    auth = {"kubernetes": {"mount": "kubernetes", "role": "leasegate-engine", "tokenFile": "/token"}}
    entry = {
        "name": "main",
        "addresses": [bare.vault_addr],
        "caFile": str(bare.vault_ca),
        "auth": {
            "engine": auth,
            "roles": auth | {"kubernetes": auth["kubernetes"] | {"role": "our-roles"}},
            "access": auth | {"kubernetes": auth["kubernetes"] | {"role": "leasegate-access"}},
        },
        "teamAuth": {"tokenAudience": "our-vault", "serviceAccounts": ["vault", "vault-too"]},
        "mounts": {"owned": [{"path": "one", "namespaces": ["demo"]}, {"path": "two", "namespaces": ["prod", "demo"]}]},
    }
    file = folder / "vaults.yaml"
    file.write_text(json.dumps({"vaults": [entry | changes]}))
    return file


def _run_file(bare: Servers, command: str, file: Path, *options: str) -> Result:
    env = {"VAULT_TOKEN": bare.root_token, "VAULT_ADDR": None, "VAULT_CACERT": None}
    return CliRunner(env=env).invoke(main, [command, "--vault-config", str(file), *options])


def test_the_operators_file_says_it_all(bare: Servers, tmp_path: Path) -> None:
    """Addresses, mounts, namespaces, audience and names of the one file that the four processes read."""
    file = _file(bare, tmp_path)
    done = _run_file(bare, "setup", file, *_kubernetes(bare))
    assert done.exit_code == 0, done.output
    team = bare.must("GET", TEAM)["data"]
    assert team["bound_service_account_names"] == ["vault", "vault-too"]
    assert sorted(team["bound_service_account_namespaces"]) == ["demo", "prod"]
    roles = bare.must("GET", "auth/kubernetes/role/our-roles")["data"]
    assert (roles["token_policies"], roles["bound_service_account_names"]) == (["leasegate-roles"], ["leasegate-roles"])
    assert {team["audience"], roles["audience"]} == {"our-vault"}
    policy = bare.must("GET", "sys/policies/acl/leasegate-engine")["data"]["policy"]
    assert '"one/config/*"' in policy
    assert '"two/config/*"' in policy
    assert _run_file(bare, "check", file, *_kubernetes(bare)).exit_code == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mount", "x"], "--mount and --vault-config exclude each other"),
        (["--audience", "x"], "--audience and --vault-config exclude each other"),
        (["--team-namespace", "x"], "--team-namespace and --vault-config exclude each other"),
        (["--vault", "another"], "no entry 'another', but main"),
    ],
)
def test_options_beside_the_file_are_refused(bare: Servers, tmp_path: Path, options: list[str], says: str) -> None:
    refused = _run_file(bare, "setup", _file(bare, tmp_path), *options)
    assert (refused.exit_code, says in refused.output) == (2, True), refused.output


def test_a_path_with_the_namespace_in_it_is_for_any(bare: Servers, tmp_path: Path) -> None:
    owned = [{"path": "team/{namespace}"}, {"path": "db/{namespace}/pg"}, {"path": "free/*", "namespaces": ["a"]}]
    file = _file(bare, tmp_path, mounts={"owned": owned})
    assert _run_file(bare, "setup", file, *_kubernetes(bare)).exit_code == 0
    policy = bare.must("GET", "sys/policies/acl/leasegate-engine")["data"]["policy"]
    assert all(f'"{path}/config/*"' in policy for path in ("team/+", "db/+/pg", "free/+"))
    assert bare.must("GET", TEAM)["data"]["bound_service_account_namespaces"] == ["*"]
    wide = _file(bare, tmp_path, mounts={"owned": [{"path": "{namespace}/pg"}]})
    assert "begins with a wildcard" in _run_file(bare, "setup", wide).output


@pytest.mark.parametrize("command", ["setup", "check"])
@pytest.mark.parametrize(
    ("audience", "why"),
    [
        ("", "an audience is needed"),
        (" ", "an audience is needed"),
        ("https://kubernetes.default.svc", "audience of the API server"),
        ("https://kubernetes.default.svc.cluster.local", "audience of the API server"),
        ("https://127.0.0.1:6443", "audience of the API server"),
        ("https://issuer.example", "audience of the API server"),
        ("vault-too", "audience of the API server"),
    ],
)
def test_an_audience_that_keeps_nothing_apart_is_refused(
    bare: Servers, tmp_path: Path, command: str, audience: str, why: str
) -> None:
    """F6, F7: none, or one of the API server's own, as far as the reviewer's token tells."""
    claims = {"aud": ["https://issuer.example", "vault-too"], "iss": "https://issuer.example"}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    (tmp_path / "jwt").write_text(f"e30.{payload}.c2ln")
    options = [*_kubernetes(bare), "--reviewer-jwt-file", str(tmp_path / "jwt"), "--audience", audience]
    refused = _run(bare, command, *options)
    assert refused.exit_code == 2
    assert why in refused.output
    assert bare.vault("GET", "sys/policies/acl/leasegate-engine")[0] == 404


def test_a_set_up_in_which_approval_can_be_bypassed_says_so(bare: Servers) -> None:
    """With a team's session that issues, `setup` and `check` warn; without, they do not."""
    issuing = _run(bare, "setup", *_kubernetes(bare), "--allow-any-vault")
    assert issuing.exit_code == 0
    assert "approval can be bypassed" in issuing.output
    role = bare.must("GET", TEAM)["data"]
    assert (role["token_type"], len(role["token_policies"]), role["token_ttl"]) == ("service", 3, 1200)
    assert "approval can be bypassed" in _run(bare, "check", *_kubernetes(bare), "--allow-any-vault").output
    assert "approval can be bypassed" not in _run(bare, "check", *_kubernetes(bare)).output


# -- with a real cluster
# -------------------------------------------------------------------------------------------------------------------

AUDIENCE = "leasegate-vault"
_MADE: set[tuple[str, str]] = set()


def _authenticate(
    cluster: LocalStack, *, account: str, namespace: str, role: str, audience: str | None = AUDIENCE
) -> tuple[int, dict[str, Any]]:
    """Log in to the cluster's Vault by a ServiceAccount's token; answers HTTP status and what Vault says of it."""
    if (namespace, account) not in _MADE:
        cluster.kubectl("create", "namespace", namespace, check=False)
        cluster.kubectl("create", "serviceaccount", account, f"--namespace={namespace}", check=False)
        _MADE.add((namespace, account))
    wanted = [f"--audience={audience}"] if audience else []
    jwt = cluster.kubectl("create", "token", account, f"--namespace={namespace}", *wanted).stdout.strip()
    answer = cluster.vault_api().call("POST", "auth/kubernetes/login", {"jwt": jwt, "role": role})
    return answer.status, answer.body.get("auth") or {}


PATHS = (
    ("GET", "sys/mounts/{mount}", None),
    ("POST", "sys/mounts/{mount}", {"type": "database"}),
    ("DELETE", "sys/mounts/{mount}", None),
    ("POST", "sys/mounts/{mount}/tune", {"description": "mine"}),
    ("POST", "sys/remount", {"from": "{mount}", "to": "mine"}),
    *(
        (method, f"{{mount}}/{family}/x", body)
        for family in ("config", "roles", "static-roles")
        for method, body in (("GET", None), ("POST", {"db_name": "x"}), ("DELETE", None), ("LIST", None))
    ),
    ("LIST", "{mount}/roles", None),
    ("LIST", "{mount}/config", None),
    ("GET", "{mount}/creds/x", None),
    ("GET", "{mount}/static-creds/x", None),
    ("POST", "{mount}/rotate-root/x", {}),
    ("POST", "{mount}/rotate-role/x", {}),
    ("POST", "{mount}/reset/x", {}),
    ("POST", "sys/leases/renew/{mount}/creds/x/y", {}),
    ("POST", "sys/leases/revoke/{mount}/creds/x/y", {}),
    ("POST", "sys/leases/renew", {"lease_id": "{mount}/creds/x/y"}),
    ("POST", "sys/leases/revoke", {"lease_id": "{mount}/creds/x/y"}),
    ("POST", "sys/leases/revoke-prefix/{mount}", {}),
    ("POST", "sys/leases/revoke-force/{mount}", {}),
    ("POST", "sys/leases/revoke-force/{mount}/creds/x/y", {}),
    ("LIST", "sys/leases/lookup/{mount}/creds", None),
    ("POST", "auth/token/create", {}),
    ("POST", "auth/token/create", {"policies": ["leasegate-engine"]}),
    ("POST", "auth/token/create-orphan", {}),
    ("POST", "auth/token/create/leasegate", {"ttl": "1h"}),
    ("POST", "auth/token/revoke-accessor", {"accessor": "x"}),
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/renew-self", {}),
    ("POST", "auth/token/revoke-self", {}),
    ("GET", "sys/policies/acl/leasegate-engine", None),
    ("GET", "auth/kubernetes/role/vault-policy-controller", None),
    ("GET", "cubbyhole/x", None),
)


@pytest.mark.parametrize("namespace", ["setup-enabled", "outsider"])
def test_the_teams_session_is_refused_on_every_path(cluster: LocalStack, namespace: str) -> None:
    """C1: with the guide's role a ServiceAccount of any namespace proves who it is and can do nothing in Vault."""
    if namespace == "setup-enabled":
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("apply", f"--namespace={namespace}", f"--filename={cluster.enabled_namespace(namespace)}")
    status, session = _authenticate(cluster, account="vault", namespace=namespace, role="vault-policy-controller")
    assert (status, session["policies"], session["token_type"]) == (200, [], "batch")
    assert (session["accessor"], session["lease_duration"], session["renewable"]) == ("", 60, False)
    api, root = cluster.vault_api(session["client_token"]), cluster.vault_api()
    for mount in ("my-postgres-se", "database", "team/c1"):
        absent = not root.call("GET", f"sys/mounts/{mount}").ok
        assert not absent or root.call("POST", f"sys/mounts/{mount}", {"type": "database"}).ok
        answers = {
            (method, path): api.call(method, path.format(mount=mount), _filled(body, mount)).status
            for method, path, body in PATHS
        }
        assert {call: status for call, status in answers.items() if status != 403} == {}
        if absent:
            root.call("DELETE", f"sys/mounts/{mount}")


def _filled(body: dict[str, Any] | None, mount: str) -> dict[str, Any] | None:
    if body is None:
        return None
    return {key: value.format(mount=mount) if isinstance(value, str) else value for key, value in body.items()}


@pytest.mark.parametrize("audience", [None, "vault", "sts.example.com", "https://kubernetes.default.svc"])
@pytest.mark.parametrize(
    ("account", "namespace", "role"),
    [
        ("vault", "setup-team", "vault-policy-controller"),
        *((f"leasegate-{name}", "leasegate-system", f"leasegate-{name}") for name in ("engine", "roles", "access")),
    ],
)
def test_a_token_of_another_audience_logs_in_nowhere(
    cluster: LocalStack, account: str, namespace: str, role: str, audience: str | None
) -> None:
    """C1, F6: on none of the four roles."""
    assert _authenticate(cluster, account=account, namespace=namespace, role=role, audience=audience)[0] == 403


def test_a_token_for_vault_opens_nothing_in_kubernetes(cluster: LocalStack) -> None:
    """F7: the audience is none of the API server's."""
    for audience, refused in ((AUDIENCE, True), ("https://kubernetes.default.svc", False)):
        wanted = ["leasegate-engine", "--namespace=leasegate-system", f"--audience={audience}"]
        jwt = cluster.kubectl("create", "token", *wanted).stdout.strip()
        tried = cluster.kubectl("get", "--raw", "/api", f"--token={jwt}", check=False)
        assert ("Unauthorized" in tried.stderr, tried.returncode != 0) == (refused, refused)


def test_another_service_account_is_no_team(cluster: LocalStack) -> None:
    assert _authenticate(cluster, account="default", namespace="setup-team", role="vault-policy-controller")[0] == 403


@pytest.mark.parametrize("service", ["engine", "roles", "access"])
def test_a_service_logs_in_from_its_own_namespace_alone(cluster: LocalStack, service: str) -> None:
    name = f"leasegate-{service}"
    status, session = _authenticate(cluster, account=name, namespace="leasegate-system", role=name)
    assert (status, session["policies"]) == (200, [name])
    assert _authenticate(cluster, account=name, namespace="setup-team", role=name)[0] == 403
    assert _authenticate(cluster, account="vault", namespace="setup-team", role=name)[0] == 403


def test_a_deleted_service_account_cannot_log_in(cluster: LocalStack) -> None:
    """Vault asks the API server (TokenReview): a token that is well signed is not enough."""
    cluster.kubectl("create", "namespace", "setup-gone", check=False)
    cluster.kubectl("create", "serviceaccount", "vault", "--namespace=setup-gone")
    jwt = cluster.kubectl("create", "token", "vault", "--namespace=setup-gone", f"--audience={AUDIENCE}").stdout.strip()
    cluster.kubectl("delete", "serviceaccount", "vault", "--namespace=setup-gone")
    answer = cluster.vault_api().call("POST", "auth/kubernetes/login", {"jwt": jwt, "role": "vault-policy-controller"})
    assert answer.status == 403, json.dumps(answer.errors)
