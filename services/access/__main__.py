"""The process ``access``: options, and what is opened and closed in which order."""

from __future__ import annotations

import time
from pathlib import Path

import click

from services.access import crash
from services.access.catalog_file import read_catalog
from services.access.metrics import Figures
from services.access.service import access
from services.access.settings import Settings
from services.common.config import FILE, NEW_FILE, ServerConfig, StartupRefused, option, server_command
from services.common.durations import parse_seconds
from services.common.metrics import new_registry
from services.common.rpc.server import serve
from services.common.vault.own import OwnLogins, OwnLoginsError


class Span(click.ParamType[float]):
    """A span of time, such as 5m; seconds for the program."""

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


@server_command(
    "access", port=7703, help="Issues credentials to whoever was approved, keeps their leases alive, and ends them without fail."
)
@option("--ledger", type=NEW_FILE, required=True, help="SQLite file of the ledger; made and migrated if need be. One process owns it.")
@option("--catalog", type=FILE, help="YAML file with the targets and roles that callers outside Kubernetes may ask for.")
@option(
    "--max-access-duration",
    type=Span(least="1s"),
    help="Longest access of any request, counted from its first credential; no limit without it.",
)
@option("--overlap", type=Span(), default="5m", help="How long a replaced credential lives on; at most a quarter of its longest life.")
@option(
    "--max-request-duration",
    type=Span(),
    default="90s",
    help="default_max_request_duration of Vaults that --vault-logins does not name: an undo waits that long.",
)
@option(
    "--compare-every", type=Span(least="100ms"), default="15m", help="How often the ledger is compared with Vault's leases for the metrics."
)
@option(
    "--renew-rate",
    type=click.FloatRange(min=0),
    default=200.0,
    help="Most renewals that begin in a second, as when Vault comes back; 0 for no limit. What would soon be too late does not wait.",
)
@option(
    "--keep-ended", type=Span(least="1h"), default="30d", help="How long the ledger remembers what has ended, and calls that were answered."
)
@option("--workers", type=click.IntRange(2, 64), default=8, help="Threads that revoke, renew and prepare.")
def main(
    config: ServerConfig,
    *,
    ledger: Path,
    catalog: Path | None,
    max_access_duration: float | None,
    overlap: float,
    max_request_duration: float,
    compare_every: float,
    renew_rate: float,
    keep_ended: float,
    workers: int,
) -> None:
    """Serve until SIGTERM."""
    try:
        own = OwnLogins.read(config.vault_logins)
        crash.install(crash.CrashPoints.from_environment())
    except (OwnLoginsError, ValueError) as err:
        raise StartupRefused(str(err)) from err
    settings = Settings(
        overlap_s=overlap,
        max_access_s=max_access_duration,
        max_request_duration_s=max_request_duration,
        renew_rate=renew_rate,
        compare_every_s=compare_every,
        keep_ended_s=keep_ended,
        workers=workers,
    )
    registry = new_registry()
    configured = read_catalog(catalog) if catalog else []
    with access(ledger, own=own, configured=configured, settings=settings, clock=time.time) as made:
        Figures(made.ledger, registry, finder=made.finder, breakers=made.breakers, losses=made.losses)
        serve(config, made.services, health=made.ready, long_polls=made.polls, on_drain=made.wake, registry=registry)


if __name__ == "__main__":
    main()
