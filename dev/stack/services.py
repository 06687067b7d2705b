"""The four processes of Leasegate in the local stack, with mutual TLS and without the caller's environment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dev.stack.certificates import Authority, KeyPair
from dev.stack.films_role import catalog
from dev.stack.http_probe import http_status
from dev.stack.ports import Ports
from dev.stack.processes import Command, Process

SERVERS = ("engine", "roles", "access")
NAMES = (*SERVERS, "watcher")
PORTS = tuple(
    f"{name}{suffix}" for name in NAMES for suffix in ("", "-health", "-metrics") if (name, suffix) != ("watcher", "")
)
# Who may call: by the URI in the client's certificate.
CLIENTS = {
    "watcher": "spiffe://leasegate/watcher",
    "operator": "spiffe://leasegate/operator",
    "alice": "spiffe://leasegate/client/alice",
    "bob": "spiffe://leasegate/client/bob",
}
_ALLOWED: dict[str, dict[str, tuple[str, ...]]] = {
    "engine": {"leasegate.engine.v1.EngineService": ("watcher", "operator")},
    "roles": {"leasegate.roles.v1.RoleService": ("watcher", "operator")},
    "access": {
        "leasegate.access.v1.WatcherService": ("watcher",),
        "leasegate.access.v1.OperatorService": ("operator",),
        "leasegate.access.v1.RequesterService": ("watcher", "alice"),
        "leasegate.access.v1.ApproverService": ("bob",),
    },
}
VAULT = "main"
"""Name of Vault in ``--vault-config``."""
MOUNTS_OWNED: list[dict[str, Any]] = [
    {"path": "my-postgres-se", "namespaces": ["demo"]},  # as the guide has it
    {"path": "database", "namespaces": ["*"]},
    {"path": "team/{namespace}"},
    {"path": "team/owner", "namespaces": ["*"]},  # a mount that its namespace may share
    {"path": "team/*", "namespaces": ["waiting", "greedy"]},  # namespaces with several mounts
]
_MALLOC = {"MALLOC_ARENA_MAX": "2"}
"""glibc's malloc keeps up to eight pools a core, each with its own holes: two take 4 MiB less with some forty threads,
and no more time.
"""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the processes need to know of the rest of the stack.

    Attributes:
        vault_addr: Vault's address.
        vault_ca: PEM file to verify it with.
        vault_request_s: Vault's ``default_max_request_duration`` in seconds.
        vault_at: ``HOST:PORT`` of Vault.
        postgres_at: ``HOST:PORT`` of PostgreSQL.
    """

    vault_addr: str
    vault_ca: Path
    vault_request_s: int
    vault_at: str
    postgres_at: str


