"""Authenticates at Vault by each method that an AppBinding may name, and narrows, renews and revokes tokens.

Source of the requests: https://developer.hashicorp.com/vault/api-docs/auth. hvac knows those of each auth method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.common.errors import VaultAuthRefusedError, VaultPolicyMissingError, VaultRefusedError
from services.common.vault import error_texts
from services.common.vault.response import POLICY_HINT, Answer, Auth, VaultNotFoundError
from services.common.vault.target import (
    AuthMethod,
    CertificateAuth,
    TokenAuth,
)
from services.common.vault.transport import Transport


def authenticate(transport: Transport, method: AuthMethod, *, name: str) -> Auth:
    """Get a token by an auth method.

    Args:
        transport: Where; for a CertificateAuth its endpoint has the client certificate.
        method: How to authenticate, with its secret.
        name: The target's name, for messages.

    Raises:
        VaultAuthRefusedError: Vault refused; the text says what Vault said, without the secret.
        LeasegateError: Vault cannot be reached or has failed.
    """
    try:
        answer = _send(transport, method)
    except (VaultRefusedError, VaultPolicyMissingError) as err:
        raise VaultAuthRefusedError(
            f"Vault refused to authenticate {name}: {err.message.removesuffix(POLICY_HINT)}", target=name
        ) from err
    except VaultNotFoundError as err:
        raise VaultAuthRefusedError(
            f"Vault has no auth method at auth/{method.mount}, which {name} names", target=name
        ) from err
    if answer.auth is None or not answer.auth.client_token:
        raise VaultAuthRefusedError(f"Vault answered no token to {name}", target=name)
    return answer.auth


def _send(transport: Transport, method: AuthMethod) -> Answer:
    if isinstance(method, TokenAuth):
        return _given(transport, method)
    if isinstance(method, CertificateAuth):  # hvac reads certificates from files
        body = {"name": method.auth_role} if method.auth_role else {}
        return transport.send("POST", f"auth/{method.mount}/login", body=body)
    from services.common.vault import hvac_auth  # at the first authentication: it takes 6 MiB

    return hvac_auth.authenticate(transport, method)


def _given(transport: Transport, method: TokenAuth) -> Answer:
    """Return a given token as if an auth method had answered it.

    Its TTL comes from whichever call its policies permit, else it is unknown (0).
    """
    try:
        return transport.send("POST", "auth/token/renew-self", body={}, token=method.token)
    except (VaultRefusedError, VaultPolicyMissingError):  # not renewable, or not permitted
        pass
    found: Mapping[str, Any] = {}
    try:
        found = transport.send("GET", "auth/token/lookup-self", token=method.token).data
    except VaultPolicyMissingError as err:
        if not error_texts.is_denied_by_policy(err.message):
            raise
    return Answer(
        auth=Auth(
            client_token=method.token,
            accessor=str(found.get("accessor", "")),
            lease_duration_s=int(found.get("ttl") or 0),
            renewable=bool(found.get("renewable")),
            policies=tuple(found.get("policies") or ()),
        )
    )


def narrow(transport: Transport, auth: Auth, *, policy: str) -> Auth | None:
    """Make a child token that has one policy only; None where Vault refuses that.

    The child expires with its parent at the latest.
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
    """Renew a token.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    return transport.send("POST", "auth/token/renew-self", body={}, token=auth.client_token).auth or auth


def revoke(transport: Transport, auth: Auth, *, timeout_s: float) -> None:
    """Revoke a token and its children.

    Raises:
        LeasegateError: Vault refused or cannot be reached.
    """
    transport.send("POST", "auth/token/revoke-self", body={}, token=auth.client_token, timeout_s=timeout_s)
