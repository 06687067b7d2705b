"""One login at one Vault, held in memory and kept alive."""

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
# A login that is younger than this was not ended by its age: a 403 then speaks of policies, and a new login would be
# refused the same.
_YOUNG_S = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a session logs in.

    Attributes:
        name: Name of the target, for messages.
        identity: Equal for two that need not be told apart.
        connect: Where to and by what, asked at each login, so that files may change; raises VaultAuthRefusedError.
        revocable: Whether the token of the login may be revoked (a team's own may not).
    """

    name: str
    identity: str = field(repr=False)
    connect: Callable[[], tuple[Transport, AuthMethod]]
    revocable: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """What one login brought.

    Attributes:
        transport: Where it holds.
        login: The token of the login.
        narrow: Its child with one policy; None where there is none.
        made_at: Monotonic time of the login.
    """

    transport: Transport
    login: Auth
    narrow: Auth | None
    made_at: float = field(compare=False)

    @property
    def token(self) -> str:
        """The token to use."""
        return (self.narrow or self.login).client_token

    @property
    def ttl_s(self) -> int:
        """Seconds that it had when it was made or renewed; 0 for ever."""
        ttls = [each.lease_duration_s for each in (self.login, self.narrow) if each and each.lease_duration_s]
        return min(ttls, default=0)


class Session:
    """A login that is made when first needed, renewed by ``keep_alive``, and made anew where it has ended. Safe for
    many threads.
    """

    def __init__(
        self, credentials: Credentials, *, narrow_to: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Describe the login; nothing is sent.

        Args:
            credentials: How to log in.
            narrow_to: The one policy to keep; None keeps the login as it is.
            clock: Monotonic seconds.
        """
        self._credentials = credentials
        self._narrow_to = narrow_to
        self._clock = clock
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0

    @property
    def transport(self) -> Transport:
        """Where the session's Vault is; needs no login.

        Raises:
            VaultAuthRefusedError: A file of the service's own login cannot be read.
        """
        grant = self._grant
        return grant.transport if grant else self._credentials.connect()[0]

    @property
    def logged_in(self) -> bool:
        """Whether there is a token that has not ended, as far as is known here."""
        return self._grant is not None and not self._ended()

    @property
    def identity(self) -> str:
        """Identity of the credentials in use."""
        return self._credentials.identity

    @property
    def narrowed(self) -> bool:
        """Whether its token has the one policy only, or none was asked for. True before the first login."""
        grant = self._grant
        return self._narrow_to is None or grant is None or grant.narrow is not None

    def grant(self) -> Grant:
        """The token to use now; logs in if there is none that lives.

        Raises:
            VaultAuthRefusedError: Vault refused the login.
            LeasegateError: Vault cannot be reached or has failed.
        """
        grant = self._grant
        if grant and not self._ended():
            return grant
        with self._lock:
            if self._grant is None or self._ended():
                self._replace(self._credentials)
            assert self._grant is not None  # noqa: S101 - for mypy
            return self._grant

    def use(self, credentials: Credentials) -> None:
        """Log in by other credentials and use those from now on; if they are refused all stays as it was.

        Raises:
            VaultAuthRefusedError: Vault refused the login.
            LeasegateError: Vault cannot be reached or has failed.
        """
        with self._lock:
            if credentials.identity != self._credentials.identity or self._grant is None or self._ended():
                self._replace(credentials)

    def log_in_again(self, *, instead_of: Grant) -> bool:
        """After a 403: log in anew, unless another thread did so meanwhile.

        Returns:
            Whether there is another token to try; False says that the 403 was about policies.

        Raises:
            VaultAuthRefusedError: The token has ended, and Vault refuses a new login.
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
                if self._lives(instead_of):
                    return False
                self._grant = None
                raise
            return True

    def keep_alive(self) -> None:
        """Renew the token if half of its life has passed; where it cannot be prolonged any more, log in anew. Failures
        are tried again.
        """
        if self._clock() < self._renew_at:
            return
        with self._lock:
            if (grant := self._grant) is not None:
                try:
                    with deadline.within(_KEEP_ALIVE_TIMEOUT_S):
                        self._prolong(grant)
                except (LeasegateError, VaultNotFoundError) as err:
                    self._renew_at = self._clock() + max(grant.ttl_s / 10, 1.0)
                    _LOG.debug("login not renewed", target=self._credentials.name, error=str(err))

    def close(self) -> None:
        """Revoke what may be revoked, as far as Vault answers in time."""
        with self._lock:
            grant, self._grant = self._grant, None
            if grant:
                self._revoke(grant)

    def _ended(self) -> bool:
        return bool(self._ends_at) and self._clock() >= self._ends_at

    def _replace(self, credentials: Credentials) -> None:
        """With the lock held: log in, and revoke what was used until now (who still uses it gets a 403 and takes the
        new one).
        """
        transport, how = credentials.connect()
        login = auth.log_in(transport, how, name=credentials.name)
        narrow = auth.narrow(transport, login, policy=self._narrow_to) if self._narrow_to else None
        old, old_credentials = self._grant, self._credentials
        self._credentials = credentials
        self._keep(Grant(transport=transport, login=login, narrow=narrow, made_at=self._clock()))
        if old:
            self._revoke(old, revocable=old_credentials.revocable)

    def _keep(self, grant: Grant) -> None:
        now, ttl_s = self._clock(), grant.ttl_s
        self._renew_at = now + ttl_s / 2 if ttl_s else float("inf")
        self._ends_at = now + ttl_s if ttl_s else 0.0
        self._grant = grant

    def _prolong(self, grant: Grant) -> None:
        renewed = self._renewed(grant) if grant.login.renewable else None
        if renewed is None or renewed.ttl_s * 2 < grant.ttl_s:  # the end of its longest life is near
            self._replace(self._credentials)
        else:
            self._keep(renewed)

    def _renewed(self, grant: Grant) -> Grant:
        login = auth.renew(grant.transport, grant.login)
        narrow = grant.narrow
        if narrow:
            narrow = login if narrow is grant.login else auth.renew(grant.transport, narrow)
        return Grant(transport=grant.transport, login=login, narrow=narrow, made_at=grant.made_at)

    def _lives(self, grant: Grant) -> bool:
        try:
            auth.renew(grant.transport, grant.narrow or grant.login)
        except (LeasegateError, VaultNotFoundError):
            return False
        return True

    def _revoke(self, grant: Grant, *, revocable: bool | None = None) -> None:
        if revocable is None:
            revocable = self._credentials.revocable
        granted = grant.login if revocable else grant.narrow
        if granted is None or (not revocable and granted is grant.login):
            return
        try:
            auth.revoke(grant.transport, granted, timeout_s=_REVOKE_TIMEOUT_S)
        except (LeasegateError, VaultNotFoundError) as err:
            _LOG.debug("login not revoked", address=grant.transport.base_uri, error=str(err))
