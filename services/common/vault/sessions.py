"""All sessions of a process: one for each Vault server of the service's own auth, with which it acts.

What an AppBinding authenticates by only proves that its namespace may use the Vault. Where the process runs for any
Vault (``--allow-any-vault``) there is no own auth, and a session of each team's target acts. Sessions exist in memory
only; one thread renews them.
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
from services.common.vault import auth, health
from services.common.vault.client import Client, Vault
from services.common.vault.scope import Scope
from services.common.vault.service_auth import ServiceAuth
from services.common.vault.session import Credentials, Session
from services.common.vault.target import AuthMethod, CertificateAuth, TokenAuth, VaultTarget
from services.common.vault.transport import AuthCertificateError, Endpoint, Transport
from services.common.vault.vaults import Vaults
from services.common.vault_config.address import Address

_LOG = logger(__name__)
_KEEP_ALIVE_EVERY_S = 1.0
_NOT_CONFIGURED_RETRY_S = 30.0
# Far more AppBindings than one process serves: bounds the memory that a tenant with many names can take.
_MAX_TEAM_SESSIONS = 10_000


class Sessions:
    """Makes sessions, renews them and answers them as ``Vault``. Safe for many threads. The owner closes it."""

    def __init__(
        self,
        scope: Scope,
        *,
        vaults: Vaults,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the configuration; sends nothing.

        Args:
            scope: What the process may touch.
            vaults: The Vaults that may be called, and the service's own auth at each.
            clock: Monotonic seconds.
        """
        self._scope = scope
        self._vaults = vaults
        self._clock = clock
        self._lock = threading.Lock()
        self._teams: OrderedDict[tuple[str, str, str, str], tuple[VaultTarget, Session]] = OrderedDict()
        self._service_sessions: dict[str, Session] = {}
        self._transports: WeakValueDictionary[tuple[Endpoint, str], Transport] = WeakValueDictionary()
        self._answered: Transport | None = None
        self._servers = health.KnownServers(clock)
        self._authenticated: set[str] = set()  # entries whose Vault may be another one than before
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None

    def proven_vault(self, target: VaultTarget) -> Vault:
        """Return a target with the service's own session, once the target's auth has proven that its team may use it.

        Raises:
            VaultAuthMissingError: No own session is configured there, or the target has no auth.
            SpecInvalidError: The operator does not allow teams the auth method or its mount.
            VaultAuthRefusedError: Vault refused the target's auth.
            TeamLoginHasPoliciesError: The target's auth has rights in Vault.
            LeasegateError: Vault cannot be reached or has failed.
        """
        if self._vaults.any_vault:
            return self.team_vault(target)
        entry = self._service_auth(target)
        if target.auth is None:
            raise VaultAuthMissingError(
                f"nothing proves that {target.display} may use this Vault: the call has no auth", target=target.display
            )
        self._vaults.check_team_auth(target)
        endpoint = _own_endpoint(entry, *_certificate(target.auth))
        transport = self._transport(endpoint, entry.vault_namespace, name=target.display)
        auth.prove(transport, target.auth, name=target.display)
        return self._client(self._service_session(entry), target)

    def acting_vault(self, target: VaultTarget) -> Vault:
        """Return a target with the service's own session, without a proof of its team.

        Raises:
            VaultAuthMissingError: No own session is configured there.
            LeasegateError: With ``--allow-any-vault``, as ``team_vault``.
        """
        if not self._vaults.any_vault:
            return self._client(self._service_session(self._service_auth(target)), target)
        try:
            return self.team_vault(target)
        except VaultAuthRefusedError:
            if (session := self._in_memory(target)) is None:
                raise
            return self._client(session, target)

    def team_vault(self, target: VaultTarget) -> Vault:
        """Return a target with the team's session: by the given auth if there is one, else the one in memory.

        Raises:
            VaultAuthMissingError: There is neither.
            VaultAuthRefusedError: Vault refused to authenticate.
            LeasegateError: Vault cannot be reached or has failed.
        """
        if target.auth is None:
            if (session := self._in_memory(target)) is None:
                raise VaultAuthMissingError(f"there is no session for {target.display} yet", target=target.display)
            return self._client(session, target)
        credentials = self._team_credentials(target, target.auth)
        session = self._team_session(target, credentials)
        try:
            session.use_credentials(credentials)
        except LeasegateError:
            if not session.is_alive:
                self._forget_team(target, session)
            raise
        return self._client(session, target)

    def service_vault(self, vault: str) -> Vault | None:
        """Return a Vault, by a name of its entry, with the service's own session; None where none is configured.

        The session is made at the first call.
        """
        entry = self._vaults.find_auth(vault)
        return (
            None
            if entry is None
            else Client(self._service_session(entry), scope=self._scope, address=str(entry.address))
        )

    def answers(self, target: VaultTarget) -> bool:
        """Whether the server of a target that has an auth answers and is unsealed, reached as the target describes."""
        try:
            return target.auth is not None and health.reachable(self._transport_of(target, target.auth))
        except VaultAuthRefusedError:
            return False

    def reachable(self, address: str) -> bool:
        """Whether the Vault server at an address answers and is unsealed.

        Only servers of the service's own auth and of teams' sessions are asked.
        """
        wanted = Address.parse(address)
        return any(health.reachable(each) for each in self._known_transports() if each.endpoint.address == wanted)

    def serving(self) -> bool:
        """Whether any known Vault server answers and is unsealed; True while none is known.

        The one that answered last is asked first, as a health check has a few seconds and some teams' servers may not
        answer.
        """
        known = sorted(self._known_transports(), key=lambda each: each is not self._answered)
        self._answered = next((each for each in known if health.reachable(each)), None)
        return not known or self._answered is not None

    def find_server(self, target: VaultTarget) -> health.VaultServer | None:
        """What the Vault of a target says of itself, for people to see; None where that is not known."""
        if entry := self._vaults.find_auth(target.vault):
            return self._find_server(entry.entry.name, self._service_session(entry))
        session = self._in_memory(target)
        return self._find_server(f"{target.address} {target.vault_namespace}", session) if session else None

    def _find_server(self, vault: str, session: Session) -> health.VaultServer | None:
        try:
            return self._servers.find_server(vault, session.transport)
        except VaultAuthRefusedError:  # a file is missing, which the session itself says
            return None

    def close(self) -> None:
        """Stop renewing and revoke all tokens except those that teams gave."""
        self._stop.set()
        if self._keeper:
            self._keeper.join()
        for session in self._all_sessions():
            session.close()
        for transport in list(self._transports.values()):
            transport.close()

    def _client(self, session: Session, target: VaultTarget) -> Client:
        return Client(session, scope=self._scope, address=target.address)

    def _in_memory(self, target: VaultTarget) -> Session | None:
        with self._lock:
            found = self._teams.get(target.key)
            return found[1] if found else None

    def _team_session(self, target: VaultTarget, credentials: Credentials) -> Session:
        evicted: Session | None = None
        with self._lock:
            found = self._teams.get(target.key)
            session = found[1] if found else Session(credentials, clock=self._clock)
            self._teams[target.key] = (_without_auth(target), session)
            self._teams.move_to_end(target.key)
            if len(self._teams) > _MAX_TEAM_SESSIONS:
                evicted = self._teams.popitem(last=False)[1][1]
        self._start_keeper()
        if evicted:
            evicted.close()
        return session

    def _service_auth(self, target: VaultTarget) -> ServiceAuth:
        entry = self._vaults.find_auth(target.vault)
        if entry is None:
            raise VaultAuthMissingError(
                f"this service has no session of its own at Vault {target.identity}, which {target.display} names:"
                " give it an entry in the file of --vault-config",
                retry_after_s=_NOT_CONFIGURED_RETRY_S,
                target=target.display,
            )
        return entry

    def _service_session(self, entry: ServiceAuth) -> Session:
        with self._lock:
            if entry.vault not in self._service_sessions:
                name = f"the service itself at Vault {entry.entry.name}"
                self._service_sessions[entry.vault] = Session(
                    Credentials(
                        name=name,
                        identity="own",
                        connect=lambda: self._connect_service(entry),
                        on_authenticated=lambda: self._authenticated.add(entry.vault),
                    ),
                    clock=self._clock,
                )
        self._start_keeper()
        return self._service_sessions[entry.vault]

    def _forget_team(self, target: VaultTarget, session: Session) -> None:
        with self._lock:
            if self._teams.get(target.key, (None, None))[1] is session:
                del self._teams[target.key]

    def _team_credentials(self, target: VaultTarget, method: AuthMethod) -> Credentials:
        return Credentials(
            name=target.display,
            identity=_identity(_endpoint(target, method), method),
            connect=lambda: (self._transport_of(target, method), method),
            revocable=not isinstance(method, TokenAuth),
        )

    def _connect_service(self, entry: ServiceAuth) -> tuple[Transport, AuthMethod]:
        method = entry.auth_method()
        endpoint = _own_endpoint(entry, *_certificate(method))
        return self._transport(endpoint, entry.vault_namespace, name=entry.entry.name), method

    def _transport_of(self, target: VaultTarget, method: AuthMethod) -> Transport:
        return self._transport(_endpoint(target, method), target.vault_namespace, name=target.display)

    def _transport(self, endpoint: Endpoint, vault_namespace: str, *, name: str) -> Transport:
        self._vaults.check_address(endpoint.address)
        with self._lock:
            found = self._transports.get((endpoint, vault_namespace))
            if found is None:
                try:
                    found = Transport(endpoint, vault_namespace=vault_namespace)
                except AuthCertificateError as err:
                    raise VaultAuthRefusedError(f"the auth of {name}: {err}", target=name) from err
                self._transports[endpoint, vault_namespace] = found
            return found

    def _known_transports(self) -> list[Transport]:
        for entry in self._vaults:
            self._service_session(entry)
        found: list[Transport] = []
        for session in self._all_sessions():
            try:
                found.append(session.transport)
            except VaultAuthRefusedError as err:  # a file of the service's own auth is missing
                _LOG.warning("service auth cannot be read", error=str(err))
        return list(dict.fromkeys(found))

    def _all_sessions(self) -> list[Session]:
        with self._lock:
            return [*self._service_sessions.values(), *(session for _, session in self._teams.values())]

    def _start_keeper(self) -> None:
        with self._lock:
            if self._keeper is None and not self._stop.is_set():
                self._keeper = threading.Thread(target=self._keep_alive, name="vault-sessions", daemon=True)
                self._keeper.start()

    def _keep_alive(self) -> None:
        while not self._stop.wait(_KEEP_ALIVE_EVERY_S):
            for session in self._all_sessions():
                if self._stop.is_set():
                    return
                session.keep_alive()
            self._ask_servers()

    def _ask_servers(self) -> None:
        """Ask each Vault that the service has authenticated at which one it is: no caller waits for that."""
        for entry in self._vaults:
            if entry.vault in self._authenticated and not self._stop.is_set():
                self._authenticated.discard(entry.vault)
                try:
                    self._servers.ask_server(entry.entry.name, self._service_session(entry).transport)
                except VaultAuthRefusedError as err:
                    _LOG.debug("vault not asked", vault=entry.entry.name, error=str(err))


