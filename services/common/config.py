"""Options of the processes, from the environment and flags, which take precedence; parsed once into frozen dataclasses.

Every process may import this. The flag ``--x-y`` of the process engine is also the variable ``LEASEGATE_ENGINE_X_Y``.
Secrets come by file path only.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import click

from services.common import logs
from services.common.core_dumps import disable_core_dumps
from services.common.errors import LeasegateError
from services.common.texts import escaped

option = functools.partial(click.option, show_default=True, show_envvar=True)
"""``click.option`` whose help names the environment variable and the default."""

FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
PLAINTEXT = "plaintext"
"""The caller's name at a server without TLS."""

_SERVICE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*")


class StartupRefusedError(click.ClickException):
    """The process cannot start as it was asked to: one line for the person who starts it, exit code 2."""

    exit_code = 2


class HostPort(NamedTuple):
    """An address to listen on or to call."""

    host: str
    port: int

    def __str__(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it; a name other than ``localhost`` counts as reachable."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class HostPortType(click.ParamType[HostPort]):
    """``HOST:PORT`` or ``[IPV6]:PORT``."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> HostPort:
        """Parse one value."""
        if isinstance(value, HostPort):
            return value
        found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+)):(\d{1,5})", str(value).strip())
        if not found or int(found[3]) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:7701", param, ctx)
        return HostPort(found[1] or found[2], int(found[3]))


class AllowType(click.ParamType[tuple[str, str]]):
    """``SERVICE=SAN``."""

    name = "SERVICE=SAN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse one value."""
        if isinstance(value, tuple):
            return value
        service, equals, san = str(value).partition("=")
        if not equals or not san or not _SERVICE.fullmatch(service):
            self.fail(
                f"{value!r} is not SERVICE=SAN, such as leasegate.engine.v1.EngineService=spiffe://leasegate/watcher",
                param,
                ctx,
            )
        return service, san


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Files of a server's identity, and of the authority whose clients it accepts."""

    cert: Path
    key: Path
    client_ca: Path


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files of a client's identity, and of the authority whose servers it accepts.

    Attributes:
        cert: Certificate chain, PEM.
        key: Private key, PEM.
        ca: Certificates of the authority, PEM.
        server_name: Name expected in the server's certificate where it is not the host that is called.
    """

    cert: Path
    key: Path
    ca: Path
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The options that all three servers have.

    Attributes:
        process: ``engine``, ``roles`` or ``access``.
        listen: Address of the services; port 0 takes a free one.
        health_listen: Address of the plaintext health service.
        metrics_listen: Address of the metrics; None serves none.
        address_file: File that the bound address of the services is written to.
        health_address_file: File that the bound address of the health service is written to.
        tls: None only for plaintext on a loopback address.
        allow: Callers by full service name; whoever is not there is refused.
        vault_config: File that names the Vaults that may be called (``services.common.vault_config``).
        allow_any_vault: Whether every Vault may be called, without such a file.
        max_concurrent_rpcs: Calls under way beyond which the next is refused.
        drain_delay_s: Seconds between "not serving" and refusing new calls.
        drain_grace_s: Seconds that calls under way then have to end.
        log_level: One of ``logs.LEVELS``.
    """

    process: str
    listen: HostPort
    health_listen: HostPort
    metrics_listen: HostPort | None = None
    address_file: Path | None = None
    health_address_file: Path | None = None
    tls: ServerTls | None = None
    allow: Mapping[str, frozenset[str]] = field(default_factory=dict)
    vault_config: Path | None = None
    allow_any_vault: bool = False
    max_concurrent_rpcs: int = 20
    drain_delay_s: float = 1.0
    drain_grace_s: float = 20.0
    log_level: str = "info"


class OneLine(click.Command):
    """A command that says why it does not start in one line on stderr."""

    @property
    def process(self) -> str:
        """Name of the process in its logs."""
        return (self.name or "").removeprefix("leasegate-")

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; exits with 2 where the start is refused and with 1 on a defect, which is logged."""
        kwargs["standalone_mode"] = False
        disable_core_dumps()
        logs.configure(process=self.process)  # until the options say the level
        try:
            return super().main(*args, **kwargs)
        except (click.ClickException, LeasegateError) as err:
            text = err.format_message() if isinstance(err, click.ClickException) else err.message
            click.echo(f"{self.name}: {escaped(logs.scrub(' '.join(text.split())))}", err=True)
            sys.exit(2)
        except click.Abort:
            sys.exit(130)
        except Exception:
            logs.logger(__name__).exception("ended by a defect")
            sys.exit(1)


def command(process: str, *, help: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make the command of a process that is no server, with an environment prefix and one-line refusals."""
    settings = {"auto_envvar_prefix": f"LEASEGATE_{process.upper()}", "max_content_width": 120}
    return click.command(f"leasegate-{process}", cls=OneLine, help=help, context_settings=settings)


def server_command(process: str, *, port: int, help: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make the command of one of the three servers.

    The function it decorates is called with a ServerConfig, logging set up, and with what its own ``option``s gave as
    keywords.

    Args:
        process: ``engine``, ``roles`` or ``access``.
        port: Where it listens by default; health is ten above.
        help: What the process does, for ``--help``.
    """

    def decorate(fn: Callable[..., None]) -> click.Command:
        @functools.wraps(fn)
        def run(**given: Any) -> None:
            config, rest = _server_config(process, given)
            logs.configure(config.log_level, process=process)
            fn(config, **rest)

        decorated: Callable[..., None] = run
        for each in reversed(_server_options(port)):
            decorated = each(decorated)
        return command(process, help=help)(decorated)

    return decorate


def log_level_option() -> Callable[[Any], Any]:
    """The option ``--log-level``."""
    return option(
        "--log-level", type=click.Choice(logs.LEVELS), default="info", help="Least level of the JSON lines on stderr."
    )


def metrics_listen_option() -> Callable[[Any], Any]:
    """The option ``--metrics-listen``."""
    return option(
        "--metrics-listen", type=HostPortType(), help="Address of the Prometheus metrics over HTTP; none without it."
    )


def vault_options(fn: Callable[..., None]) -> Callable[..., None]:
    """Add ``--vault-config`` and ``--allow-any-vault``, of which a process takes exactly one."""
    any_vault = option(
        "--allow-any-vault",
        is_flag=True,
        help="Instead of --vault-config: call every Vault that an AppBinding names, with the AppBinding's session."
        " For trying the guide: approval can be bypassed.",
    )
    file = option(
        "--vault-config",
        type=FILE,
        help="YAML file that names the Vaults that may be called; the same for all four processes.",
    )
    return file(any_vault(fn))


def client_tls_options(fn: Callable[..., None]) -> Callable[..., None]:
    """Add ``--tls-cert --tls-key --tls-ca`` to a process that calls the services; it gets one ``tls: ClientTls``."""

    @functools.wraps(fn)
    def run(*args: Any, tls_cert: Path, tls_key: Path, tls_ca: Path, **rest: Any) -> None:
        fn(*args, tls=ClientTls(cert=tls_cert, key=tls_key, ca=tls_ca), **rest)

    decorated: Callable[..., None] = run
    for flag, text in (
        ("--tls-ca", "Authority of the services' certificates"),
        ("--tls-key", "Its private key"),
        ("--tls-cert", "Own certificate"),
    ):
        decorated = option(flag, type=FILE, required=True, help=f"{text}, a PEM file.")(decorated)
    return decorated


def _server_options(port: int) -> Sequence[Callable[[Any], Any]]:
    address = HostPortType()
    return (
        option(
            "--listen",
            type=address,
            default=f"127.0.0.1:{port}",
            help="Address of the services; port 0 takes a free one.",
        ),
        option(
            "--health-listen",
            type=address,
            default=f"127.0.0.1:{port + 10}",
            help="Address of the health service, plaintext.",
        ),
        metrics_listen_option(),
        option(
            "--address-file",
            type=NEW_FILE,
            help="File to write the bound address of the services to, once they answer.",
        ),
        option(
            "--health-address-file", type=NEW_FILE, help="File to write the bound address of the health service to."
        ),
        option("--tls-cert", type=FILE, help="Own certificate chain, a PEM file; read again when it changes."),
        option("--tls-key", type=FILE, help="Private key of the certificate, a PEM file."),
        option("--tls-client-ca", type=FILE, help="Authority of the clients' certificates, a PEM file."),
        option(
            "--plaintext-loopback",
            is_flag=True,
            help="Serve without TLS, on a loopback address only; the caller is then 'plaintext'.",
        ),
        option(
            "--allow",
            type=AllowType(),
            multiple=True,
            help="Who may call what: full service name, and the exact URI, DNS or IP name in the"
            " client's certificate. Repeat it (blanks between values in the variable)."
            " Nobody may call what is not named.",
        ),
        vault_options,
        option(
            "--max-concurrent-rpcs",
            type=click.IntRange(1, 1000),
            default=20,
            help="Calls under way beyond which the next is refused.",
        ),
        option(
            "--drain-delay",
            type=click.FloatRange(0, 300),
            default=1.0,
            help="Seconds between saying 'not serving' and refusing new calls.",
        ),
        option(
            "--drain-grace",
            type=click.FloatRange(0, 3600),
            default=20.0,
            help="Seconds that calls under way have to end when stopping.",
        ),
        log_level_option(),
    )


def _server_config(process: str, given: dict[str, Any]) -> tuple[ServerConfig, dict[str, Any]]:
    """Split what click gave into the common part, checked, and the process' own."""
    rest = dict(given)
    tls, plaintext = _server_tls(rest), rest.pop("plaintext_loopback")
    config = ServerConfig(
        process=process,
        tls=tls,
        allow=_allow(rest.pop("allow")),
        drain_delay_s=rest.pop("drain_delay"),
        drain_grace_s=rest.pop("drain_grace"),
        **{name: rest.pop(name) for name in _AS_GIVEN},
    )
    _check(config, plaintext=plaintext)
    return config, rest


_AS_GIVEN = (
    "listen", "health_listen", "metrics_listen", "address_file", "health_address_file", "vault_config",
    "allow_any_vault", "max_concurrent_rpcs", "log_level",
)  # fmt: skip


def _server_tls(rest: dict[str, Any]) -> ServerTls | None:
    files = {name: rest.pop(name) for name in ("tls_cert", "tls_key", "tls_client_ca")}
    if not any(files.values()):
        return None
    if missing := [f"--{name.replace('_', '-')}" for name, path in files.items() if not path]:
        raise StartupRefusedError(f"TLS needs its three files: {' and '.join(missing)} not given")
    return ServerTls(cert=files["tls_cert"], key=files["tls_key"], client_ca=files["tls_client_ca"])


def _allow(pairs: Sequence[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for service, san in pairs:
        found.setdefault(service, set()).add(san)
    return {service: frozenset(sans) for service, sans in found.items()}


def _check(config: ServerConfig, *, plaintext: bool) -> None:
    if plaintext and config.tls:
        raise StartupRefusedError("--plaintext-loopback and the --tls files exclude each other")
    if not plaintext and not config.tls:
        raise StartupRefusedError(
            "--tls-cert, --tls-key and --tls-client-ca are required (or --plaintext-loopback, on this machine alone)"
        )
    if plaintext and not config.listen.loopback:
        raise StartupRefusedError(
            f"--plaintext-loopback serves loopback addresses only, and --listen {config.listen} is none"
        )
    for flag, path in (("--address-file", config.address_file), ("--health-address-file", config.health_address_file)):
        if path and not path.parent.is_dir():
            raise StartupRefusedError(f"{flag} {path}: there is no folder {path.parent}")
    if not plaintext and any(PLAINTEXT in sans for sans in config.allow.values()):
        raise StartupRefusedError(f"--allow ...={PLAINTEXT} goes with --plaintext-loopback only")
