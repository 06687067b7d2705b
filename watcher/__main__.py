"""``python -m watcher``: options, connections, and the life of the process."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from services.common import failpoints, http_health, logs, metrics
from services.common.config import (
    FILE,
    ClientTls,
    HostPort,
    HostPortType,
    StartupRefusedError,
    client_tls_options,
    command,
    log_level_option,
    metrics_listen_option,
    option,
    vault_options,
)
from services.common.gc_freeze import freeze_startup_objects
from services.common.rpc.channel import connect as connect_service
from services.common.vault_config.entries import TeamAuth, VaultConfig
from services.common.vault_config.read import TEAM_METHODS, VaultConfigError, read_vault_config
from watcher.app import Settings, Watcher
from watcher.clients import token_audience
from watcher.clients.stubs import service_stubs
from watcher.kube.client import HttpKubeClient, KubeError
from watcher.kube.connection import Connection, ConnectionConfigError, connect
from watcher.kube.resources import NAMESPACE, Key
from watcher.metrics import WatcherMetrics
from watcher.reconcilers.failpoints import POINTS
from watcher.reconcilers.failpoints import VARIABLE as POINT_VARIABLE
from watcher.specs.appbinding import KUBERNETES
from watcher.specs.cluster import Cluster

LOG = logs.logger(__name__)
_CLUSTER = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?|-?")
_SERVICE = re.compile(r"(\*|[a-z0-9-]{1,63})/([a-z0-9-]{1,63})=(.+)")
_OWN_ACCOUNT = Key("leasegate-system", "leasegate-watcher")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class NameList(click.ParamType[tuple[str, ...]]):
    """Names with commas between."""

    name = "NAME,..."

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse one value."""
        names = value if isinstance(value, tuple) else tuple(dict.fromkeys(str(value).split(",")))
        for each in names:
            if not _NAME.fullmatch(each) or (self._known and each not in self._known):
                known = f"; there are {', '.join(self._known)}" if self._known else ""
                self.fail(f"{each!r} is no name that can stand here{known}", param, ctx)
        return names


@command(
    "watcher",
    help="Brings SecretEngines, PostgresRoles and DatabaseAccessRequests of a Kubernetes cluster to the services.",
)
@option(
    "--kubeconfig",
    type=FILE,
    help="Kubernetes; without it the file in KUBECONFIG, without that the pod's own ServiceAccount.",
)
@option("--engine", type=HostPortType(), default="127.0.0.1:7701", help="Address of the engine service.")
@option("--roles", type=HostPortType(), default="127.0.0.1:7702", help="Address of the role service.")
@option("--access", type=HostPortType(), default="127.0.0.1:7703", help="Address of the access service.")
@client_tls_options
@vault_options
@option(
    "--cluster-name",
    default="",
    help="The cluster's part in names in Vault, k8s.NAME.NAMESPACE.OBJECT; '-' without it.",
)
@option(
    "--token-audience",
    default="leasegate-vault",
    help="With --allow-any-vault: audience of the tokens that prove to Vault which team calls, as Vault's auth roles"
    " have it; none of the API server's own.",
)
@option(
    "--team-service-accounts",
    type=NameList(),
    default=",".join(TeamAuth().service_accounts),
    help="With --allow-any-vault: names of the ServiceAccounts for which tokens are made, with commas between;"
    " deploy/rbac/watcher.yaml and deploy/policies/tokens.yaml name the same ones.",
)
@option(
    "--team-auth-methods",
    type=NameList(TEAM_METHODS),
    default=",".join(TeamAuth().methods),
    help="With --allow-any-vault: Vault's auth methods that an AppBinding may use, with commas between, of"
    f" {', '.join(TEAM_METHODS)}.",
)
@option(
    "--service-address",
    multiple=True,
    metavar="NS/NAME=HOST:PORT",
    help="Where a Service that an AppBinding names is reached from here, if not at its name; NS may be *."
    " Repeat it (blanks between values in the variable).",
)
@option(
    "--finalizer-timeout",
    type=click.FloatRange(1, 86400),
    default=120.0,
    help="Seconds that a deletion waits for a Vault that does not permit the cleanup.",
)
@option(
    "--resync-interval",
    type=click.FloatRange(1, 86400),
    default=300.0,
    help="Seconds in which every object is reconciled once; how often drift in Vault is corrected.",
)
@option(
    "--role-change-pause",
    type=click.FloatRange(0, 3600),
    default=5.0,
    help="Seconds between two changes of one PostgresRole, after three of them: each concerns all its access requests.",
)
@option(
    "--health-listen", type=HostPortType(), default="127.0.0.1:7714", help="Address of /healthz and /readyz over HTTP."
)
@metrics_listen_option()
@log_level_option()
def main(*, log_level: str, health_listen: HostPort, metrics_listen: HostPort | None, **given: Any) -> None:
    """Run until SIGTERM."""
    logs.configure(log_level, process="watcher")
    try:
        failpoints.install(failpoints.Failpoints.from_environment(POINT_VARIABLE, points=POINTS))
    except ValueError as err:
        raise StartupRefusedError(str(err)) from err
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        registry = metrics.new_registry()
        watcher_metrics = WatcherMetrics(registry)
        watcher = _watcher(stack, watcher_metrics, **given)
        watcher_metrics.read_from(watcher)
        bound = stack.enter_context(metrics.served(registry, listen=metrics_listen))
        probes = stack.enter_context(http_health.serve_probes(health_listen, alive=watcher.alive, ready=watcher.ready))
        LOG.info("listening", health=str(probes), metrics=str(bound or ""))
        freeze_startup_objects()
        watcher.start()
        stack.callback(watcher.stop)
        stop.wait()
        LOG.info("stopping")


