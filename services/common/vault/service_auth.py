"""The service's own auth for each Vault server, read from the YAML file of ``--vault-config``.

The file names secrets by file only. They are read at each authentication, so that a rotated file needs no restart. An
example::

    - address: https://vault.example:8200
      namespace: team            # optional
      ca_file: /etc/leasegate/vault-ca.crt   # optional, else the system's authorities
      max_request_duration: 90s  # optional, Vault's default_max_request_duration
      kubernetes: {mount: kubernetes, role: leasegate-access, token_file: /var/run/secrets/tokens/vault}
      # or approle: {mount: approle, role_id_file: F, secret_id_file: F}
      # or certificate: {mount: cert, name: leasegate-access, cert_file: F, key_file: F}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.common.durations import parse_seconds
from services.common.errors import VaultAuthRefusedError
from services.common.vault.target import AppRoleAuth, AuthMethod, CertificateAuth, KubernetesAuth
from services.common.vault_config.address import Address, AddressError

DEFAULT_MAX_REQUEST_DURATION_S = 90.0
"""Vault's own default (https://developer.hashicorp.com/vault/docs/configuration#default_max_request_duration)."""

_COMMON = {"address", "namespace", "ca_file", "max_request_duration"}
# By method: the required keys and the optional ones.
_METHODS: Mapping[str, tuple[set[str], set[str]]] = {
    "kubernetes": ({"role", "token_file"}, {"mount"}),
    "approle": ({"role_id_file", "secret_id_file"}, {"mount"}),
    "certificate": ({"cert_file", "key_file"}, {"mount", "name"}),
}


class ServiceAuthError(ValueError):
    """The file cannot be used; the text names the entry and the reason."""


@dataclass(frozen=True, slots=True)
class ServiceAuth:
    """One entry of the file.

    Attributes:
        address: The Vault server.
        vault_namespace: Its namespace; empty for root.
        ca_file: PEM certificates to trust; None for the system's.
        method: ``kubernetes``, ``approle`` or ``certificate``.
        options: The method's keys.
        max_request_duration_s: Longest time that the server works on a request (``default_max_request_duration``).
    """

    address: Address
    vault_namespace: str
    ca_file: Path | None
    method: str
    options: Mapping[str, str]
    max_request_duration_s: float = DEFAULT_MAX_REQUEST_DURATION_S

    def ca_bundle(self) -> bytes:
        """Read the certificates to trust.

        Raises:
            VaultAuthRefusedError: The file cannot be read.
        """
        return self._read(str(self.ca_file)) if self.ca_file else b""

    def auth_method(self) -> AuthMethod:
        """Read the secrets and return the auth method with them.

        Raises:
            VaultAuthRefusedError: A file cannot be read.
        """
        options = self.options
        if self.method == "kubernetes":
            mount = options.get("mount") or KubernetesAuth.default_mount
            return KubernetesAuth(mount=mount, auth_role=options["role"], jwt=self._text(options["token_file"]))
        if self.method == "approle":
            mount = options.get("mount") or AppRoleAuth.default_mount
            return AppRoleAuth(
                mount=mount,
                role_id=self._text(options["role_id_file"]),
                secret_id=self._text(options["secret_id_file"]),
            )
        certificate, key = self._read(options["cert_file"]), self._read(options["key_file"])
        mount = options.get("mount") or CertificateAuth.default_mount
        return CertificateAuth(mount=mount, auth_role=options.get("name", ""), certificate=certificate, private_key=key)

    def _text(self, path: str) -> str:
        return self._read(path).decode(errors="replace").strip()

    def _read(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as err:
            raise VaultAuthRefusedError(
                f"the service's own auth at {self.address} needs {path}: {err.strerror}", target=str(self.address)
            ) from err


class ServiceAuths:
    """All entries of the file."""

    def __init__(self, entries: Sequence[ServiceAuth] = ()) -> None:
        self._entries = {(entry.address, entry.vault_namespace): entry for entry in entries}

    def __iter__(self) -> Iterator[ServiceAuth]:
        return iter(self._entries.values())

    def find_auth(self, address: str, vault_namespace: str = "") -> ServiceAuth | None:
        """Find the entry of a Vault server, however its address is written."""
        try:
            return self._entries.get((Address.parse(address), vault_namespace.strip("/")))
        except AddressError:
            return None

    @classmethod
    def read_file(cls, path: Path | None) -> ServiceAuths:
        """Read the file; None means that the service has no auth of its own.

        Raises:
            ServiceAuthError: It cannot be used.
        """
        if path is None:
            return cls()
        try:
            found = yaml.safe_load(path.read_text())
        except OSError as err:
            raise ServiceAuthError(f"{path}: {err.strerror}") from err
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            raise ServiceAuthError(f"{path} is no YAML") from err
        if not isinstance(found, list):
            raise ServiceAuthError(
                f"{path}: a list of entries is expected, each with an address and one of {', '.join(_METHODS)}"
            )
        entries = [_entry(raw, where=f"{path}: entry {number}") for number, raw in enumerate(found, 1)]
        known = cls(entries)
        if len(known._entries) < len(entries):
            raise ServiceAuthError(f"{path}: two entries name the same address and namespace")
        return known


def _entry(raw: Any, *, where: str) -> ServiceAuth:
    if not isinstance(raw, dict):
        raise ServiceAuthError(f"{where} is no mapping")
    methods = [key for key in raw if key in _METHODS]
    unknown = sorted(str(key) for key in raw if key not in _COMMON and key not in _METHODS)
    if unknown or len(methods) != 1:
        why = f"unknown key {unknown[0]!r}" if unknown else f"exactly one of {', '.join(_METHODS)} is needed"
        raise ServiceAuthError(f"{where}: {why}")
    options = _options(raw[methods[0]], methods[0], where=where)
    try:
        return ServiceAuth(
            address=Address.parse(str(raw.get("address", ""))),
            vault_namespace=str(raw.get("namespace") or "").strip("/"),
            ca_file=Path(raw["ca_file"]) if raw.get("ca_file") else None,
            method=methods[0],
            options=options,
            max_request_duration_s=parse_seconds(
                raw.get("max_request_duration", f"{DEFAULT_MAX_REQUEST_DURATION_S:.0f}")
            ),
        )
    except AddressError as err:
        raise ServiceAuthError(f"{where}: address {err}") from err
    except ValueError as err:
        raise ServiceAuthError(f"{where}: {err}") from err


def _options(raw: Any, method: str, *, where: str) -> Mapping[str, str]:
    needed, optional = _METHODS[method]
    if not isinstance(raw, dict) or not needed <= raw.keys() or not raw.keys() <= needed | optional:
        raise ServiceAuthError(
            f"{where}: {method} needs {', '.join(sorted(needed))} and may have {', '.join(sorted(optional))}"
        )
    return {key: str(value) for key, value in raw.items()}
