"""Options of the servers: variables, flags, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from services.common import config
from services.common.config import ClientTls, HostPort, HostPortType, ServerConfig, StartupRefusedError
from services.common.errors import VaultSealedError

ENGINE = "leasegate.engine.v1.EngineService"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def run(
    *flags: str, error: Exception | None = None, **variables: str
) -> tuple[ServerConfig | None, dict[str, Any], Result]:
    """Start a server's command and answer what its function got."""
    got: list[tuple[ServerConfig, dict[str, Any]]] = []

    @config.server_command("engine", port=7701, help="For tests.")
    @config.option("--own", default="own default", help="An option of the process itself.")
    def main(server: ServerConfig, **rest: Any) -> None:
        got.append((server, rest))
        if error:
            raise error

    given = {f"LEASEGATE_ENGINE_{name.upper()}": value for name, value in variables.items()}
    result = CliRunner().invoke(main, flags, env=given)
    server, rest = got[0] if got else (None, {})
    return server, rest, result


def test_the_defaults_of_a_plaintext_server() -> None:
    server, rest, result = run("--plaintext-loopback")
    assert result.exit_code == 0
    expected = ServerConfig(
        process="engine", listen=HostPort("127.0.0.1", 7701), health_listen=HostPort("127.0.0.1", 7711)
    )
    assert server == expected
    assert rest == {"own": "own default"}


def test_flags_win_over_variables() -> None:
    server, rest, _ = run(
        "--listen",
        "127.0.0.1:2",
        "--own",
        "flag",
        plaintext_loopback="true",
        listen="127.0.0.1:1",
        own="variable",
        drain_grace="3",
    )
    assert server is not None
    assert (server.listen.port, rest["own"], server.drain_grace_s) == (2, "flag", 3.0)


def test_every_option_has_a_variable(tmp_path: Path) -> None:
    for name in ("cert", "key", "ca", "vaults"):
        (tmp_path / name).touch()
    server, _, result = run(
        listen="192.0.2.1:1",
        health_listen="[::]:2",
        metrics_listen="localhost:3",
        address_file=str(tmp_path / "a"),
        health_address_file=str(tmp_path / "h"),
        tls_cert=str(tmp_path / "cert"),
        tls_key=str(tmp_path / "key"),
        tls_client_ca=str(tmp_path / "ca"),
        allow=f"{ENGINE}=spiffe://leasegate/watcher {ENGINE}=spiffe://leasegate/operator a.B=c=d",
        vault_config=str(tmp_path / "vaults"),
        max_concurrent_rpcs="7",
        drain_delay="0.5",
        drain_grace="9",
        log_level="debug",
    )
    assert result.output == ""
    assert server == ServerConfig(
        process="engine",
        listen=HostPort("192.0.2.1", 1),
        health_listen=HostPort("::", 2),
        metrics_listen=HostPort("localhost", 3),
        address_file=tmp_path / "a",
        health_address_file=tmp_path / "h",
        tls=config.ServerTls(cert=tmp_path / "cert", key=tmp_path / "key", client_ca=tmp_path / "ca"),
        allow={
            ENGINE: frozenset({"spiffe://leasegate/watcher", "spiffe://leasegate/operator"}),
            "a.B": frozenset({"c=d"}),
        },
        vault_config=tmp_path / "vaults",
        max_concurrent_rpcs=7,
        drain_delay_s=0.5,
        drain_grace_s=9,
        log_level="debug",
    )


def test_allow_is_repeatable_as_a_flag() -> None:
    server, _, _ = run("--plaintext-loopback", "--allow", f"{ENGINE}=a", "--allow", f"{ENGINE}=b")
    assert server is not None
    assert server.allow == {ENGINE: frozenset({"a", "b"})}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StartupRefusedError("no good:\nfor a reason"), 2, "leasegate-engine: no good: for a reason\n"),
        (VaultSealedError("is sealed, token=hvs.CAESIabcdefgh"), 2, "leasegate-engine: is sealed, token=[hidden]\n"),
        (click.Abort(), 130, ""),
    ],
)
def test_a_start_that_is_refused_says_so_in_one_line(error: Exception, code: int, said: str) -> None:
    _, _, result = run("--plaintext-loopback", error=error)
    assert (result.exit_code, result.stderr) == (code, said)


@pytest.mark.parametrize(
    ("text", "expected", "loopback"),
    [
        ("127.0.0.1:7701", HostPort("127.0.0.1", 7701), True),
        ("127.8.0.1:0", HostPort("127.8.0.1", 0), True),
        ("[::1]:65535", HostPort("::1", 65535), True),
        ("localhost:1", HostPort("localhost", 1), True),
        ("192.0.2.1:1", HostPort("192.0.2.1", 1), False),
        ("[::]:1", HostPort("::", 1), False),
        ("leasegate-engine.leasegate-system.svc:7701", HostPort("leasegate-engine.leasegate-system.svc", 7701), False),
        ("localhost.example:1", HostPort("localhost.example", 1), False),
    ],
)
def test_addresses(text: str, expected: HostPort, loopback: bool) -> None:
    found = HostPortType().convert(text, None, None)
    assert (found, str(found), found.loopback) == (expected, text, loopback)


@pytest.mark.parametrize(
    "text", ["", ":1", "a", "a:", "a:b", "a:65536", "::1:7", "a b:1", "http://a:1", "[::1]7", "a:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not HOST:PORT"):
        HostPortType().convert(text, None, None)


def test_the_options_of_a_process_that_calls_the_services(tmp_path: Path) -> None:
    got: list[Any] = []

    @config.command("watcher", help="For tests.")
    @config.log_level_option()
    @config.client_tls_options
    def main(log_level: str, tls: ClientTls) -> None:
        got.extend((log_level, tls))

    for name in ("cert", "key", "ca"):
        (tmp_path / name).touch()
    given = {f"LEASEGATE_WATCHER_TLS_{name.upper()}": str(tmp_path / name) for name in ("cert", "key", "ca")}
    assert CliRunner().invoke(main, [], env=given).exit_code == 0
    assert got == ["info", ClientTls(cert=tmp_path / "cert", key=tmp_path / "key", ca=tmp_path / "ca")]
    refused = CliRunner().invoke(main, [])
    assert (refused.exit_code, refused.stderr) == (
        2,
        "leasegate-watcher: Missing option '--tls-cert'.\n",
    )
