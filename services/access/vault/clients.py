"""Clients of Vault by VaultTarget, with the service's own auth or else with the auth that the watcher sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.access.domain.models import VaultTargetRow
from services.access.vault.circuit_breaker import CircuitBreakers, Key
from services.common.errors import VaultAuthMissingError, VaultAuthRefusedError
from services.common.vault.client import Vault
from services.common.vault.scope import Scope
from services.common.vault.service_auth import ServiceAuths
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.common.vault_config.address import Address

TOKEN_ROLE = "leasegate"  # noqa: S105 - its name in Vault (deploy/vault)

SCOPE = Scope(
    "GET <mount>/creds/*",
    "POST sys/leases/renew/<mount>/creds/*/*",
    "POST sys/leases/revoke/<mount>/creds/*/*",
    f"POST auth/token/create/{TOKEN_ROLE}",
    "POST auth/token/revoke-accessor",
    "LIST sys/leases/lookup/<mount>/creds",
    "LIST sys/leases/lookup/<mount>/creds/*",
)
"""All calls that this process makes to Vault."""


class VaultClients:
    """Answers a client with a session for a VaultTarget of the ledger."""

    def __init__(self, sessions: Sessions, *, own: ServiceAuths, max_request_duration_s: float) -> None:
        self._sessions, self._own = sessions, own
        self._max_request_duration_s = max_request_duration_s
        self.on_missing: Callable[[VaultTargetRow], None] = lambda _row: None
        self.breakers = CircuitBreakers()

    @contextmanager
    def at(self, row: VaultTargetRow) -> Iterator[Vault]:
        """The Vault of a VaultTarget; an auth that is missing or refused inside is requested on the change feed.

        Raises:
            VaultAuthMissingError: There is no auth.
        """
        try:
            vault = self._sessions.service_vault(row.address, row.vault_namespace) or self._sessions.team_vault(
                target_of(row)
            )
            yield self.breakers.guard(
                vault,
                Key(row.server, row.vault_namespace),
                probe=lambda: self._sessions.reachable(row.address, row.vault_namespace),
            )
        except (VaultAuthMissingError, VaultAuthRefusedError):
            if not self.service_auth(row):
                self.on_missing(row)
            raise

    def put_auth(self, target: VaultTarget) -> None:
        """Open a session with a team's auth, unless the service has its own, and keep the auth in memory.

        Raises:
            VaultAuthRefusedError: Vault refused the auth.
            LeasegateError: Vault does not answer; at once where its circuit is open.
        """
        if self._own.find_auth(target.address, target.vault_namespace) is not None or target.auth is None:
            return
        # Failures here do not count: a team that misspelt its AppBinding must not open the circuit for others.
        key = Key(str(Address.parse(target.address)), target.vault_namespace.strip("/"))
        self.breakers.check_closed(key, probe=lambda: self._sessions.answers(target))
        self._sessions.team_vault(target)

    def service_auth(self, row: VaultTargetRow) -> bool:
        """Whether the service has its own auth there."""
        return self._own.find_auth(row.address, row.vault_namespace) is not None

    def max_request_duration_s(self, row: VaultTargetRow) -> float:
        """How long that Vault processes one request at most."""
        own = self._own.find_auth(row.address, row.vault_namespace)
        return own.max_request_duration_s if own else self._max_request_duration_s

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
        auth_mount=row.auth_mount,
    )


def row_of(target: VaultTarget, *, digest: str | None = None) -> VaultTargetRow:
    """The ledger's row of a VaultTarget; its id is not known yet."""
    return VaultTargetRow(
        id=0,
        cluster=target.cluster,
        namespace=target.namespace,
        name=target.name,
        key_digest=digest or target.digest,
        address=target.address,
        server=str(Address.parse(target.address)),
        vault_namespace=target.vault_namespace.strip("/"),
        ca_bundle=b"" if target.insecure_skip_tls_verify else target.ca_bundle,
        insecure_skip_tls_verify=target.insecure_skip_tls_verify,
        server_name=target.server_name,
        auth_mount=target.mount,
        cluster_uid=target.cluster_uid,
    )
