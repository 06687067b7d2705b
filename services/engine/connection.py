"""A connection of a database secrets engine: what is asked for, what Vault has, and what to write.

Vault keeps what a write leaves out, so a value that is taken out of the spec is written as Vault's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.common.errors import FieldViolation, SpecInvalidError, VaultRefusedError
from services.common.names import CLEANUP_ROLE_PREFIX, DEFAULT_PLUGIN
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.mounts import being_removed
from services.common.vault.response import VaultNotFoundError
from services.engine.url import DatabaseUrl, url_of

# One attempt has one display name, so it can never create two database users
# (docs/adr/0009-database-user-names-per-attempt.md).
USERNAME_TEMPLATE = "{{ .DisplayName | truncate 63 }}"
CLEANUP_ROLES = f"{CLEANUP_ROLE_PREFIX}*"
# By key: the values that mean Vault's default, the first of which is written.
_UNSET: Mapping[str, tuple[object, ...]] = {
    "max_open_connections": (0, None),
    "max_idle_connections": (0, None),
    "max_connection_lifetime": ("0s", "", 0, None),
}


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection that an owner asks for.

    Attributes:
        name: Name in Vault.
        url: The database.
        username: Database user that Vault connects as; empty keeps the one in Vault.
        password: Its password; empty keeps the one in Vault.
        plugin_name: Name of Vault's plugin.
        allowed_roles: Names in Vault of the database roles that may use it, ``*`` in them; empty for all.
        max_open_connections: None for Vault's default.
        max_idle_connections: None for Vault's default, negative for none.
        max_connection_lifetime_s: None for Vault's default.
    """

    name: str
    url: DatabaseUrl
    username: str = ""
    password: str = field(default="", repr=False)
    plugin_name: str = DEFAULT_PLUGIN
    allowed_roles: tuple[str, ...] = ()
    max_open_connections: int | None = None
    max_idle_connections: int | None = None
    max_connection_lifetime_s: int | None = None

    def visible(self) -> dict[str, Any]:
        """Return what Vault shows of the connection once it is written, for the fields that the spec sets."""
        shown: dict[str, Any] = {
            "plugin_name": self.plugin_name,
            "allowed_roles": self._allowed(),
            "connection_url": self.url.template,
            "username_template": USERNAME_TEMPLATE,
        }
        if self.username:
            shown["username"] = self.username
        return shown | self._limits()

    def payload(self, existing: Existing | None) -> dict[str, Any]:
        """Return the body to write.

        Args:
            existing: The connection in Vault; limits that the spec does not set are written as Vault's defaults.
        """
        shown = existing.shown if existing else {}
        cleared = {key: unset[0] for key, unset in _UNSET.items() if shown.get(key) not in unset}
        secret = {"password": self.password} if self.password else {}
        return cleared | self.visible() | secret | {"verify_connection": True}

    def differs(self, existing: Existing) -> bool:
        """Whether Vault shows another content than what is asked for; Vault never shows the password."""
        wanted = {key: unset[0] for key, unset in _UNSET.items()} | self.visible()
        return any(not _same(key, existing.shown.get(key), value) for key, value in wanted.items())

    def redirects(self, existing: Existing) -> bool:
        """Whether database roles would run elsewhere, or as another user, than on the connection in Vault."""
        wanted = self.visible()
        names = ("connection_url", "plugin_name", *(("username",) if self.username else ()))
        return any(existing.shown.get(name) != wanted[name] for name in names)

    def moves(self, existing: Existing) -> bool:
        """Whether its database is another one than that of the connection in Vault."""
        there = existing.url
        return there is None or there.place != self.url.place

    def check_password(self, existing: Existing | None) -> None:
        """Refuse to send a password that only Vault knows to another database, or over a weaker TLS.

        Raises:
            SpecInvalidError: The spec has no user and password, and the connection in Vault goes elsewhere.
        """
        if existing is None or (self.username and self.password):
            return
        there = existing.url
        if there is not None and there.place == self.url.place and there.tls_rank <= self.url.tls_rank:
            return
        why = (
            "is missing: Vault would send the password that it keeps to another host or database, or over a weaker"
            " sslmode. Put username and password into the AppBinding's Secret"
        )
        raise SpecInvalidError.of(FieldViolation("postgres.database.password", why))

    def check_user(self, existing: Existing | None) -> None:
        """Refuse a connection without a user.

        Raises:
            SpecInvalidError: Neither the spec nor Vault names one.
        """
        if not self.username and not (existing and existing.shown.get("username")):
            raise SpecInvalidError.of(
                FieldViolation(
                    "postgres.database.username",
                    "is missing: the AppBinding's Secret needs the keys username and password",
                )
            )

    def _allowed(self) -> list[str]:
        if not self.allowed_roles or "*" in self.allowed_roles:
            return ["*"]
        return [*self.allowed_roles, *(() if CLEANUP_ROLES in self.allowed_roles else (CLEANUP_ROLES,))]

    def _limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        if self.max_open_connections is not None:
            limits["max_open_connections"] = self.max_open_connections
        if self.max_idle_connections is not None:
            limits["max_idle_connections"] = self.max_idle_connections
        if self.max_connection_lifetime_s is not None:
            limits["max_connection_lifetime"] = f"{self.max_connection_lifetime_s}s"
        return limits


@dataclass(frozen=True, slots=True)
class Existing:
    """What Vault shows of a connection, flattened to one level."""

    shown: Mapping[str, Any]

    @property
    def url(self) -> DatabaseUrl | None:
        """Its URL; None where Leasegate does not write such a one."""
        return url_of(str(self.shown.get("connection_url", "")))


def read_connection(vault: Vault, mount: str, name: str) -> Existing | None:
    """Read a connection; None where there is none.

    Raises:
        VaultFailedError: The mount is being removed.
        LeasegateError: Vault refused, cannot be reached or has failed.
    """
    try:
        data = vault.read(f"{mount}/config/{name}").data
    except VaultNotFoundError as err:
        if err.no_mount:
            raise being_removed(mount) from err
        return None
    details = data.get("connection_details") or {}
    return Existing({**details, "plugin_name": data.get("plugin_name"), "allowed_roles": data.get("allowed_roles")})


def write_connection(vault: Vault, mount: str, connection: Connection, *, existing: Existing | None) -> None:
    """Write a connection. Vault connects to the database first, and keeps the old connection if that fails.

    Raises:
        VaultRefusedError: The database cannot be reached or refuses the user, or Vault refuses a value.
        LeasegateError: Vault cannot be reached or has failed.
    """
    path = f"{mount}/config/{connection.name}"
    try:
        vault.write(path, connection.payload(existing))
    except VaultNotFoundError as err:
        raise being_removed(mount) from err
    except VaultRefusedError as err:
        if not error_texts.is_connection_unverified(err.vault_text):
            raise
        user = connection.username or "the user that it has"
        hint = (
            "Check that the database runs, that Vault reaches this host and port, and that user and password are right"
        )
        raise VaultRefusedError(
            f"Vault cannot connect to the database {connection.url} as {user}: {err.message}. {hint}.", path=path
        ) from err


def delete_connection(vault: Vault, mount: str, name: str) -> None:
    """Remove a connection; one that does not exist counts as removed."""
    try:
        vault.delete(f"{mount}/config/{name}")
    except VaultNotFoundError:
        return


def _same(key: str, shown: object, wanted: object) -> bool:
    unset = _UNSET.get(key, ())
    return shown == wanted or (wanted in unset and shown in unset)
