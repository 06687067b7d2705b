"""Logging in to Vault, by each of the methods that an AppBinding may name, and narrowing what came of it.

Source of the requests: https://developer.hashicorp.com/vault/api-docs/auth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.common.errors import VaultAuthRefusedError, VaultPolicyMissingError, VaultRefusedError
from services.common.vault import error_texts
from services.common.vault.response import POLICY_HINT, Answer, Auth, VaultNotFoundError
from services.common.vault.target import (
    AppRoleAuth,
    AuthMethod,
    KubernetesAuth,
    TokenAuth,
    UserpassAuth,
)
from services.common.vault.transport import Transport


def log_in(transport: Transport, login: AuthMethod, *, name: str) -> Auth:
    """Log in.

    Args:
        transport: Where; for a CertificateAuth its endpoint has the client certificate.
        login: How.
        name: The target's name, for messages.

    Raises:
        VaultAuthRefusedError: Vault refused; the text says what Vault said, without the secret.
        LeasegateError: Vault cannot be reached or has failed.
    """
    try:
        answer = _send(transport, login)
    except (VaultRefusedError, VaultPolicyMissingError) as err:
        raise VaultAuthRefusedError(
            f"Vault refused the login of {name}: {err.message.removesuffix(POLICY_HINT)}", target=name
        ) from err
    except VaultNotFoundError as err:
        raise VaultAuthRefusedError(
            f"Vault has no auth method at auth/{login.mount}, which {name} names", target=name
        ) from err
    if answer.auth is None or not answer.auth.client_token:
        raise VaultAuthRefusedError(f"the login of {name} brought no token", target=name)
    return answer.auth


def _send(transport: Transport, login: AuthMethod) -> Answer:
    if isinstance(login, TokenAuth):
        return _found(transport, login)
    path = f"auth/{login.mount}/login"
    if isinstance(login, KubernetesAuth):
        return transport.send("POST", path, body={"role": login.role, "jwt": login.jwt})
    if isinstance(login, UserpassAuth):
        return transport.send("POST", f"{path}/{login.username}", body={"password": login.password})
    if isinstance(login, AppRoleAuth):
        return transport.send("POST", path, body={"role_id": login.role_id, "secret_id": login.secret_id})
    return transport.send("POST", path, body={"name": login.name} if login.name else {})


def _found(transport: Transport, login: TokenAuth) -> Answer:
    """A given token as if a login had brought it: how long it lives is asked by whichever call its policies permit,
    else unknown.
    """
    try:
        return transport.send("POST", "auth/token/renew-self", body={}, token=login.token)
    except (VaultRefusedError, VaultPolicyMissingError):  # not renewable, or not permitted
        pass
    found: Mapping[str, Any] = {}
    try:
        found = transport.send("GET", "auth/token/lookup-self", token=login.token).data
    except VaultPolicyMissingError as err:
        if not error_texts.is_denied_by_policy(err.message):
            raise
    return Answer(
        auth=Auth(
            client_token=login.token,
            accessor=str(found.get("accessor", "")),
            lease_duration_s=int(found.get("ttl") or 0),
            renewable=bool(found.get("renewable")),
            policies=tuple(found.get("policies") or ()),
        )
    )


def narrow(transport: Transport, auth: Auth, *, policy: str) -> Auth | None:
    """Make a child of a login that has one policy only; None where Vault refuses that.

    The child ends with its parent at the latest.
    """
    if auth.policies == (policy,):
        return auth
    try:
        answer = transport.send(
            "POST", "auth/token/create", body={"policies": [policy], "no_default_policy": True}, token=auth.client_token
        )
    except (VaultRefusedError, VaultPolicyMissingError, VaultNotFoundError):
        return None
    return answer.auth


def renew(transport: Transport, auth: Auth) -> Auth:
    """Prolong a token.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    return transport.send("POST", "auth/token/renew-self", body={}, token=auth.client_token).auth or auth


def revoke(transport: Transport, auth: Auth, *, timeout_s: float) -> None:
    """End a token and its children.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    transport.send("POST", "auth/token/revoke-self", body={}, token=auth.client_token, timeout_s=timeout_s)
