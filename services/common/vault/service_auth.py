"""The service's own auth at one Vault, as ``auth`` of its entry in ``--vault-config`` describes it.

Secrets are named by file only. They are read at each authentication, so that a rotated file needs no restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.common.errors import VaultAuthRefusedError
from services.common.vault.target import AppRoleAuth, AuthMethod, CertificateAuth, KubernetesAuth
from services.common.vault_config.address import Address
from services.common.vault_config.entries import AuthSettings, VaultEntry


@dataclass(frozen=True, slots=True)
class ServiceAuth:
    """The service's own auth at one Vault.

    Attributes:
        entry: The Vault.
        settings: How the service authenticates.
    """

    entry: VaultEntry
    settings: AuthSettings

    @property
    def vault(self) -> str:
        """What tells the Vault from others."""
        return self.entry.identity

    @property
    def address(self) -> Address:
        """Where it is."""
        return Address.parse(self.entry.address)

    @property
    def vault_namespace(self) -> str:
        """Its Vault namespace; empty for root."""
        return self.entry.vault_namespace

    def ca_bundle(self) -> bytes:
        """Read the certificates to trust.

        Raises:
            VaultAuthRefusedError: The file cannot be read.
        """
        return read_ca(self.entry)

    def auth_method(self) -> AuthMethod:
        """Read the secrets and return the auth method with them.

        Raises:
            VaultAuthRefusedError: A file cannot be read.
        """
        options = self.settings.options
        if self.settings.method == "kubernetes":
            mount = options.get("mount") or KubernetesAuth.default_mount
            return KubernetesAuth(mount=mount, auth_role=options["role"], jwt=self._text(options["tokenFile"]))
        if self.settings.method == "approle":
            mount = options.get("mount") or AppRoleAuth.default_mount
            return AppRoleAuth(
                mount=mount,
                role_id=self._text(options["roleIdFile"]),
                secret_id=self._text(options["secretIdFile"]),
            )
        certificate = _read(self.entry, options["certFile"])
        key = _read(self.entry, options["keyFile"])
        mount = options.get("mount") or CertificateAuth.default_mount
        return CertificateAuth(mount=mount, auth_role=options.get("name", ""), certificate=certificate, private_key=key)

    def _text(self, path: str) -> str:
        return _read(self.entry, path).decode(errors="replace").strip()


def read_ca(entry: VaultEntry) -> bytes:
    """Read the certificates that an entry trusts; empty for the system's.

    Raises:
        VaultAuthRefusedError: The file cannot be read.
    """
    return _read(entry, str(entry.ca_file)) if entry.ca_file else b""


def _read(entry: VaultEntry, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise VaultAuthRefusedError(
            f"Vault {entry.name} of --vault-config needs the file {path}: {err.strerror}", target=entry.name
        ) from err
