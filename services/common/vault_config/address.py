"""The address of a Vault server, in the one form in which two of them can be compared."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|[0-9A-Fa-f:.]{2,45}")
_DEFAULT_PORT = {"https": 443, "http": 80}


class AddressError(ValueError):
    """The text is no address of a Vault server."""


@dataclass(frozen=True, slots=True)
class Address:
    """Scheme and host in lower case, and the port: one form for all spellings of an address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def tls(self) -> bool:
        """Whether it is reached over TLS."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine answers there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``https://host:port``; ``HTTPS`` is taken as well, and a slash at the end.

        Raises:
            AddressError: It is something else; the text says what.
        """
        return _parse(text)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address:
    if not text:
        raise AddressError("is missing: write it like https://vault.demo.svc:8200")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        raise AddressError("is no URL: write it like https://vault.demo.svc:8200") from None
    if scheme not in _DEFAULT_PORT or not _HOST.fullmatch(host):
        raise AddressError("needs the scheme https (or http) and a host, like https://vault.demo.svc:8200")
    if "@" in parts.netloc:
        raise AddressError("must not hold a user name or a password")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise AddressError("must end after the port: no path, no query")
    if port == 0:
        raise AddressError("has the port 0")
    return Address(scheme=scheme, host=_canonical_host(host), port=port or _DEFAULT_PORT[scheme])


def _canonical_host(host: str) -> str:
    """One spelling of a host: no dot at the end of a name, the short form of an IPv6 address."""
    if ":" not in host:
        return host.removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise AddressError("has an IPv6 address that is none") from None
