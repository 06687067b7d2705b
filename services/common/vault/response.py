"""Decodes the answers of Vault; the one place where its HTTP statuses become Leasegate's errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from services.common.errors import (
    LeasegateError,
    VaultFailedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultSealedError,
    VaultThrottledError,
    VaultUnavailableError,
)
from services.common.logs import bounded
from services.common.vault import error_texts

ERROR_CHARS = 400
_PATH_CHARS = 200
_WORD_CHARS = 64
_SHORT_RETRY_S = 0.5
_SECRET_KEYS = frozenset({"password", "jwt", "token", "secret_id", "private_key"})
_HIDDEN = "[hidden]"
POLICY_HINT = "; a Vault policy has to permit it"


@dataclass(frozen=True, slots=True)
class Auth:
    """A token that Vault issued.

    Attributes:
        client_token: The token.
        accessor: Names the token for its revocation; grants nothing itself.
        lease_duration_s: Its TTL; 0 for one that never expires.
        renewable: Whether renew-self extends it.
        policies: Names of all its policies, those that identity groups add included.
    """

    client_token: str = field(repr=False)
    accessor: str
    lease_duration_s: int
    renewable: bool
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one call; empty where Vault answers 204.

    Attributes:
        data: The payload; may hold a password.
        lease_id: Whole id of the lease that came with it, or empty.
        lease_duration_s: First TTL of that lease.
        renewable: Whether that lease can be renewed.
        auth: The token that came with it.
        warnings: Vault's remarks.
        request_id: Vault's id of the request, by which its audit log is searched; empty where Vault answers 204.
        cluster_id: Of sys/health, Vault's id of itself; a text of any server, bounded and without control characters.
        version: Of sys/health, Vault's version; likewise.
    """

    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    lease_id: str = field(default="", repr=False)
    lease_duration_s: int = 0
    renewable: bool = False
    auth: Auth | None = None
    warnings: tuple[str, ...] = ()
    request_id: str = ""
    cluster_id: str = ""
    version: str = ""


class VaultNotFoundError(Exception):
    """Vault answered 404. It is no LeasegateError, as each caller decides what an absent thing means.

    Attributes:
        path: What was asked for.
        no_mount: Whether nothing at all is mounted there.
    """

    def __init__(self, path: str, *, no_mount: bool) -> None:
        self.path = shown(path)
        super().__init__(f"nothing at {self.path}")
        self.no_mount = no_mount


def decode(
    status: int, raw: bytes, *, path: str, address: str, sent: Mapping[str, Any] | None = None, retry_after: str = ""
) -> Answer:
    """Turn a response into an Answer, or raise the error of its status.

    Args:
        status: HTTP status.
        raw: Body.
        path: What was asked for, below ``/v1/``.
        address: Vault's address, for messages.
        sent: Body of the request, whose secrets are kept out of messages.
        retry_after: The header of that name.

    Raises:
        VaultNotFoundError: 404.
        VaultRefusedError: 400 and other 4xx.
        VaultPolicyMissingError: 403.
        VaultUnavailableError: 412, 472, 473, 502, a redirect, or a body that is not JSON.
        VaultThrottledError: 429.
        VaultSealedError: 503.
        VaultFailedError: Other 5xx, or a body that is not Vault's.
    """
    if status == 204 or (status == 200 and not raw):
        return Answer()
    body = _parse(raw)
    if status == 200 and body is not None:
        try:
            return _answer(body)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise VaultFailedError(
                f"what answers at {address} for {shown(path)} does not do so as a Vault does", path=shown(path)
            ) from err
    text = error_text(body, secrets=_secrets_of(sent))
    if status == 404:
        raise VaultNotFoundError(path, no_mount=error_texts.is_no_route(text))
    said = error_texts.in_own_words(text) if error_texts.quotes_statements(path, text) else text
    error = _error(status, bounded(said, ERROR_CHARS), path=path, address=address, retry_after=retry_after)
    error.vault_text = text
    raise error


def error_text(body: Mapping[str, Any] | None, *, secrets: Iterable[str] = ()) -> str:
    """Return the ``errors`` of a body in one line, without the secrets that the request carried.

    A body that is not Vault's is never quoted.
    """
    found = (body or {}).get("errors")
    text = "; ".join(str(each).strip() for each in found) if isinstance(found, list) else ""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in (secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1]):
            text = text.replace(form, _HIDDEN)
    return " ".join(text.split())


def _parse(raw: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(raw)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _answer(body: Mapping[str, Any]) -> Answer:
    return Answer(
        data=dict(body.get("data") or {}),
        lease_id=body.get("lease_id") or "",
        lease_duration_s=int(body.get("lease_duration") or 0),
        renewable=bool(body.get("renewable")),
        auth=_auth(body.get("auth")),
        warnings=tuple(body.get("warnings") or ()),
        request_id=str(body.get("request_id") or ""),
        cluster_id=_word(body.get("cluster_id")),
        version=_word(body.get("version")),
    )


def _word(value: object) -> str:
    return bounded(value, _WORD_CHARS) if isinstance(value, str) else ""


def _auth(body: Mapping[str, Any] | None) -> Auth | None:
    if not body:
        return None
    return Auth(
        client_token=body["client_token"],
        accessor=body.get("accessor") or "",
        lease_duration_s=int(body.get("lease_duration") or 0),
        renewable=bool(body.get("renewable")),
        policies=policies_of(body),
    )


def policies_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of all policies of a token, as an authentication or a lookup of the token answers them.

    An authentication has all of them in ``policies``. A lookup has those of identity groups apart; both have those of
    other namespaces apart.
    """
    names = [*(body.get("policies") or ()), *(body.get("token_policies") or ()), *(body.get("identity_policies") or ())]
    for elsewhere in (body.get("external_namespace_policies") or {}).values():
        names += elsewhere
    return tuple(dict.fromkeys(str(name) for name in names))


def _secrets_of(sent: Mapping[str, Any] | None) -> list[str]:
    return [value for key, value in (sent or {}).items() if key in _SECRET_KEYS and isinstance(value, str) and value]


def _error(status: int, text: str, *, path: str, address: str, retry_after: str) -> LeasegateError:
    said = f"Vault answered {status} for {shown(path)}" + (f": {text}" if text else "")
    if status == 403:
        return VaultPolicyMissingError(said + POLICY_HINT, path=shown(path))
    if status == 503:
        return VaultSealedError(f"Vault at {address} is sealed", address=address)
    if status == 429:
        return VaultThrottledError(said, retry_after_s=_seconds(retry_after), address=address)
    if status == 412:  # a node that has not yet what another one wrote
        return VaultUnavailableError(said, retry_after_s=_SHORT_RETRY_S, address=address)
    if 300 <= status < 400:
        return VaultUnavailableError(
            f"Vault at {address} redirects elsewhere, and no token is sent along: name its active node", address=address
        )
    if status in (472, 473, 502) or status < 300:
        return VaultUnavailableError(said, address=address)
    if status >= 500:
        return VaultFailedError(said, path=shown(path))
    return VaultRefusedError(said, path=shown(path))


def shown(path: str) -> str:
    """Return the path as messages show it: bounded, and a lease id without its last part."""
    if path.startswith(("sys/leases/renew/", "sys/leases/revoke/", "sys/leases/revoke-force/")):
        path = path.rpartition("/")[0] + "/…"
    return bounded(path, _PATH_CHARS)


def _seconds(text: str) -> float | None:
    try:
        return min(max(float(text), 0.1), 300.0)
    except ValueError:
        return None
