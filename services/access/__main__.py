"""The process ``access``: its options, and what is opened and closed in which order."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import click

from leasegate.access.v1 import watcher_service_pb2
from services.access.app import access
from services.access.domain.failpoints import ALL_POINTS, VARIABLE
from services.access.domain.quotas import Quotas
from services.access.domain.settings import DEFAULT_QUOTAS, Settings
from services.access.requests.catalog_file import read_catalog
from services.access.worker.metrics import AccessMetrics
from services.common import failpoints
from services.common.config import FILE, NEW_FILE, ServerConfig, StartupRefusedError, option, server_command
from services.common.durations import parse_seconds
from services.common.rpc.server import serve
from services.common.vault.call_metrics import new_server_registry
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import VaultConfigError, read_vault_config

_WATCHER_SERVICE = watcher_service_pb2.DESCRIPTOR.services_by_name["WatcherService"].full_name


class Span(click.ParamType[float]):
    """A span of time, such as 5m, as seconds."""

    name = "DURATION"

    def __init__(self, *, least: str = "0s") -> None:
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse one value."""
        try:
            seconds = value if isinstance(value, float) else parse_seconds(str(value))
        except ValueError as err:
            self.fail(str(err), param, ctx)
        if seconds < parse_seconds(self._least):
            self.fail(f"{value!r} is shorter than {self._least}", param, ctx)
        return seconds


