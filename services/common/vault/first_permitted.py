"""A Vault for cleanup, which uses whichever session is still permitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.common.errors import VaultAuthMissingError, VaultAuthRefusedError, VaultPolicyMissingError
from services.common.vault.client import Vault
from services.common.vault.response import Answer


class FirstPermitted:
    """Makes each call with the first of several sessions that is permitted; raises the refusal of the last one."""

    def __init__(self, address: str, candidates: Sequence[Callable[[], Vault]]) -> None:
        """Take the candidates, at least one; each is made when it is needed, and may raise VaultAuthRefusedError."""
        self._address = address
        self._candidates = candidates

    @property
    def address(self) -> str:
        """``https://host:port``."""
        return self._address

    def read(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.read``."""
        return self._call(lambda vault: vault.read(path, token=token, timeout_s=timeout_s))

    def list(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.list``."""
        return self._call(lambda vault: vault.list(path, token=token, timeout_s=timeout_s))

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As ``Vault.write``."""
        return self._call(lambda vault: vault.write(path, body, token=token, timeout_s=timeout_s))

    def delete(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.delete``."""
        return self._call(lambda vault: vault.delete(path, token=token, timeout_s=timeout_s))

    def _call(self, call: Callable[[Vault], Answer]) -> Answer:
        *others, last = self._candidates
        for candidate in others:
            try:
                return call(candidate())
            except (VaultAuthRefusedError, VaultAuthMissingError, VaultPolicyMissingError):
                continue  # the next one may be permitted
        return call(last())
