"""Clients of Vault by VaultTarget, with the service's own auth or else with the auth that the watcher sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.access.domain.models import VaultTargetRow
from services.access.vault.circuit_breaker import CircuitBreakers, Key
from services.common.errors import VaultAuthMissingError, VaultAuthRefusedError
from services.common.vault.client import Vault
from services.common.vault.scope import Scope
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.common.vault.vaults import Vaults

TOKEN_ROLE = "leasegate"  # noqa: S105 - its name in Vault (deploy/vault)

SCOPE = Scope(
    "GET <mount>/creds/*",
    "POST sys/leases/renew/<mount>/creds/*/*",
    "POST sys/leases/revoke/<mount>/creds/*/*",
    "POST sys/leases/revoke-force/<mount>/creds/*/*",
    f"POST auth/token/create/{TOKEN_ROLE}",
    "POST auth/token/revoke-accessor",
    "LIST sys/leases/lookup/<mount>/creds",
    "LIST sys/leases/lookup/<mount>/creds/*",
)
"""All calls that this process makes to Vault."""


class VaultClients:
    """Answers a client with a session for a VaultTarget of the ledger."""

    def __init__(self, sessions: Sessions, *, vaults: Vaults, max_request_duration_s: float) -> None:
        self._sessions, self._vaults = sessions, vaults
        self._max_request_duration_s = max_request_duration_s
        self.on_missing: Callable[[VaultTargetRow], None] = lambda _row: None
        self.breakers = CircuitBreakers()

    @contextmanager
    def at(self, row: VaultTargetRow) -> Iterator[Vault]:
        """The Vault of a VaultTarget; an auth that is missing or refused inside is requested on the change feed.

        Raises:
            VaultNotAllowedError: No entry of the operator's file names it any more.
            VaultAuthMissingError: There is no auth.
        """
        target = self._vaults.recorded(target_of(row))
        try:
            vault = self._sessions.service_vault(target.vault) or self._sessions.team_vault(target)
            yield self.breakers.guard(vault, _circuit(target), probe=lambda: self._sessions.reachable(target.address))
        except (VaultAuthMissingError, VaultAuthRefusedError):
            if not self.service_auth(row):
                self.on_missing(row)
            raise

    def resolve(self, target: VaultTarget) -> VaultTarget:
        """A Vault as the operator's file names it, whatever a caller says of it.

        Raises:
            VaultNotAllowedError: No entry has it.
        """
        return self._vaults.resolve(target)

    def recorded(self, row: VaultTargetRow) -> VaultTarget:
        """The Vault of a VaultTarget as the operator's file names it now.

        Raises:
            VaultNotAllowedError: No entry has its name or its last known address.
        """
        return self._vaults.recorded(target_of(row))

    def put_auth(self, target: VaultTarget) -> None:
        """Open a session with a team's auth, unless the service has its own, and keep the auth in memory.

        Raises:
            VaultAuthRefusedError: Vault refused the auth.
            LeasegateError: Vault does not answer; at once where its circuit is open.
        """
        if self._vaults.find_auth(target.vault) is not None or target.auth is None:
            return
        # Failures here do not count: a team that misspelt its AppBinding must not open the circuit for others.
        self.breakers.check_closed(_circuit(target), probe=lambda: self._sessions.answers(target))
        self._sessions.team_vault(target)

    def service_auth(self, row: VaultTargetRow) -> bool:
        """Whether the service has its own auth there."""
        return self._vaults.find_auth(row.vault) is not None

    def max_request_duration_s(self, row: VaultTargetRow) -> float:
        """How long that Vault processes one request at most."""
        return self._vaults.max_request_duration_s(row.vault) or self._max_request_duration_s

    def serving(self) -> bool:
        """Whether any known Vault answers."""
        return self._sessions.serving()


def target_of(row: VaultTargetRow) -> VaultTarget:
    """A VaultTarget without its auth."""
    return VaultTarget(
        name=row.name,
        address=row.address,
        cluster=row.cluster,
        cluster_uid=row.cluster_uid,
        namespace=row.namespace,
        vault_namespace=row.vault_namespace,
        ca_bundle=row.ca_bundle,
        insecure_skip_tls_verify=row.insecure_skip_tls_verify,
        server_name=row.server_name,
        vault=row.entry,
    )


def row_of(target: VaultTarget) -> VaultTargetRow:
    """The ledger's row of a VaultTarget; its id is not known yet.

    Certificates are kept only where every Vault is allowed; those of an entry are in its file.
    """
    own = not target.vault
    return VaultTargetRow(
        id=0,
        cluster=target.cluster,
        namespace=target.namespace,
        name=target.name,
        key_digest=target.digest,
        address=target.address,
        vault=target.identity,
        vault_namespace=target.vault_namespace.strip("/"),
        ca_bundle=target.ca_bundle if own and not target.insecure_skip_tls_verify else b"",
        insecure_skip_tls_verify=own and target.insecure_skip_tls_verify,
        server_name=target.server_name if own else "",
        cluster_uid=target.cluster_uid,
    )


def _circuit(target: VaultTarget) -> Key:
    return Key(target.identity, target.vault_namespace)
