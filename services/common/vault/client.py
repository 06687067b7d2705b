"""The few calls that services make to Vault, as a port (``Vault``) and as the one implementation of it (``Client``)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from services.common.errors import LeasegateError, VaultPolicyMissingError
from services.common.logs import logger
from services.common.vault.response import Answer, VaultNotFoundError, shown
from services.common.vault.scope import Scope
from services.common.vault.session import Session
from services.common.vault.transport import Transport

_LOG = logger(__name__)


class Vault(Protocol):
    """One Vault server, with a session.

    Every call may raise: PathNotOwnedError, DeadlineTooShortError, VaultUnreachedError (nothing was sent);
    VaultNotFoundError (404); VaultRefusedError (400); VaultPolicyMissingError (403, from a new token, too);
    VaultAuthRefusedError; VaultAuthMissingError; VaultThrottledError; VaultSealedError; VaultFailedError and
    VaultUnavailableError (what Vault did is not known). ``token`` replaces the session's own, without a second try.
    ``timeout_s`` bounds the wait, as does the deadline of the call that is being handled.
    """

    @property
    def address(self) -> str:
        """``https://host:port``."""
        ...

    def read(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """GET ``/v1/{path}``."""
        ...

    def list(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """LIST ``/v1/{path}``."""
        ...

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """POST ``/v1/{path}``."""
        ...

    def delete(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """DELETE ``/v1/{path}``."""
        ...


class Client:
    """A Vault that is limited to a scope and authenticates again, once, after a 403. Safe for many threads."""

    def __init__(self, session: Session, *, scope: Scope, address: str) -> None:
        self._session = session
        self._scope = scope
        self._address = address

    @property
    def address(self) -> str:
        """``https://host:port``."""
        return self._address

    def read(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.read``."""
        return self._call("GET", path, None, token=token, timeout_s=timeout_s)

    def list(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.list``."""
        return self._call("LIST", path, None, token=token, timeout_s=timeout_s)

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As ``Vault.write``."""
        return self._call("POST", path, body or {}, token=token, timeout_s=timeout_s)

    def delete(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """As ``Vault.delete``."""
        return self._call("DELETE", path, None, token=token, timeout_s=timeout_s)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, token: str | None, timeout_s: float | None
    ) -> Answer:
        self._scope.check_request(method, path)
        if token is not None:
            return _send(self._session.transport, method, path, body, token=token, timeout_s=timeout_s)
        grant = self._session.grant()
        try:
            return _send(grant.transport, method, path, body, token=grant.token, timeout_s=timeout_s)
        except VaultPolicyMissingError:
            if not self._session.replace_grant(instead_of=grant):
                raise
        grant = self._session.grant()
        return _send(grant.transport, method, path, body, token=grant.token, timeout_s=timeout_s)


def _send(
    transport: Transport,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
    *,
    token: str,
    timeout_s: float | None,
) -> Answer:
    """Send a request. A write is one line of the log, by which Vault's audit log is read object by object.

    The line has Vault's id of the request, which an answer without content (204) does not tell, and the id that Vault's
    audit log has as the header X-Correlation-ID. The caller binds the object's name (``services.common.logs.bound``).
    """
    if not _writes(method, path):
        return transport.send(method, path, body=body, token=token, timeout_s=timeout_s)
    correlation_id, vault_request_id, result = str(uuid.uuid4()), "", "ok"
    try:
        answer = transport.send(
            method, path, body=body, token=token, timeout_s=timeout_s, correlation_id=correlation_id
        )
        vault_request_id = answer.request_id
        return answer
    except LeasegateError as err:
        result = err.reason
        raise
    except VaultNotFoundError:
        result = "NOT_FOUND"
        raise
    finally:
        _LOG.info(
            "vault write",
            operation=method,
            path=shown(path),
            result=result,
            vault_request_id=vault_request_id,
            correlation_id=correlation_id,
        )


def _writes(method: str, path: str) -> bool:
    """Whether a request changes something: reading a credential makes a database user."""
    return method in ("POST", "DELETE") or (method == "GET" and "/creds/" in path)
