"""For now: a Kubernetes control plane for these tests, until the local stack provides the fixture ``cluster`` in tests/conftest.py.

The binary that is etcd, kube-apiserver and kube-controller-manager is named by LEASEGATE_KUBE_BINARY. Delete this file once the stack is there.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
KUBECTL = Path(sys.executable).with_name("kubectl")
USERS = {"admin": "system:masters", "alice": "dev", "bob": "approvers", "carol": "", "kcm": ""}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running control plane with all of deploy/ applied, and how to ask it things as one of its users."""

    kubeconfig: Path

    def kubectl(
        self, *args: str, context: str = "admin", input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the user of ``context``; with ``check`` a failure is raised with what kubectl said."""
        command = [str(KUBECTL), "--kubeconfig", str(self.kubeconfig), "--context", context, *args]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)} as {context}: {done.stderr}")
        return done


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("kube")
    running: list[subprocess.Popen[bytes]] = []
    try:
        yield _start(folder, running)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=30)


def _start(folder: Path, running: list[subprocess.Popen[bytes]]) -> Cluster:
    ports = dict(zip(("etcd", "peer", "api", "kcm"), _free_ports(4), strict=True))
    etcd = f"http://127.0.0.1:{ports['etcd']}"
    config = _write_files(folder, port=ports["api"])
    cluster = Cluster(kubeconfig=config)
    peer = f"http://127.0.0.1:{ports['peer']}"
    _run(folder, running, "etcd", f"--data-dir=etcd --listen-client-urls={etcd} --advertise-client-urls={etcd} --listen-peer-urls={peer}")
    _run(
        folder,
        running,
        "kube-apiserver",
        f"--etcd-servers={etcd} --cert-dir=certs --secure-port={ports['api']} --bind-address=127.0.0.1 --authorization-mode=RBAC "
        "--service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.key --service-account-signing-key-file=sa.key "
        "--token-auth-file=tokens.csv --service-cluster-ip-range=10.0.0.0/24 --api-audiences=https://kubernetes.default.svc,vault",
    )
    eventually(lambda: cluster.kubectl("get", "--raw=/readyz", check=False).stdout == "ok", timeout_s=90, what="ready apiserver")
    _run(
        folder,
        running,
        "kube-controller-manager",
        f"--bind-address=127.0.0.1 --secure-port={ports['kcm']} --kubeconfig=kcm.yaml --service-account-private-key-file=sa.key "
        "--use-service-account-credentials=true --leader-elect=false --controllers=garbage-collector-controller,namespace-controller,"
        "serviceaccount-controller,clusterrole-aggregation-controller,validatingadmissionpolicy-status-controller",
    )
    _install(cluster)
    return cluster


def _install(cluster: Cluster) -> None:
    for part in sorted((ROOT / "deploy").glob("crds/*.yaml")) + sorted((ROOT / "deploy").glob("policies/*.yaml")):
        cluster.kubectl("apply", "-f", str(part))
    for part in sorted((ROOT / "deploy").glob("rbac/*.yaml")):
        if part.name != "served-namespace.yaml":  # it is applied to each namespace that is to be served
            cluster.kubectl("apply", "-f", str(part))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    for kind in ("appbindings", "secretengines", "postgresroles", "databaseaccessrequests"):
        eventually(lambda kind=kind: not cluster.kubectl("get", kind, "-A", check=False).returncode, what=kind)  # type: ignore[misc]


def _run(folder: Path, running: list[subprocess.Popen[bytes]], name: str, flags: str) -> None:
    with (folder / f"{name}.log").open("wb") as log:
        command = [os.environ["LEASEGATE_KUBE_BINARY"], name, *flags.split()]
        running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))


def _write_files(folder: Path, *, port: int) -> Path:
    (folder / "certs").mkdir()
    subprocess.run(["openssl", "genrsa", "-out", str(folder / "sa.key"), "2048"], check=True, capture_output=True)
    tokens = {user: secrets.token_hex(16) for user in USERS}
    names = {"kcm": "system:kube-controller-manager"}
    lines = [f'{tokens[user]},{names.get(user, user)},{number},"{group}"' for number, (user, group) in enumerate(USERS.items())]
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")
    for name, current in (("kubeconfig.yaml", "admin"), ("kcm.yaml", "kcm")):
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": current,
            "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
            "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
            "contexts": [{"name": user, "context": {"cluster": "c", "user": user}} for user in USERS],
        }
        (folder / name).write_text(yaml.safe_dump(config))
    return folder / "kubeconfig.yaml"


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    numbers = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return numbers
