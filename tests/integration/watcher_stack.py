"""The real watcher on a real API server, with its own ServiceAccount, over real gRPC to three played services."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dev.stack.stack import LocalStack
from leasegate.access.v1 import (
    requester_service_pb2,
    requester_service_pb2_grpc,
    watcher_service_pb2,
    watcher_service_pb2_grpc,
)
from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2, role_service_pb2_grpc
from services.common.config import HostPort, ServerConfig, ServerTls
from services.common.rpc.channel import connect as connect_service
from services.common.rpc.limit import LongPolls
from services.common.rpc.server import Service, running, service
from tests.eventually import eventually
from tests.fakes.peers import PlayedAccess, PlayedEngine, PlayedRoles
from tests.vaults import config, entry
from watcher.app import Settings, Watcher
from watcher.clients.stubs import service_stubs
from watcher.kube.client import HttpKubeClient
from watcher.kube.connection import connect
from watcher.kube.resources import NAMESPACE
from watcher.specs.cluster import Cluster

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples/guides/secret-engines/postgres"
ENABLED_NAMESPACE = ROOT / "deploy/rbac/enabled-namespace.yaml"
VAULTS = config(
    entry(
        "https://vault.vault.svc:8200",
        "https://vault.*.svc:8200",
        mounts={"owned": [{"path": "my-postgres-se", "namespaces": ["*"]}]},
    )
)
KINDS = "secretengines,postgresroles,databaseaccessrequests,appbindings"


@dataclass
class Services:
    """The played services, at addresses that stay over a stop and a start; plaintext without ``tls``."""

    tls: ServerTls | None = None
    engine: PlayedEngine = field(default_factory=PlayedEngine)
    roles: PlayedRoles = field(default_factory=PlayedRoles)
    access: PlayedAccess = field(default_factory=PlayedAccess)
    addresses: dict[str, HostPort] = field(
        default_factory=lambda: {name: _free() for name in ("engine", "roles", "access")}
    )
    _running: dict[str, ExitStack] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start some, or all."""
        for name in names or self.addresses:
            stack = self._running[name] = ExitStack()
            registered = self._registered(name)
            caller = "spiffe://leasegate/watcher" if self.tls else "plaintext"
            config = ServerConfig(
                process=name,
                listen=self.addresses[name],
                health_listen=HostPort("127.0.0.1", 0),
                tls=self.tls,
                drain_delay_s=0,
                allow={each.name: frozenset({caller}) for each in registered},
                max_concurrent_rpcs=40,
            )
            stack.enter_context(running(config, registered, health=lambda: True, long_polls=LongPolls(2)))

    def stop(self, *names: str) -> None:
        """Stop some, or all."""
        for name in names or list(self._running):
            self._running.pop(name).close()

    def _registered(self, name: str) -> list[Service]:
        if name == "engine":
            descriptor = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
            return [
                service(
                    descriptor, engine_service_pb2_grpc.add_EngineServiceServicer_to_server, _as_servicer(self.engine)
                )
            ]
        if name == "roles":
            descriptor = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
            return [
                service(descriptor, role_service_pb2_grpc.add_RoleServiceServicer_to_server, _as_servicer(self.roles))
            ]
        watcher = watcher_service_pb2.DESCRIPTOR.services_by_name["WatcherService"]
        requester = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"]
        played = _as_servicer(self.access)
        return [
            service(watcher, watcher_service_pb2_grpc.add_WatcherServiceServicer_to_server, played),
            service(requester, requester_service_pb2_grpc.add_RequesterServiceServicer_to_server, played),
        ]


class _Unplayed:
    """Methods that nobody here calls, such as CreateAccessRequest."""

    def __init__(self, played: Any) -> None:
        self._played = played

    def __getattr__(self, name: str) -> Any:
        return getattr(self._played, name, None)


def _as_servicer(played: Any) -> Any:
    return _Unplayed(played)