def _endpoint(target: VaultTarget, method: AuthMethod) -> Endpoint:
    certificate, private_key = _certificate(method)
    return Endpoint(
        address=Address.parse(target.address),
        ca_bundle=b"" if target.insecure_skip_tls_verify else target.ca_bundle,
        insecure=target.insecure_skip_tls_verify,
        server_name=target.server_name,
        certificate=certificate,
        private_key=private_key,
    )


def _own_endpoint(entry: ServiceAuth, certificate: bytes, private_key: bytes) -> Endpoint:
    """The server as the operator describes it: nothing of an AppBinding decides who is trusted there."""
    return Endpoint(
        address=entry.address, ca_bundle=entry.ca_bundle(), certificate=certificate, private_key=private_key
    )


def _certificate(method: AuthMethod) -> tuple[bytes, bytes]:
    return (method.certificate, method.private_key) if isinstance(method, CertificateAuth) else (b"", b"")


def _identity(endpoint: Endpoint, method: AuthMethod) -> str:
    """Return a digest that differs whenever another token is needed; it reveals no secret."""
    parts = (endpoint.ca_bundle, endpoint.insecure, endpoint.server_name, type(method).__name__, astuple(method))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _without_auth(target: VaultTarget) -> VaultTarget:
    return replace(target, auth=None)
