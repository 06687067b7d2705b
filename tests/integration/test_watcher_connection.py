"""How the watcher reaches the API server: plain configurations by itself, all others by the official client."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev.stack.stack import LocalStack
from tests.integration.watcher_stack import watcher_kubeconfig
from watcher.kube import connection
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import ConnectionConfigError, connect
from watcher.kube.resources import NAMESPACE

Change = Callable[[dict[str, Any], Path], None]


@pytest.fixture
def config(cluster: LocalStack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(watcher_kubeconfig(cluster).read_text())
    return found


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The kubeconfigs that were left to the official client."""
    used: list[str | None] = []
    by_official_client = connection._by_official_client

    def recorded(kubeconfig: str | None, *, pool_size: int, in_cluster: bool) -> connection.Connection:
        used.append(kubeconfig)
        return by_official_client(kubeconfig, pool_size=pool_size, in_cluster=in_cluster)

    monkeypatch.setattr(connection, "_by_official_client", recorded)
    return used


def cluster_of(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["clusters"]))["cluster"]  # type: ignore[no-any-return]


def user_of(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["users"]))["user"]  # type: ignore[no-any-return]


def as_it_is(_config: dict[str, Any], _folder: Path) -> None:
    pass


def with_token_file(config: dict[str, Any], folder: Path) -> None:
    (folder / "token").write_text(user_of(config).pop("token") + "\n")
    user_of(config)["tokenFile"] = "token"


def with_ca_file(config: dict[str, Any], folder: Path) -> None:
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster_of(config).pop("certificate-authority-data")))
    cluster_of(config)["certificate-authority"] = "ca.crt"


def with_exec_plugin(config: dict[str, Any], folder: Path) -> None:
    api = "client.authentication.k8s.io/v1"
    answer = {"apiVersion": api, "kind": "ExecCredential", "status": {"token": user_of(config).pop("token")}}
    (folder / "answer.json").write_text(json.dumps(answer))
    user_of(config)["exec"] = {
        "apiVersion": api,
        "command": "/bin/cat",
        "args": [str(folder / "answer.json")],
        "interactiveMode": "Never",
    }


def with_server_name(config: dict[str, Any], _folder: Path) -> None:
    cluster_of(config)["tls-server-name"] = "kubernetes.default"


@pytest.mark.parametrize(
    ("change", "left_to_it"),
    [
        (as_it_is, False),
        (with_token_file, False),
        (with_ca_file, False),
        (with_exec_plugin, True),
        (with_server_name, True),
    ],
)
def test_a_kubeconfig_works(
    config: dict[str, Any], official: list[str | None], tmp_path: Path, change: Change, left_to_it: bool
) -> None:
    change(config, tmp_path)
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    api = HttpKubeClient(connect(str(path), pool_size=2))
    assert api.get(NAMESPACE, name="kube-system")["metadata"]["name"] == "kube-system"
    assert bool(official) is left_to_it


def test_the_file_that_kubeconfig_names_is_used(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert HttpKubeClient(connect(None, pool_size=2)).get(NAMESPACE, name="kube-system")


def test_a_proxy_is_left_to_the_official_client(
    config: dict[str, Any], official: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    with pytest.raises(KubeError):
        HttpKubeClient(connect(str(path), pool_size=2)).get(NAMESPACE, name="kube-system")
    assert official == [str(path)]


def test_a_server_of_another_authority_is_refused(config: dict[str, Any], cluster: LocalStack, tmp_path: Path) -> None:
    other = base64.b64encode(cluster.vault_ca.read_bytes()).decode()
    cluster_of(config)["certificate-authority-data"] = other
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    with pytest.raises(KubeError, match="does not answer: SSLError"):
        HttpKubeClient(connect(str(path), pool_size=2)).get(NAMESPACE, name="kube-system")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "current-context: nowhere\ncontexts: []\nclusters: []\nusers: []\n", "kind: Config"]
)
def test_a_configuration_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConnectionConfigError):
        connect(str(path), pool_size=2)


class Pod:
    """The environment and the files that a pod has, for the API server of the local stack."""

    def __init__(self, config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.token, self._folder = str(user_of(config)["token"]), folder
        _, host, port = cluster_of(config)["server"].rsplit(":", 2)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host.strip("/"))
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        monkeypatch.setattr(connection, "SERVICE_ACCOUNT", folder)
        (folder / "ca.crt").write_bytes(base64.b64decode(cluster_of(config)["certificate-authority-data"]))
        self.write_token(self.token)

    def write_token(self, token: str) -> None:
        """Replace the token as the kubelet does."""
        part = self._folder / "token.new"
        part.write_text(token)
        part.replace(self._folder / "token")


@pytest.fixture
def pod(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(config, tmp_path, monkeypatch)


def test_a_pod_uses_its_service_account(pod: Pod, official: list[str | None]) -> None:
    api = HttpKubeClient(connect(None, pool_size=2, in_cluster=True))
    assert api.get(NAMESPACE, name="kube-system")
    assert official == []


def test_a_replaced_token_is_read(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TOKEN_S", -1.0)  # each call is later than that
    pod.write_token("not-a-token")
    api = HttpKubeClient(connect(None, pool_size=2, in_cluster=True))
    with pytest.raises(KubeError) as caught:
        api.get(NAMESPACE, name="kube-system")
    assert caught.value.status == 401
    pod.write_token(pod.token)
    assert api.get(NAMESPACE, name="kube-system")


def test_a_token_file_that_is_empty_for_a_moment_changes_nothing(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TOKEN_S", -1.0)
    api = HttpKubeClient(connect(None, pool_size=2, in_cluster=True))
    pod.write_token("")
    assert api.get(NAMESPACE, name="kube-system")


def test_outside_a_pod_the_service_account_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(ConnectionConfigError, match="Service host/port"):
        connect(None, pool_size=2, in_cluster=True)


def test_no_token_is_in_a_repr(pod: Pod) -> None:
    found = connect(None, pool_size=2, in_cluster=True)
    assert pod.token not in repr(found)
    assert pod.token not in repr(found.headers)
    assert found.headers() == {"Authorization": f"Bearer {pod.token}"}