class Services:
    """The processes and their files."""

    def __init__(self, directory: Path, *, ports: Ports, surroundings: Surroundings, **process_options: Any) -> None:
        """Describe the processes of ``directory`` (the stack's folder); nothing is started."""
        self._folder, self._ports, self._around = directory / "services", ports, surroundings
        self.watcher_kubeconfig = self._folder / "watcher.kubeconfig"
        self.vault_config = self._folder / "vaults.yaml"
        self.addresses = {name: f"127.0.0.1:{ports[name]}" for name in SERVERS}
        self.health_addresses = {name: f"127.0.0.1:{ports[f'{name}-health']}" for name in NAMES}
        self.metrics_addresses = {name: f"127.0.0.1:{ports[f'{name}-metrics']}" for name in NAMES}
        self._options: dict[str, dict[str, str]] = {name: {} for name in NAMES}
        self.processes = {name: self._process(name, directory, process_options) for name in NAMES}

    def _process(self, name: str, directory: Path, options: Mapping[str, Any]) -> Process:
        mine = [port for port in PORTS if port == name or port.startswith(f"{name}-")]
        return Process(
            name,
            directory=directory,
            command=lambda: self._command(name),
            ready=self._ready(name),
            before_start=lambda: self._ports.release(*mine),
            **options,
        )

    def prepare(self, *, tokens: Mapping[str, str], watcher_kubeconfig: Mapping[str, Any], cluster_uid: str) -> None:
        """Write certificates, auths and configuration.

        Args:
            tokens: A ServiceAccount's token for each of the three servers, for its own auth at Vault.
            watcher_kubeconfig: The watcher's own.
            cluster_uid: uid of the namespace kube-system.
        """
        self._folder.mkdir(mode=0o700)
        authority = self._authority()
        for name in SERVERS:
            authority.server(name, hosts=("localhost", "127.0.0.1", f"leasegate-{name}.leasegate-system.svc"))
            self._write(f"{name}.token", tokens[name])
        self._write(self.vault_config.name, json.dumps({"vaults": [self.vault_entry()]}, indent=1))  # JSON is YAML, too
        for name in CLIENTS:
            self.client(name)
        self._write("cluster-uid", cluster_uid)
        self._write("watcher.kubeconfig", json.dumps(watcher_kubeconfig, indent=1))
        self._write(
            "catalog.yaml",
            json.dumps(catalog(vault=VAULT), indent=1),
        )

    def start(self) -> None:
        """Start all four and wait until they are ready."""
        for name in NAMES:
            self.processes[name].start()
        for name in NAMES:
            self.processes[name].wait_ready()

    def set_options(self, name: str, **options: str) -> None:
        """Set the options of a process, besides the stack's own, from its next start on."""
        self._options[name] = {option.upper(): value for option, value in options.items()}

    def client(self, name: str) -> KeyPair:
        """The certificate of one of ``CLIENTS``."""
        return self._authority().client(name, uri=CLIENTS[name])

    def _authority(self) -> Authority:
        return Authority(self._folder / "tls")

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text)

    def vault_entry(self) -> dict[str, Any]:
        """The entry of Vault in ``--vault-config``, which all four processes read."""
        return {
            "name": VAULT,
            # The guide's AppBinding names vault.NAMESPACE.svc; tests name the address itself.
            "addresses": [self._around.vault_addr, "https://vault.*.svc:8200"],
            "caFile": str(self._around.vault_ca),
            "auth": {name: self._auth(name) for name in SERVERS},
            "teamAuth": {
                "methods": ["kubernetes", "token", "userpass", "certificate", "approle"],
                "mounts": ["kubernetes", "team-userpass", "team-cert", "team-approle"],
                "tokenAudience": "leasegate-vault",
                "serviceAccounts": ["vault"],
            },
            "mounts": {"owned": MOUNTS_OWNED, "adoptable": [{"path": "team/{namespace}"}]},
            "localDatabases": True,  # PostgreSQL runs beside Vault
            "maxRequestDuration": f"{self._around.vault_request_s}s",
        }

    def _auth(self, name: str) -> dict[str, Any]:
        token_file = str(self._folder / f"{name}.token")
        return {"kubernetes": {"mount": "kubernetes", "role": f"leasegate-{name}", "tokenFile": token_file}}

    def _command(self, name: str) -> Command:
        module = "watcher" if name == "watcher" else f"services.{name}"
        settings = self._watcher_settings() if name == "watcher" else self._server_settings(name)
        settings |= {
            "METRICS_LISTEN": self.metrics_addresses[name],
            "HEALTH_LISTEN": self.health_addresses[name],
        } | self._options[name]
        own = {f"LEASEGATE_{name.upper()}_{option}": value for option, value in settings.items()}
        return Command([sys.executable, "-m", module], env=_plain_environment() | _MALLOC | own, cwd=self._folder)

    def _server_settings(self, name: str) -> dict[str, str]:
        pair, folder = self._authority().server(name), self._folder
        settings = {
            "LISTEN": self.addresses[name],
            "TLS_CERT": str(pair.cert),
            "TLS_KEY": str(pair.key),
            "TLS_CLIENT_CA": str(pair.ca),
            "ALLOW": " ".join(
                f"{service}={CLIENTS[client]}" for service, clients in _ALLOWED[name].items() for client in clients
            ),
            "VAULT_CONFIG": str(self.vault_config),
            "DRAIN_DELAY": "0",  # no load balancer has to notice
        }
        if name == "access":
            settings |= {
                "LEDGER": str(folder / "ledger.sqlite"),
                "CATALOG": str(folder / "catalog.yaml"),
                "WATCHER_CLUSTER": f"{CLIENTS['watcher']}={(folder / 'cluster-uid').read_text()}",
            }
        return settings

    def _watcher_settings(self) -> dict[str, str]:
        pair = self.client("watcher")
        return {
            "KUBECONFIG": str(self.watcher_kubeconfig),
            "VAULT_CONFIG": str(self.vault_config),
            **{name.upper(): address for name, address in self.addresses.items()},
            "TLS_CERT": str(pair.cert),
            "TLS_KEY": str(pair.key),
            "TLS_CA": str(pair.ca),
            "SERVICE_ADDRESS": f"*/vault={self._around.vault_at} */postgres={self._around.postgres_at}",
        }

    def _ready(self, name: str) -> Callable[[], bool]:
        address = self.health_addresses[name]
        if name == "watcher":
            return lambda: http_status(f"http://{address}/readyz") == 200
        return lambda: _serving(address)


def _plain_environment() -> dict[str, str]:
    known = {key: os.environ[key] for key in ("PATH", "LANG", "TZ", "TMPDIR") if key in os.environ}
    return known | {"PYTHONPATH": os.pathsep.join(map(str, (_ROOT, _ROOT / "protos" / "gen"))), "PYTHONUNBUFFERED": "1"}


def _serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
