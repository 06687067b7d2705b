"""Users, roles and targets of the tests that log in to a real bao, and a clock that they move on."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from services.common.vault.client import Vault
from services.common.vault.scope import Scope
from services.common.vault.target import AppRoleAuth, AuthMethod, UserpassAuth, VaultTarget
from tests.servers import Servers

SCOPE = Scope("GET sys/mounts/<mount>", "GET,DELETE <mount>/roles/*")
POLICIES = ["leasegate-engine", "leasegate-roles"]
METHODS = ("userpass", "approle", "cert", "kubernetes")


class Clock:
    """Monotonic time that a test moves on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def enable_methods(servers: Servers) -> None:
    """A mount to read, and the auth methods; what is there already may stay."""
    servers.vault("POST", "sys/mounts/team-a", type="database")
    for path in METHODS:
        servers.vault("POST", f"sys/auth/{path}", type=path)


def disable_methods(servers: Servers) -> None:
    """Take all of it away, and every session that came of it."""
    for path in METHODS:
        servers.vault("DELETE", f"sys/auth/{path}")
    servers.vault("DELETE", "sys/mounts/team-a")


def target(servers: Servers, auth: AuthMethod | None, **more: Any) -> VaultTarget:
    return VaultTarget(
        name="vault",
        namespace="demo",
        address=servers.vault_addr,
        ca_bundle=servers.vault_ca.read_bytes(),
        auth=auth,
        **more,
    )


def works(vault: Vault) -> bool:
    return bool(vault.read("sys/mounts/team-a").data["type"] == "database")


def unsigned_token(account: str, *audiences: str) -> str:
    """A token in the shape of a ServiceAccount's; the stub says whether it is good."""
    who = {"namespace": "demo", "serviceaccount": {"name": account, "uid": "u1"}}
    parts = (
        {"alg": "RS256"},
        {
            "iat": 1,
            "nbf": 1,
            "exp": 4_000_000_000,
            "aud": list(audiences),
            "sub": f"system:serviceaccount:demo:{account}",
            "kubernetes.io": who,
        },
    )
    return (
        ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + ".c2ln"
    )


def user(
    servers: Servers,
    *,
    password: str = "p w%",  # noqa: S107 - a test's user
    **settings: Any,
) -> UserpassAuth:
    servers.must("POST", "auth/userpass/users/team", password=password, token_policies=POLICIES, **settings)
    return UserpassAuth(mount="userpass", username="team", password=password)


def app_role(servers: Servers, **settings: Any) -> AppRoleAuth:
    servers.must("POST", "auth/approle/role/team", token_policies=POLICIES, **settings)
    role_id = servers.must("GET", "auth/approle/role/team/role-id")["data"]["role_id"]
    secret_id = servers.must("POST", "auth/approle/role/team/secret-id", metadata="{}")["data"]["secret_id"]
    return AppRoleAuth(mount="approle", role_id=role_id, secret_id=secret_id)


def user_sessions(servers: Servers) -> list[str]:
    found = []
    for accessor in servers.must("LIST", "auth/token/accessors")["data"]["keys"]:
        status, body = servers.vault("POST", "auth/token/lookup-accessor", accessor=accessor)
        if status == 200 and body["data"]["path"] == "auth/userpass/login/team":
            found.append(accessor)
    return found


def revoke_sessions(servers: Servers) -> None:
    for accessor in user_sessions(servers):
        servers.must("POST", "auth/token/revoke-accessor", accessor=accessor)
