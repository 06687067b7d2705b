"""A Vault API client of one page: JSON over HTTPS, no redirects, no proxies, nothing read from the environment.

It needs the standard library alone, so that an operator can run the set-up without the services' dependencies.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

_ERROR_CHARS = 300


class VaultError(RuntimeError):
    """Vault could not be reached or refused a call. The text holds no secret: Vault names paths, never values."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Vault said: HTTP status and decoded body (empty where there is none)."""

    status: int
    body: dict[str, Any] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the call was carried out."""
        return self.status < 300

    @property
    def errors(self) -> str:
        """Vault's own words, cut short."""
        return "; ".join(str(error).strip() for error in self.body.get("errors") or ())[:_ERROR_CHARS]


@dataclass(frozen=True, slots=True)
class VaultApi:
    """One Vault server and one token.

    Attributes:
        address: Scheme, host and port, such as ``https://vault:8200``; without a port that of the scheme, as everywhere
            else.
        ca: PEM file to verify the server with; None for the system's own authorities.
        token: Sent with every call; None for the calls that need none.
        namespace: Vault namespace, sent as a header if given.
        timeout_s: Longest wait for one answer.
    """

    address: str
    ca: Path | None = None
    token: str | None = field(default=None, repr=False)
    namespace: str | None = None
    timeout_s: float = 30

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send one request.

        Args:
            method: HTTP method, or LIST.
            path: Below ``/v1/``, not encoded.
            body: Sent as JSON if given.

        Raises:
            VaultError: No answer came, or the address or the authority's file cannot be used.
        """
        connection = self._connection()
        try:
            connection.request(
                method, f"/v1/{quote(path)}", None if body is None else json.dumps(body), self._headers()
            )
            answer = connection.getresponse()
            return Answer(answer.status, _decode(answer.read()))
        except ssl.SSLCertVerificationError as err:
            trusted = f"the authorities of {self.ca}" if self.ca else "the system's authorities"
            raise VaultError(
                f"{self.address} proves no identity to {trusted} ({err.verify_message}): name the file of the authority"
                " that signed the server's certificate, and a host that is in it"
            ) from err
        except ssl.SSLError as err:
            raise VaultError(
                f"{self.address} does not answer as https needs it ({err.reason}): look at its scheme and port"
            ) from err
        except (OSError, http.client.HTTPException) as err:
            raise VaultError(f"{self.address} did not answer: {err}") from err
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        try:
            url = urlsplit(self.address)
            scheme, host, port = url.scheme.lower(), url.hostname, url.port
        except ValueError:
            scheme, host, port = "", None, None
        if scheme not in ("http", "https") or not host:
            raise VaultError(f"{self.address} is no http or https address")
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as err:
            raise VaultError(f"{self.ca} cannot be read as certificates to verify {self.address} with: {err}") from err
        return http.client.HTTPSConnection(host, port, timeout=self.timeout_s, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