class ClusterType(click.ParamType[tuple[str, str]]):
    """``SAN=UID``."""

    name = "SAN=UID"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse one value."""
        if isinstance(value, tuple):
            return value
        san, equals, uid = str(value).rpartition("=")
        if not equals or not san or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", uid):
            self.fail(f"{value!r} is not SAN=UID, such as spiffe://leasegate/watcher=7f1c4a90-...", param, ctx)
        return san, uid


@server_command(
    "access",
    port=7703,
    help="Issue credentials after an approval, renew their leases while they are in use, and revoke each one.",
)
@option(
    "--ledger",
    type=NEW_FILE,
    required=True,
    help="SQLite file of the ledger; created and migrated at start. One process owns it.",
)
@option(
    "--catalog",
    type=FILE,
    help="YAML file with the VaultTargets and roles that callers outside Kubernetes may request.",
)
@option(
    "--watcher-cluster",
    type=ClusterType(),
    multiple=True,
    help="Which cluster a caller of WatcherService is the watcher of: the name in its certificate, and the uid of the"
    " cluster's namespace kube-system. Needed for each one that --allow names (blanks between values in the variable).",
)
@option(
    "--max-access-duration",
    type=Span(least="1s"),
    help="Longest access of any access request, counted from its first credential; no limit without this option.",
)
@option(
    "--rotation-overlap",
    type=Span(),
    default="5m",
    help="How long a replaced credential is kept; at most a quarter of its longest life.",
)
@option(
    "--max-request-duration",
    type=Span(),
    default="90s",
    help="default_max_request_duration of Vaults with --allow-any-vault; a recovery waits for it.",
)
@option(
    "--orphan-scan-interval",
    type=Span(least="100ms"),
    default="15m",
    help="How often the ledger is compared with Vault's leases.",
)
@option(
    "--max-renewals-per-second",
    type=click.FloatRange(min=0),
    default=200.0,
    help="Most renewals that begin in a second; 0 for no limit. Urgent renewals are not throttled.",
)
@option(
    "--retention",
    type=Span(least="1h"),
    default="30d",
    help="How long the ledger keeps closed attempts, deleted access requests and answered calls.",
)
@option(
    "--max-requests-per-namespace",
    type=click.IntRange(min=0),
    default=DEFAULT_QUOTAS.open_requests,
    help="Access requests of one namespace that are pending or approved; 0 for no limit. Beyond it they wait.",
)
@option(
    "--max-database-users-per-namespace",
    type=click.IntRange(min=0),
    default=DEFAULT_QUOTAS.database_users,
    help="Database users of one namespace that are not dropped yet; 0 for no limit. Beyond it approved ones wait.",
)
@option(
    "--max-prepared-tokens-per-namespace",
    type=click.IntRange(min=0),
    default=DEFAULT_QUOTAS.prepared_tokens,
    help="Tokens of Vault made ahead for pending access requests of one namespace; 0 for no limit.",
)
@option(
    "--max-targets-per-namespace",
    type=click.IntRange(min=0),
    default=DEFAULT_QUOTAS.targets,
    help="Vaults that the AppBindings of one namespace may have named; 0 for no limit.",
)
@option(
    "--max-issues-per-minute",
    type=click.IntRange(min=0),
    default=DEFAULT_QUOTAS.issues_per_minute,
    help="Credentials of one access request within a minute, such as after edits of its Secret; 0 for no limit.",
)
@option(
    "--require-verified-requester",
    is_flag=True,
    help="Issue nothing for an access request of Kubernetes while it is not verified who is behind it (condition"
    " RequesterUnverified). What is in use expires without being renewed; a denial counts.",
)
@option("--workers", type=click.IntRange(2, 64), default=10, help="Threads that revoke, renew and prepare.")
def main(
    config: ServerConfig,
    *,
    ledger: Path,
    catalog: Path | None,
    watcher_cluster: tuple[tuple[str, str], ...],
    max_access_duration: float | None,
    rotation_overlap: float,
    max_request_duration: float,
    orphan_scan_interval: float,
    max_renewals_per_second: float,
    retention: float,
    max_requests_per_namespace: int,
    max_database_users_per_namespace: int,
    max_prepared_tokens_per_namespace: int,
    max_targets_per_namespace: int,
    max_issues_per_minute: int,
    require_verified_requester: bool,
    workers: int,
) -> None:
    """Serve until SIGTERM."""
    try:
        named = read_vault_config(config.vault_config, allow_any_vault=config.allow_any_vault)
        failpoints.install(failpoints.Failpoints.from_environment(VARIABLE, points=ALL_POINTS))
    except (VaultConfigError, ValueError) as err:
        raise StartupRefusedError(str(err)) from err
    settings = Settings(
        overlap_s=rotation_overlap,
        max_access_s=max_access_duration,
        max_request_duration_s=max_request_duration,
        max_renewals_per_second=max_renewals_per_second,
        orphan_scan_interval_s=orphan_scan_interval,
        retention_s=retention,
        workers=workers,
        verified_only=require_verified_requester,
        quotas=Quotas(
            open_requests=max_requests_per_namespace,
            database_users=max_database_users_per_namespace,
            prepared_tokens=max_prepared_tokens_per_namespace,
            targets=max_targets_per_namespace,
            issues_per_minute=max_issues_per_minute,
        ),
    )
    clusters = watcher_clusters(watcher_cluster, config)
    registry = new_server_registry()
    configured = read_catalog(catalog, named) if catalog else []
    vaults = Vaults(named, service="access")
    with access(
        ledger, vaults=vaults, configured=configured, watcher_clusters=clusters, settings=settings, clock=time.time
    ) as running:
        AccessMetrics(
            running.ledger,
            registry,
            orphan_scanner=running.orphan_scanner,
            breakers=running.breakers,
            guard=running.guard,
        )
        serve(
            config,
            running.services,
            health=running.ready,
            long_polls=running.polls,
            on_drain=running.wake,
            registry=registry,
        )


def watcher_clusters(pairs: Sequence[tuple[str, str]], config: ServerConfig) -> dict[str, str]:
    """The uid of its cluster by name of a watcher.

    Raises:
        StartupRefusedError: A watcher has none, or two.
    """
    found = dict(pairs)
    for san, uid in pairs:
        if found[san] != uid:
            raise StartupRefusedError(f"--watcher-cluster names {san} twice: one watcher is of one cluster")
    if missing := sorted(config.allow.get(_WATCHER_SERVICE, frozenset()) - found.keys()):
        raise StartupRefusedError(
            f"--allow lets {missing[0]} call WatcherService: say of which cluster it is the watcher, with"
            f" --watcher-cluster {missing[0]}=UID (kubectl get namespace kube-system -o"
            " jsonpath={.metadata.uid})"
        )
    return found


if __name__ == "__main__":
    main()
