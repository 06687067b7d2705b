"""A service's own auths, and revoking without the team's, on a real bao."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import (
    TeamLoginHasPoliciesError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultUnavailableError,
)
from services.common.vault.sessions import Sessions
from services.common.vault.target import TokenAuth
from services.common.vault.vaults import Vaults
from tests.certificates import Authority
from tests.integration.vault_users import (
    SCOPE,
    Clock,
    app_role,
    revoke_sessions,
    target,
    user,
    user_sessions,
    works,
)
from tests.servers import Servers
from tests.vaults import MAIN, any_vault, entry, entry_of, vaults

pytestmark = pytest.mark.usefixtures("auth_methods")


@pytest.fixture
def own(servers: Servers, tmp_path: Path) -> Vaults:
    auth = app_role(servers)
    (tmp_path / "role-id").write_text(f"{auth.role_id}\n")
    (tmp_path / "secret-id").write_text(f"{auth.secret_id}\n")
    files = {"roleIdFile": str(tmp_path / "role-id"), "secretIdFile": str(tmp_path / "secret-id")}
    main = entry_of(servers, auth={"roles": {"approle": files}}, maxRequestDuration="5s", formerNames=["old"])
    return vaults(main, service="roles")


def test_service_auths_are_by_name(servers: Servers, own: Vaults) -> None:
    with closing(Sessions(SCOPE, vaults=own)) as sessions:
        for name in (MAIN, "old"):
            vault = sessions.service_vault(name)
            assert vault is not None
            assert works(vault)
        assert sessions.service_vault("elsewhere") is None
        assert sessions.service_vault("") is None
    assert own.max_request_duration_s(MAIN) == 5


def test_a_rotated_file_needs_no_restart(servers: Servers, own: Vaults, clock: Clock, tmp_path: Path) -> None:
    with closing(Sessions(SCOPE, vaults=own, clock=clock)) as sessions:
        vault = sessions.service_vault(MAIN)
        assert vault is not None
        assert works(vault)
        old = (tmp_path / "secret-id").read_text().strip()
        (tmp_path / "secret-id").write_text(app_role(servers).secret_id)
        servers.must("POST", "auth/approle/role/team/secret-id/destroy", secret_id=old)
        servers.must("POST", "auth/token/create-orphan")
        for accessor in servers.must("LIST", "auth/token/accessors")["data"]["keys"]:
            status, body = servers.vault("POST", "auth/token/lookup-accessor", accessor=accessor)
            if status == 200 and body["data"]["path"] == "auth/approle/auth":
                servers.must("POST", "auth/token/revoke-accessor", accessor=accessor)
        clock.ahead_s = 10
        assert works(vault)


def test_a_missing_file_is_a_refused_session_that_names_it(servers: Servers, own: Vaults, tmp_path: Path) -> None:
    (tmp_path / "secret-id").unlink()
    with closing(Sessions(SCOPE, vaults=own)) as sessions:
        vault = sessions.service_vault(MAIN)
        assert vault is not None
        with pytest.raises(VaultAuthRefusedError, match="secret-id"):
            works(vault)
        assert sessions.serving()


def test_where_teams_act_an_ending_takes_what_is_left(servers: Servers, clock: Clock) -> None:
    auth = user(servers)
    gone = target(servers, None)  # as an object's status remembers it
    with closing(Sessions(SCOPE, vaults=any_vault(), clock=clock)) as sessions:
        with pytest.raises(VaultAuthMissingError):
            sessions.acting_vault(gone)
        sessions.team_vault(target(servers, auth))
        assert works(sessions.acting_vault(gone))
        assert works(sessions.acting_vault(target(servers, replace(auth, password="wrong"))))
        assert len(user_sessions(servers)) == 1
        servers.must("DELETE", "auth/userpass/users/team")
        revoke_sessions(servers)
        clock.ahead_s = 10
        with pytest.raises(VaultAuthRefusedError):
            works(sessions.acting_vault(gone))
        assert works(sessions.acting_vault(target(servers, user(servers, password="new one"))))


def test_the_own_session_acts_whatever_the_team_has(servers: Servers, own: Vaults) -> None:
    """C1: a team's auth proves and does not act, whether it may do more than the service or nothing at all."""
    with closing(Sessions(SCOPE, vaults=own)) as sessions:
        for auth in (TokenAuth(servers.root_token), TokenAuth("s.notatokenofthisvault00"), None):
            assert works(sessions.acting_vault(own.resolve(target(servers, auth))))
        assert works(sessions.proven_vault(own.resolve(target(servers, TokenAuth(servers.team_token())))))


def test_a_token_whose_policies_cannot_be_read_proves_nothing(servers: Servers, own: Vaults) -> None:
    """F9: without the policy default Vault does not tell what else a token may do."""
    servers.must("POST", "sys/policies/acl/little", policy='path "sys/mounts/other" { capabilities = ["read"] }')
    with (
        closing(Sessions(SCOPE, vaults=own)) as sessions,
        pytest.raises(TeamLoginHasPoliciesError, match="cannot be read"),
    ):
        sessions.proven_vault(own.resolve(target(servers, TokenAuth(servers.token_with("little")))))


def test_the_proof_goes_where_the_operators_file_says(servers: Servers, own: Vaults, tmp_path: Path) -> None:
    """C1: an AppBinding's own authority, or its word not to look at one, does not decide who is asked."""
    other = Authority(tmp_path / "other")
    team = replace(target(servers, TokenAuth(servers.team_token())), vault=MAIN)
    with closing(Sessions(SCOPE, vaults=own)) as sessions:
        assert works(sessions.proven_vault(replace(team, ca_bundle=other.ca.read_bytes(), server_name="elsewhere")))
    auth = {"roles": {"approle": {"roleIdFile": "/none", "secretIdFile": "/none"}}}
    strange = vaults(entry(servers.vault_addr, auth=auth, caFile=str(other.ca)), service="roles")
    with closing(Sessions(SCOPE, vaults=strange)) as sessions:
        for trusting in (replace(team, ca_bundle=b"", insecure_skip_tls_verify=True), team):
            with pytest.raises(VaultUnavailableError):
                sessions.proven_vault(trusting)


def test_health_says_whether_vault_answers(servers: Servers, own: Vaults) -> None:
    with closing(Sessions(SCOPE, vaults=own)) as sessions:
        assert sessions.serving()
        assert sessions.reachable(servers.vault_addr)
        assert not sessions.reachable("https://127.0.0.1:1")
        servers.bao.seal()
        try:
            assert not sessions.serving()
            assert not sessions.reachable(servers.vault_addr)
        finally:
            servers.bao.unseal()
        assert sessions.serving()


def test_what_was_made_before_a_restart_of_vault_works_after_it(servers: Servers, sessions: Sessions) -> None:
    vault = sessions.team_vault(target(servers, user(servers)))
    assert works(vault)
    servers.bao.process.kill()
    servers.bao.start()
    assert works(vault)
