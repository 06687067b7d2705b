"""Tokens of attempts: made through Vault's token role, each for one credential, kept in memory only."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from services.access.domain import names
from services.access.domain.durations import token_serves
from services.access.domain.models import Attempt
from services.access.vault.clients import TOKEN_ROLE
from services.common.errors import LeasegateError, VaultFailedError, VaultRefusedError
from services.common.logs import logger
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

_LOG = logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """An orphan token that reads one credential.

    Attributes:
        client_token: The token.
        accessor: Names the token in the ledger.
        made_at: When it was made, seconds since 1970.
        ends_at: When Vault ends it and every lease that it made.
    """

    client_token: str = field(repr=False)
    accessor: str
    made_at: float
    ends_at: float


class PreparedTokens:
    """Tokens that were made while their access requests were pending, by attempt; the next process makes others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, Token] = {}

    def keep_token(self, attempt_id: str, token: Token) -> None:
        """Remember a token whose accessor is committed."""
        with self._lock:
            self._made[attempt_id] = token

    def find_token(self, attempt: Attempt, *, life_s: float, now: float) -> Token | None:
        """The token of an attempt, if its accessor is the committed one and it outlives the credential."""
        with self._lock:
            token = self._made.get(attempt.id)
        if token is None or token.accessor != attempt.accessor:
            return None
        return token if token_serves(made_at=token.made_at, ends_at=token.ends_at, life_s=life_s, now=now) else None

    def drop_token(self, attempt_id: str) -> None:
        """Forget a token."""
        with self._lock:
            self._made.pop(attempt_id, None)


def make(vault: Vault, attempt: Attempt, *, ttl_s: float, now: float, timeout_s: float | None = None) -> Token:
    """Make an orphan token whose display name becomes the name of the attempt's database user.

    Raises:
        LeasegateError: Vault refused or failed; at worst an unused token is left, which expires.
    """
    body = {
        "ttl": f"{max(1, int(ttl_s))}s",
        "display_name": names.display_name_of(attempt),
        "meta": {"access_request": attempt.access_request_id, "attempt": attempt.id},
    }
    path = f"auth/token/create/{TOKEN_ROLE}"
    try:
        auth = vault.write(path, body, timeout_s=timeout_s).auth
    except (VaultNotFoundError, VaultRefusedError) as err:
        if isinstance(err, VaultRefusedError) and not error_texts.is_unknown_token_role(err.vault_text, TOKEN_ROLE):
            raise
        raise VaultFailedError(f"Vault has no token role {TOKEN_ROLE!r}: set it up (deploy/vault)", path=path) from err
    if auth is None:
        raise VaultFailedError("Vault made no token", path=path)
    return Token(
        client_token=auth.client_token, accessor=auth.accessor, made_at=now, ends_at=now + auth.lease_duration_s
    )


def revoke(vault: Vault, accessor: str) -> None:
    """Revoke a token by its accessor; an unknown token counts as revoked, as does one whose revocation was interrupted.

    A Vault that is sealed during the revocation keeps the accessor of a token that it has marked: nobody can use that
    token again, and revoking it is refused with 400 until Vault completes it, at its TTL or the next start
    (``handleUpdateRevokeAccessor`` and ``revokeInternal`` in vault/token_store.go; seen on OpenBao by
    ``tests/contract/test_attempt_vault.py``; Vault 1.14.8 lets revocations finish before it seals).

    Raises:
        LeasegateError: Vault refused or failed.
    """
    try:
        vault.write("auth/token/revoke-accessor", {"accessor": accessor})
    except VaultNotFoundError:
        return
    except VaultRefusedError as err:
        if not error_texts.is_token_unknown(err.vault_text):
            raise


def discard(vault: Vault, accessor: str) -> None:
    """Revoke an unused token, if Vault answers; else it expires."""
    try:
        revoke(vault, accessor)
    except LeasegateError as err:
        _LOG.info("unused token not revoked: it expires", reason=err.reason)
