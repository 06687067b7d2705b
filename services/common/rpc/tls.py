"""Certificates from files for gRPC: client certificates are always required, and files that change are read again."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import grpc

from services.common import logs
from services.common.config import ClientTls, ServerTls, StartupRefusedError

_log = logs.logger(__name__)


class Files:
    """Files that somebody may replace while the process runs."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._seen = self._versions()

    def changed(self) -> bool:
        """Whether any of them changed since the last time this was asked."""
        before, self._seen = self._seen, self._versions()
        return before != self._seen

    def _versions(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_version(path) for path in self._paths)


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Credentials of a server that accepts only clients of ``tls.client_ca``.

    Changed files are used from the next connection on, without a restart; while they do not fit together the old ones
    stay in use.

    Raises:
        StartupRefusedError: A file cannot be read or is not what it should be.
    """
    first = _configuration(tls)
    return grpc.dynamic_ssl_server_credentials(
        first,
        _reloader(tls),  # type: ignore[arg-type]  # None is documented: "no change"
        require_client_authentication=True,
    )


def channel_credentials(tls: ClientTls) -> grpc.ChannelCredentials:
    """Credentials of a client.

    Raises:
        StartupRefusedError: A file cannot be read or is not what it should be.
    """
    check_files(cert=tls.cert, key=tls.key, ca=tls.ca)
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.cert))


def check_files(*, cert: Path, key: Path, ca: Path) -> None:
    """Check that the files have a certificate, its key and an authority.

    Raises:
        StartupRefusedError: They have not.
    """
    for path in (cert, key, ca):
        _read(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as err:
        raise StartupRefusedError(f"{cert} and {key} are no PEM certificate and its unencrypted private key") from err
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError as err:
        raise StartupRefusedError(f"{ca} holds no PEM certificate") from err


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise StartupRefusedError(f"{path}: {err.strerror}") from err


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    check_files(cert=tls.cert, key=tls.key, ca=tls.client_ca)
    return grpc.ssl_server_certificate_configuration(
        [(_read(tls.key), _read(tls.cert))], root_certificates=_read(tls.client_ca)
    )


def _reloader(tls: ServerTls) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    """What gRPC calls at every handshake: None keeps what is in use."""
    files = Files(tls.cert, tls.key, tls.client_ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        if not files.changed():
            return None
        try:
            found = _configuration(tls)
        except StartupRefusedError as err:
            _log.warning("changed certificate files are not used", problem=err.message)
            return None
        _log.info("changed certificate files are used from now on")
        return found

    return fetch


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
