"""Where the API server is, and how the watcher authenticates there.

The official client takes 18 MiB of memory (docs/adr/0058-footprint-by-imports.md), and is loaded where it is needed:
for exec plugins, auth providers, client certificates, proxies, and for configurations with a mistake, which it
explains. A pod's ServiceAccount, and a kubeconfig that has a server, its CA and a token, need nothing of it.
"""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import urllib3
import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod has its token and the CA
(https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api)."""
TOKEN_S = 60.0
"""So long a token that was read from a file is used, as in client-go; its file is replaced before it expires."""
HEADERS_S = 1.0
"""So long the official client's headers are used again; it renews a token minutes before it expires."""

_KEEP_ALIVE = [
    *urllib3.connection.HTTPConnection.default_socket_options,
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
_PLAIN_CLUSTER = {"server", "certificate-authority", "certificate-authority-data"}
_PLAIN_USER = {"token", "tokenFile"}


class ConnectionConfigError(Exception):
    """There is no usable configuration."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to call the API server.

    Attributes:
        server: Its URL, without a slash at the end.
        pool: Connections, which are kept alive.
        headers: Returns the headers that authenticate a call; called for each one, safe for threads.
    """

    server: str
    pool: urllib3.PoolManager
    headers: Callable[[], Mapping[str, str]]


def connect(kubeconfig: str | None, *, pool_size: int, in_cluster: bool = False) -> Connection:
    """Connect with a kubeconfig file, or with the ServiceAccount of the pod that this process runs in.

    Args:
        kubeconfig: The file; None for the one that KUBECONFIG names.
        pool_size: Number of connections that are kept alive; at least the number of calling threads.
        in_cluster: Whether to use the pod's ServiceAccount in place of a file.

    Raises:
        ConnectionConfigError: There is no usable configuration.
    """
    if in_cluster:
        found = _of_pod(SERVICE_ACCOUNT, pool_size=pool_size)
    else:
        found = _of_file(Path(kubeconfig or os.environ.get("KUBECONFIG", "")), pool_size=pool_size)
    return found or _by_official_client(kubeconfig, pool_size=pool_size, in_cluster=in_cluster)


def _of_pod(folder: Path, *, pool_size: int) -> Connection | None:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    token, ca = folder / "token", folder / "ca.crt"
    if not (host and port and token.is_file() and ca.is_file()) or _proxied():
        return None
    try:
        headers = _FileToken(token)
    except (OSError, ValueError):
        return None  # the official client says what is wrong
    address = f"[{host}]" if ":" in host else host
    return Connection(f"https://{address}:{port}", _pool(pool_size, ca_certs=str(ca)), headers)


def _of_file(path: Path, *, pool_size: int) -> Connection | None:
    """A connection by a kubeconfig that has no more than a server, its CA and a token; None for any other."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        plain = cluster.keys() <= _PLAIN_CLUSTER and user.keys() <= _PLAIN_USER and not _proxied()
        if not plain or not cluster["server"].startswith("https://"):
            return None
        headers = _FileToken(path.parent / user["tokenFile"]) if "tokenFile" in user else _FixedToken(user["token"])
        return Connection(cluster["server"].rstrip("/"), _pool(pool_size, **_ca(cluster, path.parent)), headers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, yaml.YAMLError):
        return None  # the official client says what is wrong


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def _ca(cluster: Mapping[str, str], folder: Path) -> dict[str, str]:
    if data := cluster.get("certificate-authority-data"):
        return {"ca_cert_data": base64.b64decode(data, validate=True).decode()}
    file = folder / cluster["certificate-authority"]
    if not file.is_file():
        raise ValueError(f"{file} is no file")
    return {"ca_certs": str(file)}


def _proxied() -> bool:
    """Whether the environment may name a proxy for the API server."""
    return bool({"https", "all"} & getproxies().keys())


def _pool(size: int, **ca: Any) -> urllib3.PoolManager:
    return urllib3.PoolManager(maxsize=size, cert_reqs="CERT_REQUIRED", socket_options=_KEEP_ALIVE, **ca)


class _FixedToken:
    """A token of the configuration itself."""

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("the token is empty")
        self._headers = {"Authorization": f"Bearer {token}"}

    def __call__(self) -> Mapping[str, str]:
        return self._headers


class _FileToken:
    """A token in a file that is replaced before the token expires."""

    def __init__(self, file: Path) -> None:
        self._file, self._read = file, (time.monotonic(), self._headers(file))

    def __call__(self) -> Mapping[str, str]:
        read_at, headers = self._read
        now = time.monotonic()
        if now - read_at > TOKEN_S:
            with suppress(OSError, ValueError):  # while the file is replaced, the token before is still valid
                headers = self._headers(self._file)
            self._read = (now, headers)
        return headers

    @staticmethod
    def _headers(file: Path) -> Mapping[str, str]:
        token = file.read_text().strip()
        if not token:
            raise ValueError(f"{file} is empty")
        return {"Authorization": f"Bearer {token}"}


def _by_official_client(kubeconfig: str | None, *, pool_size: int, in_cluster: bool) -> Connection:
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as err:
        raise ConnectionConfigError(str(err)) from err
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as err:  # whose text may quote it
        raise ConnectionConfigError(f"the file is no kubeconfig ({type(err).__name__})") from None
    configuration.connection_pool_maxsize = pool_size
    configuration.keep_alive = True
    pool: urllib3.PoolManager = client.ApiClient(configuration).rest_client.pool_manager
    return Connection(str(configuration.host), pool, _OfficialHeaders(configuration))


class _OfficialHeaders:
    """The official client's headers, kept for a moment, as it makes them slowly."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration
        self._made: tuple[float, Mapping[str, str]] = (float("-inf"), {})

    def __call__(self) -> Mapping[str, str]:
        made_at, headers = self._made
        now = time.monotonic()
        if now - made_at > HEADERS_S:
            headers = {setting["key"]: setting["value"] for setting in self._configuration.auth_settings().values()}
            self._made = (now, headers)
        return headers
