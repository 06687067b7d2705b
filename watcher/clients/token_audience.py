"""Whether the API server takes tokens of an audience as its own: such a token, sent to Vault, opens Kubernetes, too."""

from __future__ import annotations

import urllib3

from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import Connection
from watcher.kube.resources import SELF_SUBJECT_REVIEW, SERVICE_ACCOUNT, Body, Key

_SECONDS = 600
_PREFIX = "system:serviceaccount:"
_CLIENT_CERTIFICATE = frozenset({"cert_file", "key_file", "key_password"})
_TIMEOUT_S = 10.0


def is_of_api_server(connection: Connection, audience: str, *, fallback: Key) -> bool:
    """Make a token of this process' ServiceAccount with the audience, and try it at the API server.

    Args:
        connection: How this process calls the API server.
        audience: The audience.
        fallback: The ServiceAccount to use where this process runs as none.

    Returns:
        Whether the API server accepts the token; 401 is the one answer that says that it does not.

    Raises:
        KubeError: The token could not be made, or the API server does not answer.
    """
    api = HttpKubeClient(connection)
    account = _own_account(api) or fallback
    spec: Body = {"audiences": [audience], "expirationSeconds": _SECONDS}
    body: Body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = api.create(SERVICE_ACCOUNT, body, namespace=account.namespace, name=account.name, subresource="token")
    return _status(connection, str(made["status"]["token"])) != 401


def _own_account(api: HttpKubeClient) -> Key | None:
    review = {"apiVersion": SELF_SUBJECT_REVIEW.api_version, "kind": SELF_SUBJECT_REVIEW.kind}
    answer = api.create(SELF_SUBJECT_REVIEW, review, namespace="")
    user = str(answer["status"]["userInfo"].get("username", ""))
    namespace, _, name = user.removeprefix(_PREFIX).partition(":")
    return Key(namespace, name) if user.startswith(_PREFIX) else None


def _status(connection: Connection, token: str) -> int:
    """What the API server answers to this token alone, without this process' own certificate."""
    given = connection.pool.connection_pool_kw.items()
    options = {name: value for name, value in given if name not in _CLIENT_CERTIFICATE and not name.startswith("_")}
    proxy = connection.pool.proxy
    pool = urllib3.ProxyManager(proxy.url, **options) if proxy else urllib3.PoolManager(**options)
    try:
        answer = pool.request(
            "GET",
            f"{connection.server}/api",
            headers={"Authorization": f"Bearer {token}"},
            timeout=urllib3.Timeout(total=_TIMEOUT_S),
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as err:
        raise KubeError(f"Kubernetes does not answer: {type(err).__name__}", status=0) from err
    finally:
        pool.clear()
    return answer.status
