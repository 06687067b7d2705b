"""Addresses in the operator's file, whose host may have ``*`` in place of a label: ``https://vault.*.svc:8200``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.common.vault_config.address import Address, AddressError

_WILDCARD = "*"
_STAND_IN = "wildcard-label"
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """One address, or all that differ from it in the labels that are ``*`` here.

    Attributes:
        scheme: ``https`` or ``http``.
        labels: The host's labels, ``*`` for any single one; an IP address is one label.
        port: The port.
    """

    scheme: str
    labels: tuple[str, ...]
    port: int

    def __str__(self) -> str:
        host = ".".join(self.labels)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_exact(self) -> bool:
        """Whether it names one address."""
        return _WILDCARD not in self.labels

    def matches(self, address: Address) -> bool:
        """Whether an address is one of these."""
        return self.overlaps(AddressPattern(address.scheme, _labels(address.host), address.port))

    def overlaps(self, other: AddressPattern) -> bool:
        """Whether some address is one of these and one of the other's."""
        if (self.scheme, self.port, len(self.labels)) != (other.scheme, other.port, len(other.labels)):
            return False
        return all(_meet(mine, theirs) for mine, theirs in zip(self.labels, other.labels, strict=True))

    @classmethod
    def parse(cls, text: str) -> AddressPattern:
        """Read an address or a pattern.

        Raises:
            AddressError: It is neither; the text says what is wrong.
        """
        try:
            address = Address.parse(text.replace(_WILDCARD, _STAND_IN))
        except AddressError as err:
            raise AddressError(str(err).replace(_STAND_IN, _WILDCARD)) from None
        labels = tuple(label.replace(_STAND_IN, _WILDCARD) for label in _labels(address.host))
        if any(_WILDCARD in label and label != _WILDCARD for label in labels):
            raise AddressError("has a * inside a label: it stands for a whole one, as in https://vault.*.svc:8200")
        if labels[-1] == _WILDCARD:
            raise AddressError("ends with *: name at least the last label, as in https://vault.*.svc:8200")
        return cls(address.scheme, labels, address.port)


def _labels(host: str) -> tuple[str, ...]:
    """The labels of a host name; an IP address is one, so that no pattern of names matches it."""
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        return (host,)
    return tuple(host.split("."))


def _meet(mine: str, theirs: str) -> bool:
    if mine == _WILDCARD:
        return theirs == _WILDCARD or _LABEL.fullmatch(theirs) is not None
    return mine == theirs or (theirs == _WILDCARD and _LABEL.fullmatch(mine) is not None)
