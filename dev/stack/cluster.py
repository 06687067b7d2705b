"""A Kubernetes control plane without nodes: etcd, kube-apiserver and kube-controller-manager, with TLS and tokens.

It runs no Pods, and has everything else that Leasegate needs of Kubernetes: custom resources, admission policies, RBAC,
TokenRequest and TokenReview, garbage collection, deletion of namespaces.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dev.stack.certificates import Authority
from dev.stack.http_probe import https_status
from dev.stack.kube_programs import KubePrograms
from dev.stack.ports import Ports
from dev.stack.processes import Command, Process

PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager")
# User and group of each context; the API server identifies them by tokens.
USERS = {"admin": "system:masters", "alice": "dev", "bob": "approvers", "carol": ""}
_MANAGER = "system:kube-controller-manager"
_CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)
_ISSUER = "https://kubernetes.default.svc"


class ControlPlane(Protocol):
    """A Kubernetes cluster, local or external."""

    kubeconfig: Path
    ca: Path
    server: str

    @property
    def processes(self) -> tuple[Process, ...]:
        """The local processes."""
        ...

    def prepare(self) -> None:
        """Write what is needed to start it or to reach it."""
        ...

    def start(self) -> None:
        """Start it and wait until it is ready."""
        ...

    def kubeconfig_for(self, user: str, *, token: str) -> dict[str, Any]:
        """A kubeconfig for one user with a token."""
        ...


class Cluster:
    """The three processes and their files."""

    def __init__(self, directory: Path, *, ports: Ports, programs: KubePrograms, **process_options: Any) -> None:
        """Describe the control plane of ``directory`` (the stack's folder); nothing is started."""
        self._folder, self._ports, self._programs = directory / "kube", ports, programs
        self.kubeconfig = directory / "kubeconfig"
        self.server = f"https://127.0.0.1:{ports['kube-apiserver']}"
        self.ca = self._folder / "tls" / "ca.crt"

        def process(name: str, *, command: Any, ready: Any, releases: tuple[str, ...]) -> Process:
            before = lambda: ports.release(*releases)  # noqa: E731
            return Process(
                name, directory=directory, command=command, ready=ready, before_start=before, **process_options
            )

        self.etcd = process("etcd", command=self._etcd, ready=lambda: True, releases=PORTS[:2])
        self.apiserver = process(
            "kube-apiserver", command=self._apiserver, ready=self._apiserver_ready, releases=PORTS[2:3]
        )
        self.manager = process(
            "kube-controller-manager", command=self._controller_manager, ready=self._manager_ready, releases=PORTS[3:]
        )
        self.processes = (self.etcd, self.apiserver, self.manager)

    def prepare(self) -> None:
        """Write certificates, keys, tokens and kubeconfigs."""
        self._folder.mkdir(mode=0o700)
        authority = Authority(self._folder / "tls")
        names = ("localhost", "127.0.0.1", "10.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        authority.server("kube-apiserver", hosts=names)
        authority.server("kube-controller-manager")
        etcd = Authority(self._folder / "etcd-tls")
        etcd.server("etcd")
        etcd.client("kube-apiserver")
        _write_private(self._folder / "service-accounts.key", _rsa_key())
        tokens = {user: secrets.token_hex(20) for user in (*USERS, _MANAGER)}
        groups = USERS | {_MANAGER: ""}
        lines = [f'{token},{user},{number},"{groups[user]}"' for number, (user, token) in enumerate(tokens.items())]
        _write_private(self._folder / "tokens.csv", "\n".join(lines) + "\n")
        self._write_kubeconfig(self.kubeconfig, {user: tokens[user] for user in USERS})
        self._write_kubeconfig(self._folder / "controller-manager.kubeconfig", {_MANAGER: tokens[_MANAGER]})

    def start(self) -> None:
        """Start all three and wait until they are ready."""
        self.etcd.start()
        self.apiserver.start()  # tries etcd until that answers
        self.apiserver.wait_ready()
        self.manager.start()
        self.manager.wait_ready()

    def kubeconfig_for(self, user: str, *, token: str) -> dict[str, Any]:
        """A kubeconfig for one user with a token."""
        return self._kubeconfig({user: token})

    def _write_kubeconfig(self, path: Path, tokens: dict[str, str]) -> None:
        _write_private(path, json.dumps(self._kubeconfig(tokens), indent=1))  # JSON is YAML, too

    def _kubeconfig(self, tokens: dict[str, str]) -> dict[str, Any]:
        cluster = {"server": self.server, "certificate-authority-data": _base64(self.ca)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}} for user, token in tokens.items()],
            "contexts": [{"name": user, "context": {"cluster": "local", "user": user}} for user in tokens],
            "current-context": next(iter(tokens)),
        }

    def _etcd(self) -> Command:
        tls, own = self._folder / "etcd-tls", f"https://127.0.0.1:{self._ports['etcd']}"
        peer = f"https://127.0.0.1:{self._ports['etcd-peer']}"
        flags = {
            "data-dir": self._folder / "etcd",
            "listen-client-urls": own,
            "advertise-client-urls": own,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "cert-file": tls / "etcd.crt",
            "key-file": tls / "etcd.key",
            "trusted-ca-file": tls / "ca.crt",
            "client-cert-auth": "true",
            "peer-cert-file": tls / "etcd.crt",
            "peer-key-file": tls / "etcd.key",
            "peer-trusted-ca-file": tls / "ca.crt",
            "peer-client-cert-auth": "true",
            "enable-grpc-gateway": "false",  # it would call its own server with the server's certificate
            "unsafe-no-fsync": "true",  # a stack that is thrown away needs no protection from a power cut
        }
        return Command([*self._programs.etcd, *_flags(flags)])

    def _apiserver(self) -> Command:
        tls, etcd_tls = self._folder / "tls", self._folder / "etcd-tls"
        flags = {
            "etcd-servers": f"https://127.0.0.1:{self._ports['etcd']}",
            "etcd-cafile": etcd_tls / "ca.crt",
            "etcd-certfile": etcd_tls / "kube-apiserver.crt",
            "etcd-keyfile": etcd_tls / "kube-apiserver.key",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self._ports["kube-apiserver"],
            "tls-cert-file": tls / "kube-apiserver.crt",
            "tls-private-key-file": tls / "kube-apiserver.key",
            "authorization-mode": "RBAC",
            "token-auth-file": self._folder / "tokens.csv",
            "service-account-issuer": _ISSUER,
            "service-account-key-file": self._folder / "service-accounts.key",
            "service-account-signing-key-file": self._folder / "service-accounts.key",
            "service-cluster-ip-range": "10.0.0.0/24",
            "api-audiences": _ISSUER,  # Vault's audience is none of them: a token for Vault opens nothing here
            "endpoint-reconciler-type": "none",
        }
        return Command([*self._programs.apiserver, *_flags(flags)])

    def _controller_manager(self) -> Command:
        tls, config = self._folder / "tls", self._folder / "controller-manager.kubeconfig"
        flags = {
            "bind-address": "127.0.0.1",  # else it listens on all addresses
            "secure-port": self._ports["kube-controller-manager"],
            "tls-cert-file": tls / "kube-controller-manager.crt",
            "tls-private-key-file": tls / "kube-controller-manager.key",
            "kubeconfig": config,
            "authentication-kubeconfig": config,
            "authorization-kubeconfig": config,
            "authentication-skip-lookup": "true",
            "root-ca-file": self.ca,
            "service-account-private-key-file": self._folder / "service-accounts.key",
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "controllers": ",".join(_CONTROLLERS),
        }
        return Command([*self._programs.controller_manager, *_flags(flags)])

    def _apiserver_ready(self) -> bool:
        return https_status(f"{self.server}/readyz", ca=self.ca) == 200

    def _manager_ready(self) -> bool:
        return https_status(f"https://127.0.0.1:{self._ports['kube-controller-manager']}/healthz", ca=self.ca) == 200


def _flags(flags: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def _rsa_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _base64(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()
