"""Where the tests of rights start: the manifests, a namespace that the watcher serves, and the watcher there as in a pod."""

from __future__ import annotations

from pathlib import Path

from tests.eventually import eventually
from tests.integration.kube import Kube, Running, new_namespace

RBAC = Path(__file__).parents[2] / "deploy/rbac"
RBAC_GROUP = "rbac.authorization.k8s.io"


def enabled_namespace(cluster: Running) -> str:
    """Make a namespace that the watcher serves."""
    name = new_namespace(cluster)
    cluster.kubectl("apply", "-n", name, "-f", str(RBAC / "enabled-namespace.yaml"))
    return name


def watcher_by_token(cluster: Running, namespace: str) -> Kube:
    """The watcher by a token of its own, once its rights in a served namespace are in force."""
    token = cluster.kubectl("create", "token", "leasegate-watcher", "-n", "leasegate-system").stdout.strip()
    kube = Kube(cluster, token=token)
    eventually(lambda: kube.call("GET", f"api/v1/namespaces/{namespace}/secrets"), what="the watcher's rights in force")
    return kube
