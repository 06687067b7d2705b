"""Where the tests of rights start: the manifests, an enabled namespace, fast RBAC, and the watcher as in a pod."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.eventually import eventually
from tests.integration.kube import WATCHER, Can, Kube, Running, new_namespace

RBAC = Path(__file__).parents[2] / "deploy/rbac"
RBAC_GROUP = "rbac.authorization.k8s.io"


def enabled_namespace(cluster: Running) -> str:
    """Create a namespace and enable it."""
    name = new_namespace(cluster)
    cluster.kubectl("apply", "-n", name, "-f", str(RBAC / "enabled-namespace.yaml"))
    return name


def watcher_by_token(cluster: Running, namespace: str) -> Kube:
    """The watcher by a token of its own, once its rights in an enabled namespace are in force."""
    token = cluster.kubectl("create", "token", "leasegate-watcher", "-n", "leasegate-system").stdout.strip()
    kube = Kube(cluster, token=token)
    eventually(lambda: kube.call("GET", f"api/v1/namespaces/{namespace}/secrets"), what="the watcher's rights in force")
    return kube


@contextmanager
def fast_rbac(cluster: Running, namespace: str) -> Iterator[None]:
    """Apply fast-rbac.yaml inside, from when it is in force in an enabled namespace; afterwards until it is not."""
    can = Can(Kube(cluster), user=WATCHER)

    def granting() -> set[str]:
        return {verb for verb in ("escalate", "bind") if can(verb, "roles", group=RBAC_GROUP, namespace=namespace)}

    cluster.kubectl("apply", "-f", str(RBAC / "fast-rbac.yaml"))
    try:
        eventually(lambda: granting() == {"escalate", "bind"}, timeout_s=60, what="fast RBAC in force")
        yield
    finally:
        cluster.kubectl("delete", "-f", str(RBAC / "fast-rbac.yaml"))
        eventually(lambda: not granting(), timeout_s=60, what="fast RBAC removed")
