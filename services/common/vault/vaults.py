"""The Vaults that a service may call, and its own auth at each: the file of ``--vault-config``, put to use.

Whatever a caller sends, only the first address of an entry is ever called, with the entry's certificates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from services.common.errors import FieldViolation, SpecInvalidError, VaultNotAllowedError
from services.common.vault.service_auth import ServiceAuth, read_ca
from services.common.vault.target import (
    AppRoleAuth,
    AuthMethod,
    CertificateAuth,
    KubernetesAuth,
    TokenAuth,
    UserpassAuth,
    VaultTarget,
)
from services.common.vault_config.address import Address
from services.common.vault_config.entries import VaultConfig, VaultEntry

_METHODS: Mapping[type[AuthMethod], str] = {
    KubernetesAuth: "kubernetes",
    TokenAuth: "token",
    UserpassAuth: "userpass",
    CertificateAuth: "certificate",
    AppRoleAuth: "approle",
}
"""Names of auth methods, as ``teamAuth.methods`` has them."""


class Vaults:
    """What the operator's file allows to one service. Safe for threads.

    Args:
        config: The file.
        service: ``engine``, ``roles`` or ``access``; empty for none, which has no auth of its own.
    """

    def __init__(self, config: VaultConfig | None = None, *, service: str = "") -> None:
        self._config = config or VaultConfig()
        self._auths = {
            entry.identity: ServiceAuth(entry, entry.auth[service])
            for entry in self._config.entries
            if service in entry.auth
        }
        self._addresses = frozenset(Address.parse(entry.address) for entry in self._config.entries)

    @property
    def any_vault(self) -> bool:
        """Whether every Vault may be called, with the session of the AppBinding."""
        return self._config.any_vault

    def __iter__(self) -> Iterator[ServiceAuth]:
        return iter(self._auths.values())

    def find_auth(self, vault: str) -> ServiceAuth | None:
        """Find the service's own auth at a Vault by a name of its entry."""
        entry = self._config.named(vault)
        return self._auths.get(entry.identity) if entry else None

    def max_request_duration_s(self, vault: str) -> float | None:
        """How long a Vault works on one request at most; None where no entry says so."""
        entry = self._config.named(vault)
        return entry.max_request_duration_s if entry else None

    def resolve(self, target: VaultTarget) -> VaultTarget:
        """Replace what a caller says of a Vault by what its entry says.

        Raises:
            VaultNotAllowedError: No entry has it.
            VaultAuthRefusedError: The entry's certificates cannot be read.
        """
        if self._config.any_vault:
            return replace(target, vault="")
        entry = self._config.choose(target.address, name=target.vault, vault_namespace=target.vault_namespace)
        return _as_in(entry, target)

    def recorded(self, target: VaultTarget) -> VaultTarget:
        """As ``resolve``, for a Vault that was in use once: by its name, else by its last known address.

        Raises:
            VaultNotAllowedError: No entry has either.
            VaultAuthRefusedError: The entry's certificates cannot be read.
        """
        if self._config.any_vault:
            return replace(target, vault="")
        entry = self._config.recorded(
            vault=target.vault, address=target.address, vault_namespace=target.vault_namespace
        )
        return _as_in(entry, target)

    def check_mount(self, target: VaultTarget, path: str, *, namespace: str) -> None:
        """Refuse a mount that is not for a namespace.

        Args:
            target: The Vault, resolved.
            path: Path of the mount.
            namespace: The namespace that asks; empty outside Kubernetes.

        Raises:
            PathNotOwnedError: The operator does not give it this path.
        """
        if entry := self._config.named(target.vault):
            entry.check_mount(path, namespace=namespace)

    def permits_adoption(self, target: VaultTarget, path: str, *, namespace: str) -> bool:
        """Whether a namespace may take over a mount that Leasegate did not enable, or that is another cluster's.

        Args:
            target: The Vault, resolved.
            path: Path of the mount.
            namespace: The namespace that asks; empty outside Kubernetes.
        """
        entry = self._config.named(target.vault)
        return self._config.any_vault or (entry is not None and entry.mounts.permit_adoption(path, namespace=namespace))

    def permits_local_databases(self, target: VaultTarget) -> bool:
        """Whether a database may be at a loopback or link-local address of a Vault's machine; the Vault is resolved."""
        entry = self._config.named(target.vault)
        return self._config.any_vault or (entry is not None and entry.local_databases)

    def check_team_auth(self, target: VaultTarget) -> None:
        """Refuse an auth method, or an auth mount, that is not for teams at a Vault, before anything is sent there.

        Args:
            target: The Vault, resolved, with an auth.

        Raises:
            SpecInvalidError: The operator does not allow it.
        """
        entry, method = self._config.named(target.vault), target.auth
        if entry is None or method is None:
            return
        team, name = entry.team_auth, _METHODS[type(method)]
        if name not in team.methods:
            why = f"is of the auth method {name}, and the operator allows these at Vault {entry.name}: "
            raise SpecInvalidError.of(FieldViolation("target.auth", why + ", ".join(team.methods)))
        if name != "token" and method.mount not in team.mounts:
            why = f"is at the auth mount {method.mount}, and the operator allows these at Vault {entry.name}: "
            raise SpecInvalidError.of(FieldViolation(f"target.{name}.mount", why + ", ".join(team.mounts)))

    def check_address(self, address: Address) -> None:
        """Refuse to connect anywhere but to an entry: the last check before a connection is made.

        Raises:
            VaultNotAllowedError: No entry is there.
        """
        if not self._config.any_vault and address not in self._addresses:
            raise VaultNotAllowedError(
                f"Vault {address} is no entry of --vault-config: nothing is sent there", address=str(address)
            )


def _as_in(entry: VaultEntry, target: VaultTarget) -> VaultTarget:
    return replace(
        target,
        vault=entry.identity,
        address=entry.address,
        vault_namespace=entry.vault_namespace,
        ca_bundle=read_ca(entry),
        insecure_skip_tls_verify=False,
        server_name="",
    )
