"""The entries of the operator's file, and which one an address or a name chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.common.errors import PathNotOwnedError, VaultNotAllowedError
from services.common.vault_config.address import Address, AddressError
from services.common.vault_config.address_pattern import AddressPattern
from services.common.vault_config.mount_rules import MountRules

DEFAULT_MAX_REQUEST_DURATION_S = 90.0
"""Vault's own default (https://developer.hashicorp.com/vault/docs/configuration#default_max_request_duration)."""


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How a service authenticates as itself.

    Attributes:
        method: ``kubernetes``, ``approle`` or ``certificate``.
        options: The method's keys, as in the file.
    """

    method: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TeamAuth:
    """How teams may prove who they are.

    Attributes:
        methods: Auth methods that AppBindings may use.
        mounts: Auth mounts that they may name.
        token_audience: Audience of the tokens that are made for ServiceAccounts.
        service_accounts: Names of the ServiceAccounts that tokens are made for.
    """

    methods: tuple[str, ...] = ("kubernetes",)
    mounts: tuple[str, ...] = ("kubernetes",)
    token_audience: str = ""
    service_accounts: tuple[str, ...] = ("vault",)


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """One Vault: one server, or one Vault namespace of it.

    Attributes:
        name: Its name.
        addresses: The addresses by which AppBindings choose it; the first one is exact.
        auth: By service, how it authenticates as itself.
        team_auth: How teams may prove who they are.
        mounts: Which namespace may have which mount.
        ca_file: PEM certificates to trust; None for the system's.
        vault_namespace: Vault namespace; empty for root.
        max_request_duration_s: Longest time that the server works on a request (``default_max_request_duration``).
        former_names: Names that it had, the oldest first.
        local_databases: Whether databases may be at loopback and link-local addresses of its machine.
    """

    name: str
    addresses: tuple[AddressPattern, ...]
    auth: Mapping[str, AuthSettings] = field(default_factory=dict)
    team_auth: TeamAuth = field(default_factory=TeamAuth)
    mounts: MountRules = field(default_factory=MountRules)
    ca_file: Path | None = None
    vault_namespace: str = ""
    max_request_duration_s: float = DEFAULT_MAX_REQUEST_DURATION_S
    former_names: tuple[str, ...] = ()
    local_databases: bool = False

    @property
    def address(self) -> str:
        """The address that every connection goes to."""
        return str(self.addresses[0])

    @property
    def identity(self) -> str:
        """The oldest name: what tells this Vault from others in statuses, digests and the ledger, for ever."""
        return self.former_names[0] if self.former_names else self.name

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which it is known."""
        return (self.name, *self.former_names)

    def is_at(self, address: str) -> bool:
        """Whether an address is one of its own."""
        try:
            found = Address.parse(address)
        except AddressError:
            return False
        return any(pattern.matches(found) for pattern in self.addresses)

    def check_mount(self, path: str, *, namespace: str) -> None:
        """Refuse a mount that is not for a namespace.

        Raises:
            PathNotOwnedError: The operator does not give it this path.
        """
        if self.mounts.permit(path, namespace=namespace):
            return
        who = f"namespace {namespace}" if namespace else "callers outside Kubernetes"
        free = self.mounts.examples(namespace)
        choose = f"choose one of its own, such as {free[0]}, or have" if free else "have"
        raise PathNotOwnedError(
            f"the mount {path} of Vault {self.name} is not for {who}: {choose} the operator add the path with this"
            " namespace to mounts.owned in --vault-config",
            path=path,
        )


@dataclass(frozen=True, slots=True)
class VaultConfig:
    """The whole file.

    Attributes:
        entries: The Vaults.
        any_vault: Whether every Vault may be called, with the session of the AppBinding (``--allow-any-vault``).
    """

    entries: tuple[VaultEntry, ...] = ()
    any_vault: bool = False

    def named(self, name: str) -> VaultEntry | None:
        """The entry that has or had a name."""
        return next((entry for entry in self.entries if name in entry.names), None)

    def choose(self, address: str, *, name: str = "", vault_namespace: str = "") -> VaultEntry:
        """The one entry that an address chooses, among several by name or Vault namespace.

        Args:
            address: As an AppBinding or a caller gives it.
            name: Name of the entry, where given; the address has to be one of its own.
            vault_namespace: Vault namespace, where given.

        Raises:
            VaultNotAllowedError: No entry, or more than one, has it.
        """
        wanted = vault_namespace.strip("/")
        there = [entry for entry in self.entries if entry.is_at(address)]
        found = [each for each in there if not name or name in each.names]
        found = [each for each in found if not wanted or wanted == each.vault_namespace]
        if len(found) == 1:
            return found[0]
        raise _not_allowed(address, there=there, name=name, vault_namespace=wanted, several=bool(found))

    def recorded(self, *, vault: str, address: str, vault_namespace: str = "") -> VaultEntry:
        """The entry of a Vault that was in use once: by its name, else by its last known address.

        Raises:
            VaultNotAllowedError: No entry has either, so that nothing may be sent there.
        """
        if entry := self.named(vault):
            return entry
        namespace = vault_namespace.strip("/")
        found = [entry for entry in self.entries if entry.is_at(address) and entry.vault_namespace == namespace]
        if len(found) == 1:
            return found[0]
        what = f"Vault {vault or address} was in use here, and no entry of --vault-config has its name or its address"
        raise VaultNotAllowedError(
            f"{what}: nothing is sent there. Put its entry back, or add {vault or address!r} to formerNames of the"
            " entry that it is now",
            address=address[:200],
        )


def vault_identity(*, vault: str, address: str, vault_namespace: str = "") -> str:
    """What tells one Vault from others: the name of its entry, without one its address and Vault namespace."""
    if vault:
        return vault
    try:
        where = str(Address.parse(address))
    except AddressError:
        where = address
    namespace = vault_namespace.strip("/")
    return f"{where}/{namespace}" if namespace else where


def _not_allowed(
    address: str, *, there: Sequence[VaultEntry], name: str, vault_namespace: str, several: bool
) -> VaultNotAllowedError:
    shown = address[:200] or "without an address"
    names = ", ".join(entry.name for entry in there)
    if several:
        text = (
            f"Vault {shown} is the address of several entries of --vault-config ({names}): name one with `vault: NAME`"
            " in the AppBinding's spec.parameters"
        )
    elif not there:
        text = (
            f"Vault {shown} is in no entry of --vault-config, so that nothing is sent there: use an address that the"
            " operator has listed, or have the operator add this one to `addresses` of its entry"
        )
    elif name and not any(name in entry.names for entry in there):
        text = (
            f"Vault {shown} is no address of an entry named {name[:64]!r} in --vault-config: it belongs to {names};"
            " correct spec.parameters.vault or the address of the AppBinding"
        )
    else:
        text = (
            f"the entry of Vault {shown} in --vault-config ({names}) is not for the Vault namespace"
            f" {vault_namespace[:64]!r}: leave it out, or have the operator add an entry with this vaultNamespace"
        )
    return VaultNotAllowedError(text, address=shown)
