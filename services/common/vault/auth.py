"""Authenticates at Vault by each method that an AppBinding may name, and renews and revokes tokens.

Source of the requests: https://developer.hashicorp.com/vault/api-docs/auth. hvac knows those of each auth method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.common.errors import (
    TeamLoginHasPoliciesError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
    VaultRefusedError,
)
from services.common.logs import logger
from services.common.vault import error_texts
from services.common.vault.response import POLICY_HINT, Answer, Auth, VaultNotFoundError, policies_of
from services.common.vault.target import (
    AuthMethod,
    CertificateAuth,
    TokenAuth,
)
from services.common.vault.transport import Transport

_LOG = logger(__name__)
_HARMLESS = frozenset({"default"})
"""Vault's own policy, which permits a token to look at itself."""


def prove(transport: Transport, method: AuthMethod, *, name: str) -> None:
    """Prove that a team may use a Vault: Vault accepts its auth, which gives it no right there.

    Vault's answer is the whole proof. Nothing is kept of the token, and nothing is renewed or revoked with it:
    a token without policies may not.

    Args:
        transport: Where; for a CertificateAuth its endpoint has the client certificate.
        method: How to authenticate, with its secret.
        name: The target's name, for messages.

    Raises:
        VaultAuthRefusedError: Vault refused.
        TeamLoginHasPoliciesError: The token has a policy besides ``default``, or its policies cannot be read.
        LeasegateError: Vault cannot be reached or has failed.
    """
    answer = _looked_up(transport, method, name=name) if isinstance(method, TokenAuth) else None
    answer = answer or _answer(transport, method, name=name)
    policies = answer.auth.policies if answer.auth else policies_of(answer.data)
    if rights := sorted(set(policies) - _HARMLESS):
        raise TeamLoginHasPoliciesError(
            f"the session of {name} has rights in Vault by the policies {', '.join(rights)}, and whoever has its secret"
            " has them too: take them off the auth role, the token or the identity group that gives them"
            " (python -m deploy.vault setup writes the auth role), so that only Leasegate's services have rights",
            target=name,
            policies=" ".join(rights),
        )
    _LOG.info("team proven at vault", target=name, vault_request_id=answer.request_id)


def _looked_up(transport: Transport, method: TokenAuth, *, name: str) -> Answer:
    try:
        return transport.send("GET", "auth/token/lookup-self", token=method.token)
    except VaultPolicyMissingError as err:
        if not error_texts.is_denied_by_policy(err.vault_text):
            raise _refused(err, name) from err
        raise TeamLoginHasPoliciesError(
            f"the policies of the token of {name} cannot be read: make one that has the policy default and no other",
            target=name,
        ) from err
    except VaultRefusedError as err:
        raise _refused(err, name) from err


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
    answer = _answer(transport, method, name=name)
    assert answer.auth is not None  # noqa: S101 - for mypy
    return answer.auth


def _answer(transport: Transport, method: AuthMethod, *, name: str) -> Answer:
    try:
        answer = _send(transport, method)
    except (VaultRefusedError, VaultPolicyMissingError) as err:
        raise _refused(err, name) from err
    except VaultNotFoundError as err:
        raise VaultAuthRefusedError(
            f"Vault has no auth method at auth/{method.mount}, which {name} names", target=name
        ) from err
    if answer.auth is None or not answer.auth.client_token:
        raise VaultAuthRefusedError(f"Vault answered no token to {name}", target=name)
    return answer


def _refused(err: VaultRefusedError | VaultPolicyMissingError, name: str) -> VaultAuthRefusedError:
    said = err.message.removesuffix(POLICY_HINT)
    hint = "check the auth role that it names, whom Vault binds that role to, and the secret that it authenticates by"
    return VaultAuthRefusedError(f"Vault refused to authenticate {name}: {said} ({hint})", target=name)


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
        if not error_texts.is_denied_by_policy(err.vault_text):
            raise
    return Answer(
        auth=Auth(
            client_token=method.token,
            accessor=str(found.get("accessor", "")),
            lease_duration_s=int(found.get("ttl") or 0),
            renewable=bool(found.get("renewable")),
            policies=policies_of(found),
        )
    )


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
