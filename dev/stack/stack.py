"""The local stack as one object, which tests, the demo and ``python -m dev.stack`` use."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from deploy.vault.api import VaultApi, VaultError
from deploy.vault.policies import Mounts
from deploy.vault.setup import AUDIENCE, KubernetesAuth, Setup
from dev.stack import bao, cluster, postgres, services
from dev.stack.bao import Bao
from dev.stack.cluster import Cluster, ControlPlane
from dev.stack.errors import StackError
from dev.stack.external_servers import ExternalCluster, ExternalServers
from dev.stack.films_role import set_up_films
from dev.stack.folder import claim_folder, read_state, write_state
from dev.stack.go_programs import kube_binary
from dev.stack.install import NAMESPACE, enabled_namespace, install
from dev.stack.kube_programs import KubePrograms, find_programs
from dev.stack.kubectl import Kubectl
from dev.stack.ports import Ports
from dev.stack.postgres import Postgres, postgres_programs
from dev.stack.processes import Process
from dev.stack.services import SERVERS, Services, Surroundings
from dev.stack.teardown import end_processes, remove_files
from dev.stack.tools import write_tools

MOUNTS = Mounts(("my-postgres-se", "database"), ("team/",), list_leases=True)
_REVIEWER = "vault-token-reviewer"
_UNKNOWN_VAULT_REQUEST_S = 90  # Vault's default


class LocalStack:
    """A stack in one folder.

    ``start`` starts one, ``attach`` finds a running one. As a context manager it is stopped at the end.
    """

    def __init__(self, directory: Path, *, state: dict[str, Any], ports: Ports) -> None:
        """Describe the stack of ``directory``; use ``start`` or ``attach``."""
        self.directory, self._ports, self._state = directory, ports, state
        self.logs = directory / "logs"
        self._cancelled, self._lock = threading.Event(), ExitStack()
        self._external = ExternalServers(**state["external"])
        self._bao = None if self._external.vault_addr else Bao(directory, ports=ports, cancelled=self._cancelled)
        self._postgres = (
            None if self._external.postgres_url else Postgres(directory, ports=ports, cancelled=self._cancelled)
        )
        self._cluster = self._control_plane()
        self._kubectl = Kubectl(self._cluster.kubeconfig, cache=directory / "kubectl-cache", cancelled=self._cancelled)
        self._services = Services(directory, ports=ports, surroundings=self._surroundings(), cancelled=self._cancelled)
        self._processes = {process.name: process for process in self._all_processes()}

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        services: bool = True,
        external: ExternalServers | None = None,
        evictable: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> LocalStack:
        """Start everything and wait until it is ready.

        Args:
            directory: Folder of the stack; created if it does not exist.
            services: Whether engine, roles, access and watcher are started, too.
            external: Servers to use instead of local ones; the environment is not read.
            evictable: Whether ``python -m dev.stack down`` may end this process by SIGTERM, instead of refusing.
            say: Receives the progress, a line at a time.

        Raises:
            StackError: Something could not be started; everything started before was stopped.
        """
        directory, external = directory.resolve(), external or ExternalServers()
        external.check_vault()
        with ExitStack() as undo:
            lock = undo.enter_context(claim_folder(directory, evictable=evictable))
            programs = None if external.kubeconfig else asdict(find_programs(lambda: kube_binary(say), say=say))
            ports = Ports()
            undo.callback(ports.close)
            ports.reserve(_port_names())
            state: dict[str, Any] = {"ports": ports.numbers, "programs": programs, "external": asdict(external)}
            write_state(directory, state)
            stack = cls(directory, state=state, ports=ports)
            stack._lock = lock
            undo.callback(stack.stop)
            stack._start(services=services, say=say)
            undo.pop_all()
        return stack

    @classmethod
    def attach(cls, directory: Path) -> LocalStack:
        """Find the stack of a folder.

        Raises:
            StackError: There is none.
        """
        directory = directory.resolve()
        state = read_state(directory)
        return cls(directory, state=state, ports=Ports(state["ports"]))

    def __enter__(self) -> LocalStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every process and delete everything except the logs."""
        self._cancelled.set()
        self._ports.close()
        end_processes(self.directory)
        for process in self._processes.values():
            process.reap()
        remove_files(self.directory)
        self._lock.close()

    def process(self, name: str) -> Process:
        """One process by name, such as access, bao, postgres-tls or kube-apiserver.

        Raises:
            StackError: The stack has no such process.
        """
        if name not in self._processes:
            raise StackError(f"no process {name!r} here; there are {', '.join(self._processes)}")
        return self._processes[name]

    @property
    def processes(self) -> list[Process]:
        """All processes, in the order in which they are started."""
        return list(self._processes.values())

    def _all_processes(self) -> list[Process]:
        vault = [self._bao.process] if self._bao else []
        database = [self._postgres.process, self._postgres.tls_process] if self._postgres else []
        return [*self._cluster.processes, *vault, *database, *self._services.processes.values()]

    @property
    def kubeconfig(self) -> Path:
        """Contexts admin (current), alice (group dev), bob (group approvers) and carol (no group)."""
        return self._cluster.kubeconfig

    def kubectl(
        self, *args: str, context: str = "admin", input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; see ``Kubectl.run``."""
        return self._kubectl.run(*args, context=context, stdin=input, check=check)

    def enabled_namespace(self, namespace: str = "demo") -> Path:
        """A manifest that enables a namespace, for ``kubectl apply -n NAMESPACE -f FILE``."""
        path = self.directory / f"enabled-namespace-{namespace}.yaml"
        path.write_text(enabled_namespace(ca_bundle=self.vault_ca.read_bytes(), namespace=namespace))
        return path

    @property
    def vault_addr(self) -> str:
        """Vault's address."""
        return self._bao.address if self._bao else str(self._external.vault_addr)

    @property
    def vault_ca(self) -> Path:
        """PEM file to verify Vault with."""
        return self._bao.ca if self._bao else Path(str(self._external.vault_ca))

    @property
    def vault_root_token(self) -> str:
        """Vault's root token."""
        return self._bao.root_token if self._bao else str(self._external.vault_token)

    def vault_api(self, token: str | None = None) -> VaultApi:
        """A client with ``token``, or as root."""
        return VaultApi(self.vault_addr, ca=self.vault_ca, token=token or self.vault_root_token)

    def bao(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a ``bao`` command as root.

        Raises:
            StackError: It failed and ``check`` is set.
        """
        return _run([str(bao.bao_binary()), *args], env=self.environment(), check=check)

    def seal(self) -> None:
        """Seal Vault."""
        self._own_vault().seal()

    def unseal(self) -> None:
        """Unseal Vault and wait until it is active."""
        self._own_vault().unseal()

    def stop_vault(self) -> None:
        """Stop Vault's process."""
        self._own_vault().process.terminate()

    def start_vault(self) -> None:
        """Start Vault's process again and unseal it."""
        self._own_vault().start()

    def enable_raw_audit(self, path: Path) -> None:
        """Make Vault write every request and response, with secrets in clear text, to a file.

        Tests search other output for these secrets.
        """
        options = {"file_path": str(path), "log_raw": "true"}
        answer = self.vault_api().call("POST", f"sys/audit/raw-{path.stem}", {"type": "file", "options": options})
        if not answer.ok:
            raise StackError(f"sys/audit: {answer.status} {answer.errors}")

    def _own_vault(self) -> Bao:
        if self._bao is None:
            raise StackError(f"{self.vault_addr} is not this stack's own")
        return self._bao

    @property
    def postgres_url(self) -> str:
        """URL of the superuser."""
        return self._postgres.url if self._postgres else str(self._external.postgres_url)

    @property
    def postgres_tls_url(self) -> str | None:
        """URL of the superuser with TLS, verified; None where PostgreSQL is not this stack's own."""
        return self._postgres.tls_url if self._postgres else None

    def psql(self, sql: str) -> str:
        """Run SQL as the superuser with psql; returns a line for each row, with ``|`` between columns.

        Raises:
            StackError: PostgreSQL refused it.
        """
        options = ["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1", f"--command={sql}"]
        return _run(
            [str(postgres_programs() / "psql"), *options, self.postgres_url], env=dict(os.environ)
        ).stdout.strip()

    def stop_postgres(self) -> None:
        """Stop PostgreSQL, which cuts its sessions."""
        self.process("postgres").terminate()

    def start_postgres(self) -> None:
        """Start PostgreSQL again and wait until it answers."""
        self.process("postgres").start()
        self.process("postgres").wait_ready()

    @property
    def addresses(self) -> dict[str, str]:
        """``HOST:PORT`` of the gRPC servers engine, roles and access."""
        return self._services.addresses

    @property
    def health_addresses(self) -> dict[str, str]:
        """``HOST:PORT`` of the health pages, the watcher's (HTTP) included."""
        return self._services.health_addresses

    @property
    def metrics_addresses(self) -> dict[str, str]:
        """``HOST:PORT`` of the metrics pages, the watcher's included."""
        return self._services.metrics_addresses

    def set_options(self, name: str, **options: str) -> None:
        """Set options of a service or the watcher, such as ``resync_interval="2"``, from its next start on.

        A call without options removes earlier ones.
        """
        self._services.set_options(name, **options)

    def client_cert(self, name: str) -> tuple[Path, Path, Path]:
        """Certificate, key and authority of a client: watcher, operator, alice or bob."""
        pair = self._services.client(name)
        return pair.cert, pair.key, pair.ca

    def environment(self) -> dict[str, str]:
        """The caller's environment with this stack's tools on PATH, and with its servers alone."""
        known = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("VAULT_", "BAO_", "PG", "LEASEGATE_"))
        }
        return (
            known | self.variables() | {"PATH": f"{self.directory / 'bin'}{os.pathsep}{known.get('PATH', os.defpath)}"}
        )

    def variables(self) -> dict[str, str]:
        """Environment variables that name this stack's servers; two of them are secrets."""
        url = urlsplit(self.postgres_url)
        return {
            "LEASEGATE_STACK_DIR": str(self.directory),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.directory / "kubectl-cache"),
            "VAULT_ADDR": self.vault_addr,
            "VAULT_CACERT": str(self.vault_ca),
            "VAULT_TOKEN": self.vault_root_token,
            "PGHOST": url.hostname or "",
            "PGPORT": str(url.port or 5432),
            "PGUSER": url.username or "",
            "PGPASSWORD": url.password or "",
            "PGDATABASE": url.path.strip("/") or "postgres",
            "LEASEGATE_CERTS": str(self.client_cert("operator")[0].parent),
            **{f"LEASEGATE_{name.upper()}": address for name, address in self.addresses.items()},
            **{f"LEASEGATE_{name.upper()}_HEALTH": address for name, address in self.health_addresses.items()},
        }

    def _control_plane(self) -> ControlPlane:
        if self._external.kubeconfig:
            return ExternalCluster(self.directory, source=self._external.kubeconfig)
        programs = KubePrograms(**self._state["programs"])
        return Cluster(self.directory, ports=self._ports, programs=programs, cancelled=self._cancelled)

    def _surroundings(self) -> Surroundings:
        database = urlsplit(self.postgres_url)
        return Surroundings(
            vault_addr=self.vault_addr,
            vault_ca=self.vault_ca,
            vault_request_s=bao.MAX_REQUEST_DURATION_S if self._bao else _UNKNOWN_VAULT_REQUEST_S,
            vault_at=urlsplit(self.vault_addr).netloc,
            postgres_at=f"{database.hostname}:{database.port or 5432}",
        )

    def _start(self, *, services: bool, say: Callable[[str], None]) -> None:
        write_tools(self.directory / "bin", say=say)
        parts = [self._start_cluster]
        parts += [self._start_bao] if self._bao else []
        parts += [self._start_postgres] if self._postgres else []
        self._together(parts, say=say)
        say("setting up Vault")
        self._set_up_vault()
        self._prepare_services()
        if services:
            say("starting engine, roles, access and watcher")
            self._services.start()

    def _together(self, parts: list[Callable[[], None]], *, say: Callable[[str], None]) -> None:
        say("starting Kubernetes, Vault and PostgreSQL")
        with ThreadPoolExecutor(len(parts)) as pool:
            started = [pool.submit(part) for part in parts]
            try:
                done, _ = wait(started, return_when=FIRST_EXCEPTION)
                for part in done:
                    part.result()
            except BaseException:
                self._cancelled.set()  # the other parts stop waiting
                raise

    def _start_cluster(self) -> None:
        self._cluster.prepare()
        self._cluster.start()
        install(self._kubectl, local_people=not self._external.kubeconfig)

    def _start_bao(self) -> None:
        self._own_vault().prepare()
        self._own_vault().start()

    def _start_postgres(self) -> None:
        if self._postgres:
            self._postgres.prepare()
            self._postgres.start()
            self._postgres.start_tls()

    def _set_up_vault(self) -> None:
        reviewer = self._kubectl.token(_REVIEWER, namespace=NAMESPACE)
        auth = KubernetesAuth(host=self._cluster.server, ca=self._cluster.ca.read_text(), reviewer_jwt=reviewer)
        run = Setup(self.vault_api())
        try:
            for _ in (*run.policies(MOUNTS), *run.kubernetes(auth)):
                pass
        except VaultError as err:
            raise StackError(f"Vault cannot be set up: {err}") from err
        set_up_films(self.vault_api(), postgres_url=self.postgres_url)

    def _prepare_services(self) -> None:
        tokens = {
            name: self._kubectl.token(f"leasegate-{name}", namespace=NAMESPACE, audience=AUDIENCE) for name in SERVERS
        }
        watcher = self._kubectl.token("leasegate-watcher", namespace=NAMESPACE)
        uid = self._kubectl.run("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout
        self._services.prepare(
            tokens=tokens,
            watcher_kubeconfig=self._cluster.kubeconfig_for("leasegate-watcher", token=watcher),
            cluster_uid=uid.strip(),
        )


def _port_names() -> tuple[str, ...]:
    return (*cluster.PORTS, *bao.PORTS, *postgres.PORTS, *services.PORTS)


def _run(command: list[str], *, env: dict[str, str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise StackError(f"{Path(command[0]).name}: {done.stderr.strip()[-600:]}")
    return done
