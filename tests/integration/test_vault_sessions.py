"""Sessions at a real bao: opened by every auth method, kept alive, and revoked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dev.stack.certificates import Authority
from services.common.errors import (
    PathNotOwnedError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
)
from services.common.vault.scope import Scope
from services.common.vault.sessions import Sessions
from services.common.vault.target import (
    AppRoleAuth,
    AuthMethod,
    CertificateAuth,
    KubernetesAuth,
    TokenAuth,
    UserpassAuth,
    VaultTarget,
)
from services.engine.scope import SCOPE as ENGINE
from services.roles.scope import SCOPE as ROLES
from tests.eventually import eventually
from tests.integration.stub_vault import Reply, Seen, stub
from tests.integration.vault_services import service_sessions
from tests.integration.vault_users import (
    POLICIES,
    Clock,
    app_role,
    revoke_sessions,
    target,
    unsigned_token,
    user,
    user_sessions,
    works,
)
from tests.servers import Servers, real_servers
from tests.vaults import MAIN, any_vault

pytestmark = pytest.mark.usefixtures("auth_methods")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers of its own, as these tests look at everything that is left in Vault."""
    with real_servers() as running:
        yield running


# Methods


def test_userpass(servers: Servers, sessions: Sessions) -> None:
    wanted = target(servers, user(servers))
    assert works(sessions.team_vault(wanted))
    assert works(sessions.team_vault(replace(wanted, auth=None)))


def test_app_role(servers: Servers, sessions: Sessions) -> None:
    assert works(sessions.team_vault(target(servers, app_role(servers))))


