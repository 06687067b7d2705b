"""All logins of a process: the teams', one for each target, and the service's own, one for each Vault that the operator configured.

They live in memory alone; one thread renews them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import astuple, replace
from weakref import WeakValueDictionary

from services.common.errors import LeasegateError, VaultAuthMissingError, VaultAuthRefusedError
from services.common.logs import logger
from services.common.vault import health
from services.common.vault.address import Address
from services.common.vault.client import Client, Vault
from services.common.vault.first_permitted import FirstPermitted
from services.common.vault.scope import Scope
from services.common.vault.service_auth import ServiceAuth, ServiceAuths
from services.common.vault.session import Credentials, Session
from services.common.vault.target import AuthMethod, CertificateAuth, TokenAuth, VaultTarget
from services.common.vault.transport import AuthCertificateError, Endpoint, Transport

_LOG = logger(__name__)
_KEEP_ALIVE_EVERY_S = 1.0
# Far more AppBindings than one process serves: a bound on what names made up by a tenant can take.
_MOST_TEAMS = 10_000


class Sessions:
    """Logs in, keeps logins alive and hands them out as ``Vault``; safe for many threads. Close it at the end."""

    def __init__(
        self,
        scope: Scope,
        *,
        own: ServiceAuths | None = None,
        narrow_to: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is sent yet.

        Args:
            scope: What the process may touch.
            own: The service's own logins.
            narrow_to: Policy to which teams' logins are narrowed; None leaves them as they are.
            clock: Monotonic seconds.
        """
        self._scope = scope
        self._own_logins = own or ServiceAuths()
        self._narrow_to = narrow_to
        self._clock = clock
        self._lock = threading.Lock()
        self._teams: OrderedDict[tuple[str, str, str, str], tuple[VaultTarget, Session]] = OrderedDict()
        self._own: dict[tuple[Address, str], Session] = {}
        self._transports: WeakValueDictionary[tuple[Endpoint, str], Transport] = WeakValueDictionary()
        self._answered: Transport | None = None
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def team(self, target: VaultTarget) -> Vault:
        """The team's login at a target: the one given if there is one, else the one in memory.

        Raises:
            VaultAuthMissingError: There is neither.
            VaultAuthRefusedError: Vault refused the login.
            LeasegateError: Vault cannot be reached or has failed.
        """
        if target.login is None:
            if (session := self._in_memory(target)) is None:
                raise VaultAuthMissingError(f"there is no login for {target.display} yet", target=target.display)
            return self._client(session, target)
        credentials = self._team_credentials(target, target.login)
        session = self._team_session(target, credentials)
        try:
            session.use(credentials)
        except LeasegateError:
            if not session.logged_in:
                self._drop(target, session)
            raise
        return self._client(session, target)

    def own(self, address: str, vault_namespace: str = "") -> Vault | None:
        """The service's own login at an address; None where the operator configured none. It is made at its first call."""
        entry = self._own_logins.find(address, vault_namespace)
        return (
            None if entry is None else Client(self._own_session(entry), scope=self._scope, address=str(entry.address))
        )

    def ending(self, target: VaultTarget) -> Vault:
        """A login to end things with: the one in memory, else the one given, else the service's own; each call takes
        the first that may.

        Raises:
            VaultAuthMissingError: There is none of them.
        """
        candidates: list[Callable[[], Vault]] = []
        if session := self._in_memory(target):
            candidates.append(lambda: self._client(session, target))
        if target.login is not None:
            candidates.append(lambda: self.team(target))
        if (own := self.own(target.address, target.vault_namespace)) is not None:
            candidates.append(lambda: own)
        if not candidates:
            raise VaultAuthMissingError(
                f"there is no login for {target.display}, neither the team's nor the service's own",
                target=target.display,
            )
        return FirstPermitted(target.address, candidates)

    def logged_in(self, target: VaultTarget) -> bool:
        """Whether a team's login for the target is in memory and has not ended."""
        session = self._in_memory(target)
        return session is not None and session.logged_in

    def narrowed(self, target: VaultTarget) -> bool:
        """Whether the team's login in memory has no more than the service's one policy; True where there is no login."""
        session = self._in_memory(target)
        return session is None or session.narrowed

    def answers(self, target: VaultTarget) -> bool:
        """Whether the Vault of a target that comes with a login answers and is unsealed, asked as that target says."""
        try:
            return target.login is not None and health.reachable(self._transport_of(target, target.login))
        except VaultAuthRefusedError:
            return False

    def reachable(self, address: str, vault_namespace: str = "") -> bool:
        """Whether the Vault at an address that the operator configured, or where a team is logged in, answers and is
        unsealed.
        """
        wanted = Address.parse(address)
        return any(health.reachable(each) for each in self._known_transports() if each.endpoint.address == wanted)

    def serving(self) -> bool:
        """Whether any known Vault answers and is unsealed, first of all the one that did the last time; True while none
        is known.

        (The check has some seconds: a few teams' Vaults that are gone must not take them all.)
        """
        known = sorted(self._known_transports(), key=lambda each: each is not self._answered)
        self._answered = next((each for each in known if health.reachable(each)), None)
        return not known or self._answered is not None

    def close(self) -> None:
        """Stop renewing and revoke all logins but teams' own tokens."""
        self._stop.set()
        if self._keeper:
            self._keeper.join()
        for session in self._all():
            session.close()
        for transport in list(self._transports.values()):
            transport.close()

    def _client(self, session: Session, target: VaultTarget) -> Client:
        return Client(session, scope=self._scope, address=target.address)

    def _in_memory(self, target: VaultTarget) -> Session | None:
        with self._lock:
            found = self._teams.get(target.key)
            if found is None and not target.mount:  # who has no login to give does not know its mount either
                found = next((each for each in reversed(self._teams.values()) if each[0].place == target.place), None)
            return found[1] if found else None

    def _team_session(self, target: VaultTarget, credentials: Credentials) -> Session:
        evicted: Session | None = None
        with self._lock:
            found = self._teams.get(target.key)
            session = found[1] if found else Session(credentials, narrow_to=self._narrow_to, clock=self._clock)
            self._teams[target.key] = (_without_login(target), session)
            self._teams.move_to_end(target.key)
            if len(self._teams) > _MOST_TEAMS:
                evicted = self._teams.popitem(last=False)[1][1]
        self._start_keeper()
        if evicted:
            evicted.close()
        return session

    def _own_session(self, entry: ServiceAuth) -> Session:
        key = (entry.address, entry.vault_namespace)
        with self._lock:
            if key not in self._own:
                name = f"the service itself at {entry.address}"
                self._own[key] = Session(
                    Credentials(name=name, identity="own", connect=lambda: self._connect_own(entry)), clock=self._clock
                )
        self._start_keeper()
        return self._own[key]

    def _drop(self, target: VaultTarget, session: Session) -> None:
        with self._lock:
            if self._teams.get(target.key, (None, None))[1] is session:
                del self._teams[target.key]

    def _team_credentials(self, target: VaultTarget, login: AuthMethod) -> Credentials:
        return Credentials(
            name=target.display,
            identity=_identity(_endpoint(target, login), login),
            connect=lambda: (self._transport_of(target, login), login),
            revocable=not isinstance(login, TokenAuth),
        )

    def _connect_own(self, entry: ServiceAuth) -> tuple[Transport, AuthMethod]:
        login = entry.login()
        certificate, private_key = _certificate(login)
        endpoint = Endpoint(
            address=entry.address, ca_bundle=entry.ca_bundle(), certificate=certificate, private_key=private_key
        )
        return self._transport(endpoint, entry.vault_namespace, name=str(entry.address)), login

    def _transport_of(self, target: VaultTarget, login: AuthMethod) -> Transport:
        return self._transport(_endpoint(target, login), target.vault_namespace, name=target.display)

    def _transport(self, endpoint: Endpoint, vault_namespace: str, *, name: str) -> Transport:
        with self._lock:
            found = self._transports.get((endpoint, vault_namespace))
            if found is None:
                try:
                    found = Transport(endpoint, vault_namespace=vault_namespace)
                except AuthCertificateError as err:
                    raise VaultAuthRefusedError(f"the login of {name}: {err}", target=name) from err
                self._transports[endpoint, vault_namespace] = found
            return found

    def _known_transports(self) -> list[Transport]:
        for entry in self._own_logins:
            self._own_session(entry)
        found: list[Transport] = []
        for session in self._all():
            try:
                found.append(session.transport)
            except VaultAuthRefusedError as err:  # a file of the service's own login is missing
                _LOG.warning("own login cannot be read", error=str(err))
        return list(dict.fromkeys(found))

    def _all(self) -> list[Session]:
        with self._lock:
            return [*self._own.values(), *(session for _, session in self._teams.values())]

    def _start_keeper(self) -> None:
        with self._lock:
            if self._keeper is None and not self._stop.is_set():
                self._keeper = threading.Thread(target=self._keep_alive, name="vault-logins", daemon=True)
                self._keeper.start()

    def _keep_alive(self) -> None:
        while not self._stop.wait(_KEEP_ALIVE_EVERY_S):
            for session in self._all():
                if self._stop.is_set():
                    return
                session.keep_alive()


def _endpoint(target: VaultTarget, login: AuthMethod) -> Endpoint:
    certificate, private_key = _certificate(login)
    return Endpoint(
        address=Address.parse(target.address),
        ca_bundle=b"" if target.insecure_skip_tls_verify else target.ca_bundle,
        insecure=target.insecure_skip_tls_verify,
        server_name=target.server_name,
        certificate=certificate,
        private_key=private_key,
    )


def _certificate(login: AuthMethod) -> tuple[bytes, bytes]:
    return (login.certificate, login.private_key) if isinstance(login, CertificateAuth) else (b"", b"")


def _identity(endpoint: Endpoint, login: AuthMethod) -> str:
    """Differs whenever another login is needed; no secret can be read back from it."""
    parts = (endpoint.ca_bundle, endpoint.insecure, endpoint.server_name, type(login).__name__, astuple(login))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _without_login(target: VaultTarget) -> VaultTarget:
    return replace(target, login=None, auth_mount=target.mount)
