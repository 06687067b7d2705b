"""Asks a server's health page; for readiness checks alone."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_S = 5


def https_status(url: str, *, ca: Path) -> int | None:
    """HTTP status of a GET, or None if no answer came."""
    try:
        return _status(url, ssl.create_default_context(cafile=str(ca)))
    except OSError:
        return None


def http_status(url: str) -> int | None:
    """HTTP status of a GET without TLS, or None if no answer came."""
    return _status(url, None)


def _status(url: str, context: ssl.SSLContext | None) -> int | None:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    secure = None if context is None else http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
    connection = secure or http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