class Running:
    """A running watcher, its cluster and the played services."""

    def __init__(self, cluster: LocalStack, services: Services) -> None:
        self.cluster, self.services = cluster, services
        self.kubeconfig = watcher_kubeconfig(cluster)
        self._watcher: Watcher | None = None
        self._stack = ExitStack()

    def start(self, *, resync_s: float = 300.0, compare_policies: bool = False) -> None:
        """Start the watcher and wait until it is ready."""
        api = HttpKubeClient(connect(str(self.kubeconfig), pool_size=40))
        uid = str(api.get(NAMESPACE, name="kube-system")["metadata"]["uid"])
        channels = {
            name: self._stack.enter_context(connect_service(address, tls=None))
            for name, address in self.services.addresses.items()
        }
        settings = Settings(
            cluster=Cluster("", uid),
            vaults=VAULTS,
            refused_cap_s=1.0,
            watch_s=8.0,
            resync_s=resync_s,
            compare_policies=compare_policies,
        )
        watcher = self._watcher = Watcher(api, service_stubs(**channels), settings)
        watcher.start()
        eventually(watcher.ready, what="a ready watcher")

    @property
    def watcher(self) -> Watcher:
        """The running watcher."""
        assert self._watcher is not None
        return self._watcher

    def stop(self) -> None:
        """End the watcher."""
        if self._watcher is not None:
            self._watcher.stop()
            self._stack.close()
            self._watcher, self._stack = None, ExitStack()

    def apply(self, namespace: str, *names: str) -> None:
        """Apply the guide's objects, and what it takes for granted, in a namespace."""
        for name in names:
            self.kubectl("apply", "-f", "-", "-n", namespace, input=manifest(name, namespace))

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> str:
        """Run kubectl as the admin; answers what it printed."""
        return self.cluster.kubectl(*args, input=input, check=check).stdout

    def get(self, namespace: str, kind: str, name: str) -> Any:
        """An object."""
        return json.loads(self.kubectl("get", "-n", namespace, kind, name, "-o", "json"))

    def phase(self, namespace: str, kind: str, name: str) -> str:
        """The phase of an object."""
        return self.kubectl("get", "-n", namespace, kind, name, "-o", "jsonpath={.status.phase}", check=False)

    def secrets(self, namespace: str) -> list[Any]:
        """The Secrets of requests."""
        found = json.loads(
            self.kubectl(
                "get", "secrets", "-n", namespace, "-l", "app.kubernetes.io/managed-by=leasegate", "-o", "json"
            )
        )
        return list(found["items"])

    def granted(self, namespace: str) -> Any:
        """Apply the guide's objects, approve, and return the Secret."""
        self.apply(
            namespace,
            "vault",
            "enabled",
            "postgres-app",
            "postgresSecretEngine",
            "postgresRole",
            "postgresAccessRequest",
        )
        eventually(
            lambda: self.get(namespace, "databaseaccessrequest", "postgres-cred-rqst").get("status", {}).get("digest"),
            what="a digest",
        )
        self.decide(namespace)
        return eventually(lambda: self.secrets(namespace), what="the Secret")[0]

    def decide(self, namespace: str, kind: str = "Approved", *, name: str = "postgres-cred-rqst") -> None:
        """Decide as the admin."""
        status = self.get(namespace, "databaseaccessrequest", name)["status"]
        condition = {
            "type": kind,
            "status": "True",
            "reason": "Kubectl",
            "message": "by hand",
            "approver": "admin",
            "digest": status["digest"],
        }
        decided = [c for c in status.get("conditions", []) if c["type"] != kind] + [condition]
        patch = json.dumps({"status": {"conditions": decided}})
        self.kubectl(
            "patch", "databaseaccessrequest", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
        )


@contextmanager
def running_watcher(cluster: LocalStack) -> Iterator[Running]:
    """Services and a watcher, stopped at the end."""
    services = Services()
    services.start()
    found = Running(cluster, services)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        services.stop()


def watcher_kubeconfig(cluster: LocalStack) -> Path:
    """A kubeconfig of the watcher's own ServiceAccount."""
    token = cluster.kubectl(
        "create", "token", "leasegate-watcher", "-n", "leasegate-system", "--duration=2h"
    ).stdout.strip()
    config = copy.deepcopy(json.loads(cluster.kubeconfig.read_text()))
    config["users"] = [{"name": "watcher", "user": {"token": token}}]
    config["contexts"] = [{"name": "watcher", "context": {"cluster": config["clusters"][0]["name"], "user": "watcher"}}]
    config["current-context"] = "watcher"
    path = cluster.directory / "watcher-test.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def manifest(name: str, namespace: str) -> str:
    """One of the guide's files for a namespace, or what it assumes: ``vault`` or ``enabled``."""
    if name == "enabled":
        return ENABLED_NAMESPACE.read_text()
    if name == "vault":
        service = {"name": "vault", "port": 8200, "scheme": "HTTPS"}
        parameters = {
            "apiVersion": "config.kubevault.com/v1alpha1",
            "kind": "VaultServerConfiguration",
            "path": "kubernetes",
            "vaultRole": "vault-policy-controller",
            "serviceAccountName": "vault",
        }
        binding = {
            "apiVersion": "appcatalog.appscode.com/v1alpha1",
            "kind": "AppBinding",
            "metadata": {"name": "vault"},
            "spec": {"clientConfig": {"service": service}, "parameters": parameters},
        }
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vault"}}
        return yaml.safe_dump_all([account, binding])
    return (EXAMPLES / f"{name}.yaml").read_text().replace("namespace: demo", f"namespace: {namespace}")


def _free() -> HostPort:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return HostPort("127.0.0.1", int(probe.getsockname()[1]))