def _watcher(
    stack: ExitStack,
    watcher_metrics: WatcherMetrics,
    *,
    kubeconfig: Path | None,
    tls: ClientTls,
    cluster_name: str,
    vault_config: Path | None,
    allow_any_vault: bool,
    service_address: tuple[str, ...],
    token_audience: str,
    team_service_accounts: tuple[str, ...],
    team_auth_methods: tuple[str, ...],
    finalizer_timeout: float,
    resync_interval: float,
    role_change_pause: float,
    **services: HostPort,
) -> Watcher:
    if not _CLUSTER.fullmatch(cluster_name):
        raise StartupRefusedError(f"--cluster-name {cluster_name!r} is no name: 1 to 63 of a-z, 0-9 and -")
    settings = Settings(
        cluster=Cluster("", ""),
        vaults=_vaults(vault_config, allow_any_vault=allow_any_vault),
        addresses=_addresses(service_address),
        team_auth=TeamAuth(
            methods=team_auth_methods, mounts=(), token_audience=token_audience, service_accounts=team_service_accounts
        ),
        finalizer_timeout_s=finalizer_timeout,
        resync_s=resync_interval,
        role_change_pause_s=role_change_pause,
        compare_policies=True,
    )
    connection = _connection(kubeconfig, pool_size=settings.connections)
    api = HttpKubeClient(connection)
    cluster = Cluster("" if cluster_name == "-" else cluster_name, _cluster_uid(api))
    for audience, option_name in dict(_audiences(settings)).items():
        _check_audience(connection, audience, option_name=option_name)
    channels = {name: stack.enter_context(connect_service(address, tls=tls)) for name, address in services.items()}
    return Watcher(api, service_stubs(**channels), replace(settings, cluster=cluster), metrics=watcher_metrics)


def _vaults(path: Path | None, *, allow_any_vault: bool) -> VaultConfig:
    try:
        return read_vault_config(path, allow_any_vault=allow_any_vault)
    except VaultConfigError as err:
        raise StartupRefusedError(str(err)) from err


def _audiences(settings: Settings) -> Iterator[tuple[str, str]]:
    """The audiences of tokens that are made for ServiceAccounts, each with where it is set."""
    if settings.vaults.any_vault:
        yield settings.team_auth.token_audience, "--token-audience"
    for entry in settings.vaults.entries:
        if KUBERNETES in entry.team_auth.methods:
            yield entry.team_auth.token_audience, f"--vault-config: {entry.name}: tokenAudience"


def _connection(kubeconfig: Path | None, *, pool_size: int) -> Connection:
    in_cluster = kubeconfig is None and not os.environ.get("KUBECONFIG")
    try:
        path = str(kubeconfig) if kubeconfig else None
        return connect(path, pool_size=pool_size, in_cluster=in_cluster)
    except ConnectionConfigError as err:
        raise StartupRefusedError(f"--kubeconfig: {err}") from err


def _cluster_uid(api: HttpKubeClient) -> str:
    """The uid of kube-system, which tells clusters apart; without it nothing may be written to Vault."""
    try:
        return str(api.get(NAMESPACE, name="kube-system")["metadata"]["uid"])
    except KubeError as err:
        raise StartupRefusedError(f"Kubernetes: the namespace kube-system cannot be read: {err.message}") from err


def _check_audience(connection: Connection, audience: str, *, option_name: str) -> None:
    """Refuse an audience of the API server's: what is sent to Vault would be a token for Kubernetes, too."""
    if not audience:
        raise StartupRefusedError(f"{option_name} is empty: give the audience that Vault's auth roles have")
    try:
        is_of_api_server = token_audience.is_of_api_server(connection, audience, fallback=_OWN_ACCOUNT)
    except KubeError as err:
        raise StartupRefusedError(
            f"{option_name} {audience}: whether the API server takes it as its own cannot be tried: {err.message};"
            " apply deploy/rbac/watcher.yaml and deploy/policies/tokens.yaml, and look whether both name this"
            " audience and the watcher's ServiceAccount"
        ) from err
    if is_of_api_server:
        raise StartupRefusedError(
            f"{option_name} {audience} is an audience of the API server: a token that is made for Vault would be one"
            " for Kubernetes as well. Choose another one, such as leasegate-vault, and take this one out of the API"
            " server's --api-audiences"
        )


def _addresses(given: tuple[str, ...]) -> Mapping[tuple[str, str], tuple[str, int]]:
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for text in given:
        parts = _SERVICE.fullmatch(text)
        if not parts:
            raise StartupRefusedError(
                f"--service-address {text!r} is not NS/NAME=HOST:PORT, such as */vault=127.0.0.1:8200"
            )
        address = HostPortType().convert(parts[3], None, None)
        found[parts[1], parts[2]] = (address.host, address.port)
    return found


if __name__ == "__main__":
    main()
