"""Which hosts a database may be at: Vault connects to them from where it runs, and says what answers.

A team names the host. Without a limit it could have Vault connect to itself, to what listens on its machine alone, or
to a cloud's metadata service. Names are resolved by Vault, and not here: a name that leads to such an address is not
refused.
"""

from __future__ import annotations

import ipaddress
import re

from services.common.errors import FieldViolation, SpecInvalidError
from services.common.vault_config.address import Address, AddressError
from services.engine.url import DatabaseUrl

_LOCAL_NAMES = re.compile(r"(?:.+\.)?localhost(?:\.localdomain)?6?\.?", re.IGNORECASE)
# getaddrinfo takes 127.1, 2130706433 and 0x7f.1 for addresses of IPv4, which ``ipaddress`` does not read.
_OTHER_NUMBERS = re.compile(r"(?:.*\.)?(?:0x[0-9a-f]*|\d+)\.?", re.IGNORECASE)


def check_hosts(url: DatabaseUrl, *, vault_address: str, may_be_local: bool, field: str) -> None:
    """Refuse a database at an address of Vault's own machine, or at Vault itself.

    Args:
        url: The database.
        vault_address: Address of the Vault that would connect to it.
        may_be_local: Whether the operator permits loopback and link-local addresses at this Vault.
        field: Name of the field that holds the hosts, for errors.

    Raises:
        SpecInvalidError: Names the host and the reason.
    """
    vault = _host_and_port(vault_address)
    for host, port in url.places:
        if (host.rstrip("."), port) == vault:
            raise _refused(field, host, "is Vault's own address: name the host and port of the database")
        if not may_be_local and (why := _why_local(host)):
            text = f"{why}: name a host that Vault reaches elsewhere, or have the operator set localDatabases in the"
            raise _refused(field, host, f"{text} entry of this Vault (--vault-config)")


def _why_local(host: str) -> str:
    """Why a host is one that a team must not name; empty if it is not."""
    if _LOCAL_NAMES.fullmatch(host):
        return "is Vault's own machine"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "is no address that is written in full" if _OTHER_NUMBERS.fullmatch(host) else ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified:
        return "is Vault's own machine"
    return "is a link-local address" if address.is_link_local else ""


def _host_and_port(address: str) -> tuple[str, int] | None:
    try:
        found = Address.parse(address)
    except AddressError:
        return None
    return found.host.rstrip("."), found.port


def _refused(field: str, host: str, why: str) -> SpecInvalidError:
    return SpecInvalidError.of(FieldViolation(field, f"{host[:100]} {why}"))