def test_a_client_certificate(servers: Servers, sessions: Sessions, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.client("team")
    servers.must("POST", "auth/cert/certs/team", certificate=authority.ca.read_text(), token_policies=POLICIES)
    auth = CertificateAuth(
        mount="cert", auth_role="team", certificate=pair.cert.read_bytes(), private_key=pair.key.read_bytes()
    )

    assert works(sessions.team_vault(target(servers, auth)))

    other = Authority(tmp_path / "other").client("team")
    for wrong in (
        replace(auth, private_key=other.key.read_bytes()),
        replace(auth, certificate=b"nonsense"),
        replace(auth, certificate=other.cert.read_bytes(), private_key=other.key.read_bytes()),
    ):
        with pytest.raises(VaultAuthRefusedError) as refused:
            sessions.team_vault(replace(target(servers, wrong), name="wrong"))
        assert "PRIVATE" not in refused.value.message


def test_a_service_accounts_token(servers: Servers, sessions: Sessions) -> None:
    jwt, wrong = unsigned_token("vault"), unsigned_token("somebody")

    def review(request: Seen) -> Reply:
        good = request.body["spec"]["token"] == jwt
        user = {"username": "system:serviceaccount:demo:vault", "uid": "u1", "groups": ["system:serviceaccounts"]}
        status = {"authenticated": good, "user": user if good else {}}
        return Reply(
            201,
            body=json.dumps(
                {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
            ).encode(),
        )

    with stub(review) as apiserver:
        ca = servers.vault_ca.read_text()  # any will do, as the stub has no TLS
        servers.must(
            "POST",
            "auth/kubernetes/config",
            kubernetes_host=apiserver.address,
            kubernetes_ca_cert=ca,
            token_reviewer_jwt=unsigned_token("reviewer"),
        )
        bound: dict[str, Any] = {"bound_service_account_names": ["vault"], "bound_service_account_namespaces": ["*"]}
        servers.must("POST", "auth/kubernetes/role/vault-policy-controller", token_policies=POLICIES, **bound)
        auth = KubernetesAuth(mount="kubernetes", auth_role="vault-policy-controller", jwt=jwt)

        assert works(sessions.team_vault(target(servers, auth)))

        with pytest.raises(VaultAuthRefusedError) as refused:
            sessions.team_vault(replace(target(servers, replace(auth, jwt=wrong)), name="wrong"))
    assert wrong not in refused.value.message
    assert "demo/wrong" in refused.value.message


def test_a_vault_namespace(servers: Servers, sessions: Sessions) -> None:
    servers.must("POST", "sys/namespaces/org")
    root = VaultTarget(
        name="vault",
        address=servers.vault_addr,
        ca_bundle=servers.vault_ca.read_bytes(),
        auth=TokenAuth(servers.root_token),
    )
    wide = Scope("GET,POST sys/mounts/<mount>")
    with closing(Sessions(wide, vaults=any_vault())) as made:
        made.team_vault(replace(root, vault_namespace="org")).write("sys/mounts/inside", {"type": "kv"})
        assert made.team_vault(replace(root, vault_namespace="org")).read("sys/mounts/inside").data["type"] == "kv"
    assert servers.vault("GET", "sys/mounts/inside")[0] == 400
    servers.must("DELETE", "sys/namespaces/org")


@pytest.mark.parametrize(
    "auth",
    [
        TokenAuth("s.thisisnotatokenofvault"),
        UserpassAuth("userpass", "team", "wrong-password"),
        UserpassAuth("no-such-mount", "team", "wrong-password"),
        AppRoleAuth("approle", "no-such-id", "wrong-password"),
        KubernetesAuth("kubernetes", "no-such-role", "wrong-password"),
    ],
)
def test_a_refused_session_names_the_target_and_no_secret(
    servers: Servers, sessions: Sessions, auth: AuthMethod
) -> None:
    wanted = target(servers, auth)
    with pytest.raises(VaultAuthRefusedError) as refused:
        sessions.team_vault(wanted)
    assert "demo/vault" in refused.value.message
    assert refused.value.metadata["target"] == "demo/vault"
    for text in (refused.value.message, repr(wanted), repr(auth)):
        assert "wrong-password" not in text
        assert "notatoken" not in text
    with pytest.raises(VaultAuthMissingError):
        sessions.team_vault(replace(wanted, auth=None))


# The two fences around a path


def test_each_service_is_refused_outside_its_family_twice(servers: Servers) -> None:
    """By its code before a call leaves, and by the policy of its own session."""
    read = "GET <mount>/*/*", "GET sys/policies/acl/*", "GET sys/auth/*", "GET auth/token/lookup-self"
    write = "POST,DELETE sys/mounts/<mount>", "POST sys/mounts/<mount>/tune"
    for scope, policy, foreign in (
        (
            ENGINE,
            "leasegate-engine",
            (
                "team-a/roles/x",
                "team-a/creds/x",
                "team-a/static-creds/x",
                "sys/policies/acl/x",
                "auth/token/lookup-self",
            ),
        ),
        (
            ROLES,
            "leasegate-roles",
            ("team-a/config/x", "team-a/creds/x", "team-a/static-creds/x", "sys/policies/acl/x", "sys/auth/x"),
        ),
    ):
        with (
            service_sessions(servers, scope, policy) as fenced,
            service_sessions(servers, Scope(*read, *write), policy) as open_scope,
        ):
            anywhere = open_scope.acting_vault(replace(target(servers, None), vault=MAIN))
            for path in foreign:
                with pytest.raises(PathNotOwnedError):
                    fenced.acting_vault(replace(target(servers, None), vault=MAIN)).read(path)
                with pytest.raises(VaultPolicyMissingError):
                    anywhere.read(path)
            if policy == "leasegate-roles":
                with pytest.raises(VaultPolicyMissingError):
                    anywhere.delete("sys/mounts/team-a")
                for path in ("sys/mounts/team-b", "sys/mounts/team-a/tune"):
                    with pytest.raises(VaultPolicyMissingError):
                        anywhere.write(path, {"type": "database"})


# Keeping alive


def test_a_session_is_renewed_before_it_ends(servers: Servers, sessions: Sessions, clock: Clock) -> None:
    sessions.team_vault(target(servers, user(servers, token_ttl="100s")))
    (accessor,) = user_sessions(servers)

    def ends_at() -> str:
        return str(servers.must("POST", "auth/token/lookup-accessor", accessor=accessor)["data"]["expire_time"])

    before = ends_at()
    clock.ahead_s = 51
    eventually(lambda: ends_at() > before, every_s=0.02, what="the session renewed")
    assert user_sessions(servers) == [accessor]


def test_near_its_longest_life_a_session_is_replaced_and_revoked(
    servers: Servers, sessions: Sessions, clock: Clock
) -> None:
    vault = sessions.team_vault(target(servers, user(servers, token_ttl="100s", token_max_ttl="110s")))
    (first,) = user_sessions(servers)
    clock.ahead_s = 60
    servers.must(
        "POST",
        "auth/userpass/users/team",
        token_policies=POLICIES,
        token_ttl="20s",
        token_max_ttl="20s",
        password="p w%",
    )
    # renewing now brings 20 s at most, so it opens another session
    eventually(lambda: user_sessions(servers) and first not in user_sessions(servers), what="another session")
    assert works(vault)
    assert len(user_sessions(servers)) == 1


def test_a_revoked_session_is_opened_again_once(servers: Servers, sessions: Sessions, clock: Clock) -> None:
    vault = sessions.team_vault(target(servers, user(servers)))
    revoke_sessions(servers)
    clock.ahead_s = 10

    assert works(vault)


def test_many_threads_open_one_session(servers: Servers, sessions: Sessions, clock: Clock) -> None:
    vault = sessions.team_vault(target(servers, user(servers)))
    revoke_sessions(servers)
    clock.ahead_s = 10
    gate = threading.Barrier(16)

    def call() -> bool:
        gate.wait()
        return works(vault)

    with ThreadPoolExecutor(16) as pool:
        assert all(future.result() for future in [pool.submit(call) for _ in range(16)])
    assert len(user_sessions(servers)) == 1


def test_a_403_of_the_policies_opens_no_new_sessions(servers: Servers, sessions: Sessions, clock: Clock) -> None:
    vault = sessions.team_vault(target(servers, user(servers)))
    before = user_sessions(servers)
    for _ in range(3):
        with pytest.raises(VaultPolicyMissingError):
            vault.read("not-permitted/roles/x")
    assert user_sessions(servers) == before
    clock.ahead_s = 10  # the session is no longer young: one is tried
    for _ in range(3):
        with pytest.raises(VaultPolicyMissingError):
            vault.read("not-permitted/roles/x")
    assert len(user_sessions(servers)) == 1


def test_a_403_of_the_policies_stays_one_without_a_second_session(
    servers: Servers, sessions: Sessions, clock: Clock
) -> None:
    auth = app_role(servers, secret_id_num_uses=1)
    vault = sessions.team_vault(target(servers, auth))
    clock.ahead_s = 10
    with pytest.raises(VaultPolicyMissingError):
        vault.read("not-permitted/roles/x")
    assert works(vault)


def test_a_new_secret_is_a_new_session_and_the_old_handle_works_on(servers: Servers, sessions: Sessions) -> None:
    old = sessions.team_vault(target(servers, user(servers)))
    (first,) = user_sessions(servers)

    new = sessions.team_vault(target(servers, user(servers, password="another")))

    assert works(new)
    assert works(old)
    assert len(user_sessions(servers)) == 1
    assert first not in user_sessions(servers)


def test_a_refused_new_secret_leaves_the_session_in_use(servers: Servers, sessions: Sessions) -> None:
    good = target(servers, user(servers))
    vault = sessions.team_vault(good)
    with pytest.raises(VaultAuthRefusedError):
        sessions.team_vault(replace(good, auth=UserpassAuth("userpass", "team", "wrong")))
    assert works(vault)
    assert works(sessions.team_vault(replace(good, auth=None)))


def test_the_same_secret_is_no_new_session(servers: Servers, sessions: Sessions) -> None:
    wanted = target(servers, user(servers))
    for _ in range(3):
        assert works(sessions.team_vault(wanted))
    assert len(user_sessions(servers)) == 1


def test_another_targets_session_is_never_used(servers: Servers, sessions: Sessions) -> None:
    sessions.team_vault(target(servers, user(servers)))
    for other in (
        target(servers, None, cluster="elsewhere"),
        replace(target(servers, None), namespace="other"),
        replace(target(servers, None), name="other"),
        replace(target(servers, None), vault_namespace="other"),
        replace(target(servers, None), address="https://localhost:1"),
        replace(target(servers, None), vault="main"),
    ):
        with pytest.raises(VaultAuthMissingError):
            sessions.team_vault(other)
