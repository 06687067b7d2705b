"""The way to one Vault server: a pool of kept-alive connections and nothing else in between.

urllib3 is used as it is, so neither proxies nor CA bundles nor tokens come from the environment; no redirect is
followed and nothing is sent twice.
"""

from __future__ import annotations

import json
import os
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, SSLError

from services.common.errors import VaultFailedError, VaultUnavailableError
from services.common.rpc import deadline
from services.common.vault import call_metrics
from services.common.vault.response import Answer, decode
from services.common.vault_config.address import Address

CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
# Vault answers with a few KiB. A team chooses the address of a target, so any server may answer there.
ANSWER_BYTES = 4 << 20
_POOL_SIZE = 64
_NAMESPACE = "X-Vault-Namespace"


class VaultUnreachedError(VaultUnavailableError):
    """No connection was made: nothing was sent, so nothing was done."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All that decides what is at the other end of a connection; two equal ones share a pool.

    Attributes:
        address: The server.
        ca_bundle: PEM certificates to trust; empty for the system's.
        insecure: Whether the server's certificate goes unchecked.
        server_name: Name to check and send; empty for the address' host.
        certificate: PEM client certificate, empty for none.
        private_key: Its PEM key.
    """

    address: Address
    ca_bundle: bytes = b""
    insecure: bool = False
    server_name: str = ""
    certificate: bytes = b""
    private_key: bytes = field(default=b"", repr=False)


class Transport:
    """Sends requests to one endpoint in one Vault namespace; safe for many threads."""

    def __init__(self, endpoint: Endpoint, *, vault_namespace: str = "") -> None:
        """Make the pool; nothing is connected.

        Raises:
            AuthCertificateError: The endpoint's client certificate cannot be used.
        """
        self.endpoint = endpoint
        self.base_uri = str(endpoint.address)
        self.namespace = vault_namespace
        self._pool = _pool(endpoint)
        self._headers = {"X-Vault-Request": "true"} | ({_NAMESPACE: vault_namespace} if vault_namespace else {})

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        token: str = "",
        timeout_s: float | None = None,
        correlation_id: str = "",
        in_root: bool = False,
    ) -> Answer:
        """Send one request, once.

        Args:
            method: GET, POST, PUT, DELETE or LIST.
            path: Below ``/v1/``, made of plain segments (``paths.is_path``), with a query if need be.
            body: Sent as JSON.
            token: Vault token; empty for calls that need none.
            timeout_s: Longest wait; 30 s unless given, never past the deadline of the call that is being handled.
            correlation_id: Sent as X-Correlation-ID, for Vault's audit log.
            in_root: Whether the Vault namespace is left out: sys/health is the server's, and OpenBao answers 400 for
                it in any namespace.

        Raises:
            VaultUnreachedError: No connection was made.
            VaultUnavailableError: It broke off or took too long: what Vault did is not known.
            DeadlineTooShortError: The caller's deadline has passed; nothing was sent.
            LeasegateError: As ``response.decode`` raises it.
            VaultNotFoundError: 404.
        """
        budget_s = deadline.timeout_s(CALL_TIMEOUT_S if timeout_s is None else timeout_s)
        headers = {name: value for name, value in self._headers.items() if not (in_root and name == _NAMESPACE)}
        if token:
            headers["X-Vault-Token"] = token
        if correlation_id:
            headers["X-Correlation-ID"] = correlation_id
        payload = None if body is None else json.dumps(body).encode()
        with call_metrics.measured(method, path) as call:
            try:
                status, raw, retry_after = self._exchange(method, f"/v1/{path}", payload, headers, budget_s)
            except VaultUnreachedError:
                call.code = call_metrics.UNREACHABLE
                raise
            call.answered(status)
        return decode(status, raw, path=path, address=self.base_uri, sent=body, retry_after=retry_after)

    def _exchange(
        self, method: str, url: str, payload: bytes | None, headers: dict[str, str], budget_s: float
    ) -> tuple[int, bytes, str]:
        end = time.monotonic() + budget_s
        try:
            response = self._pool.urlopen(
                method,
                url,
                payload,
                headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, budget_s), read=budget_s),
                preload_content=False,
                decode_content=False,
            )
            return response.status, _read(response, end=end), response.headers.get("Retry-After", "")
        except (HTTPError, _TooSlowError) as err:
            raise _unavailable(err, self.base_uri, budget_s=budget_s) from err

    def close(self) -> None:
        """Close all idle connections."""
        self._pool.close()


class AuthCertificateError(ValueError):
    """A client certificate and key that do not fit each other or cannot be read."""


class _TooSlowError(Exception):
    """An answer that began in time and was not whole in time: to a caller the same as one that never came."""


class _Unchecked(HTTPSConnection):
    """A connection that does not check the server's certificate, as its owner asked; it keeps urllib3 from warning."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


def _pool(endpoint: Endpoint) -> urllib3.HTTPConnectionPool:
    host, port = endpoint.address.host, endpoint.address.port
    if not endpoint.address.tls:
        return urllib3.HTTPConnectionPool(host, port, maxsize=_POOL_SIZE)
    pool = urllib3.HTTPSConnectionPool(
        host, port, maxsize=_POOL_SIZE, ssl_context=_context(endpoint), server_hostname=endpoint.server_name or None
    )
    if endpoint.insecure:
        pool.ConnectionCls = _Unchecked
    return pool


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=endpoint.ca_bundle.decode("ascii") or None)
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if endpoint.certificate:
        with _as_file(endpoint.certificate + b"\n" + endpoint.private_key) as path:
            try:
                context.load_cert_chain(path, password=lambda: b"")  # a key with a passphrase is refused, not asked for
            except (ssl.SSLError, ValueError) as err:
                raise AuthCertificateError(
                    "the client certificate and its key cannot be read, or do not belong together"
                ) from err
    return context


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Write a file for OpenSSL, which reads private keys from files alone.

    The file is in memory where the system supports that, else it exists for a moment with mode 600.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("leasegate", os.MFD_CLOEXEC), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def _read(response: urllib3.BaseHTTPResponse, *, end: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.read1(1 << 16):
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES:
            response.close()
            raise VaultFailedError("the answer is too large to be Vault's", path="")
        if time.monotonic() > end:
            response.close()
            raise _TooSlowError
    response.release_conn()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unavailable(err: HTTPError | _TooSlowError, address: str, *, budget_s: float) -> VaultUnavailableError:
    if isinstance(err, SSLError):
        return _tls_problem(err, address)
    if isinstance(err, NameResolutionError):
        return VaultUnreachedError(f"Vault's address {address} has a host name that is not known", address=address)
    if isinstance(err, ConnectTimeoutError | NewConnectionError):
        return VaultUnreachedError(f"Vault at {address} cannot be connected to", address=address)
    if isinstance(err, urllib3.exceptions.TimeoutError | _TooSlowError):
        return VaultUnavailableError(f"Vault at {address} did not answer within {budget_s:.1f} s", address=address)
    return VaultUnavailableError(f"the connection to Vault at {address} broke off", address=address)


def _tls_problem(err: SSLError, address: str) -> VaultUnavailableError:
    cause = err.args[0] if err.args else err
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "look at caBundle and at the names in the certificate"
        return VaultUnreachedError(
            f"Vault at {address} proves no identity that is trusted ({cause.verify_message}): {hint}", address=address
        )
    return VaultUnavailableError(f"TLS with Vault at {address} failed: look at its scheme and port", address=address)
