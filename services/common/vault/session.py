"""One session at one Vault server: a token in memory that is renewed and replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.common.errors import LeasegateError, VaultAuthRefusedError
from services.common.logs import logger
from services.common.rpc import deadline
from services.common.vault import auth
from services.common.vault.response import Auth, VaultNotFoundError
from services.common.vault.target import AuthMethod
from services.common.vault.transport import Transport

_LOG = logger(__name__)
_REVOKE_TIMEOUT_S = 2.0
_KEEP_ALIVE_TIMEOUT_S = 10.0
# A token younger than this has not expired: a 403 is about its policies, and a new token would get the same one.
_YOUNG_S = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a session authenticates.

    Attributes:
        name: Name of the target, for messages.
        identity: Differs whenever another token is needed.
        connect: Answers transport and auth method, at each authentication, so that files may change. Raises
            VaultAuthRefusedError.
        revocable: Whether the token may be revoked (one that a team gave may not).
        on_authenticated: Called after each authentication, by a thread that holds the session.
    """

    name: str
    identity: str = field(repr=False)
    connect: Callable[[], tuple[Transport, AuthMethod]]
    revocable: bool = True
    on_authenticated: Callable[[], None] = field(default=lambda: None, repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one authentication brought.

    Attributes:
        transport: Where it is valid.
        auth: The token that Vault answered.
        made_at: Monotonic time of the authentication.
    """

    transport: Transport
    auth: Auth
    made_at: float = field(compare=False)

    @property
    def token(self) -> str:
        """The token to use."""
        return self.auth.client_token

    @property
    def ttl_s(self) -> int:
        """TTL in seconds when it was made or renewed; 0 for no expiry."""
        return self.auth.lease_duration_s


class Session:
    """A token that is made when first needed, renewed by ``keep_alive``, and replaced when it expires.

    Safe for many threads.
    """

    def __init__(self, credentials: Credentials, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the credentials; sends nothing.

        Args:
            credentials: How to authenticate.
            clock: Monotonic seconds.
        """
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._renew_at = 0.0
        self._expires_at = 0.0

    @property
    def transport(self) -> Transport:
        """Where the session's Vault server is; needs no token.

        Raises:
            VaultAuthRefusedError: A file of the service's own auth cannot be read.
        """
        grant = self._grant
        return grant.transport if grant else self._credentials.connect()[0]

    @property
    def is_alive(self) -> bool:
        """Whether there is a token that has not expired, as far as is known here."""
        return self._grant is not None and not self._expired()

    @property
    def identity(self) -> str:
        """Identity of the credentials in use."""
        return self._credentials.identity

    def grant(self) -> Grant:
        """Return the token to use now, after authenticating if there is none.

        Raises:
            VaultAuthRefusedError: Vault refused to authenticate.
            LeasegateError: Vault cannot be reached or has failed.
        """
        grant = self._grant
        if grant and not self._expired():
            return grant
        with self._lock:
            if self._grant is None or self._expired():
                self._replace(self._credentials)
            assert self._grant is not None  # noqa: S101 - for mypy
            return self._grant

    def use_credentials(self, credentials: Credentials) -> None:
        """Authenticate with other credentials and use them from now on; if Vault refuses them, nothing changes.

        Raises:
            VaultAuthRefusedError: Vault refused to authenticate.
            LeasegateError: Vault cannot be reached or has failed.
        """
        with self._lock:
            if credentials.identity != self._credentials.identity or self._grant is None or self._expired():
                self._replace(credentials)

    def replace_grant(self, *, instead_of: Grant) -> bool:
        """Authenticate again after a 403, unless another thread did so meanwhile.

        Returns:
            Whether there is another token to try; False means that the 403 is about policies.

        Raises:
            VaultAuthRefusedError: The token has expired, and Vault refuses to authenticate.
            LeasegateError: Vault cannot be reached or has failed.
        """
        with self._lock:
            if self._grant is not instead_of:
                return True
            if self._clock() - instead_of.made_at < _YOUNG_S:
                return False
            try:
                self._replace(self._credentials)
            except VaultAuthRefusedError:
                if _is_valid(instead_of):
                    return False
                self._grant = None
                raise
            return True

    def keep_alive(self) -> None:
        """Renew the token if half of its TTL has passed; authenticate again where it cannot be renewed any more.

        A failure is repeated after a tenth of the TTL.
        """
        if self._clock() < self._renew_at:
            return
        with self._lock:
            if (grant := self._grant) is not None:
                try:
                    with deadline.within(_KEEP_ALIVE_TIMEOUT_S):
                        self._renew_or_replace(grant)
                except (LeasegateError, VaultNotFoundError) as err:
                    self._renew_at = self._clock() + max(grant.ttl_s / 10, 1.0)
                    _LOG.debug("session not renewed", target=self._credentials.name, error=str(err))

    def close(self) -> None:
        """Revoke the token if it may be revoked and Vault answers in time."""
        with self._lock:
            grant, self._grant = self._grant, None
            if grant and self._credentials.revocable:
                _revoke(grant)

    def _expired(self) -> bool:
        return bool(self._expires_at) and self._clock() >= self._expires_at

    def _replace(self, credentials: Credentials) -> None:
        """Authenticate and revoke the previous token, with the lock taken.

        A thread that still uses the previous token gets a 403 and takes the new one.
        """
        transport, method = credentials.connect()
        token = auth.authenticate(transport, method, name=credentials.name)
        old, old_credentials = self._grant, self._credentials
        self._credentials = credentials
        self._set_grant(Grant(transport=transport, auth=token, made_at=self._clock()))
        credentials.on_authenticated()
        if old and old_credentials.revocable:
            _revoke(old)

    def _set_grant(self, grant: Grant) -> None:
        now, ttl_s = self._clock(), grant.ttl_s
        self._renew_at = now + ttl_s / 2 if ttl_s else float("inf")
        self._expires_at = now + ttl_s if ttl_s else 0.0
        self._grant = grant

    def _renew_or_replace(self, grant: Grant) -> None:
        renewed = _renewed(grant) if grant.auth.renewable else None
        if renewed is None or renewed.ttl_s * 2 < grant.ttl_s:  # its maximum TTL is near
            self._replace(self._credentials)
        else:
            self._set_grant(renewed)


def _renewed(grant: Grant) -> Grant:
    return Grant(transport=grant.transport, auth=auth.renew(grant.transport, grant.auth), made_at=grant.made_at)


def _is_valid(grant: Grant) -> bool:
    try:
        auth.renew(grant.transport, grant.auth)
    except (LeasegateError, VaultNotFoundError):
        return False
    return True


def _revoke(grant: Grant) -> None:
    try:
        auth.revoke(grant.transport, grant.auth, timeout_s=_REVOKE_TIMEOUT_S)
    except (LeasegateError, VaultNotFoundError) as err:
        _LOG.debug("session not revoked", address=grant.transport.base_uri, error=str(err))
