"""A server as a process: how it starts, refuses to, and ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from services.common import errors
from services.common.rpc.channel import connect
from tests.certificates import Authority, Pair
from tests.eventually import eventually
from tests.integration.rpc_server import SERVICE, WATCHER

ROOT = Path(__file__).parents[2]
COMMAND = [
    sys.executable,
    "-c",
    "import services; from tests.integration.rpc_server import main; main()",
]  # as -m services.engine does
Request = engine_service_pb2.EnsureEngineRequest


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def environment(**variables: object) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "protos" / "gen")))
    return {"PYTHONPATH": path, **{f"LEASEGATE_ENGINE_{name.upper()}": str(value) for name, value in variables.items()}}


@dataclass(frozen=True, slots=True)
class Started:
    """A process that listens."""

    process: subprocess.Popen[str]
    folder: Path

    @property
    def address(self) -> str:
        return (self.folder / "address").read_text().strip()

    @property
    def health(self) -> str:
        return (self.folder / "health").read_text().strip()

    def logged(self) -> list[dict[str, Any]]:
        """Every line of its stderr, each of which has to be JSON."""
        return [json.loads(line) for line in (self.folder / "stderr").read_text().splitlines()]


@contextmanager
def started(folder: Path, pair: Pair, **variables: object) -> Iterator[Started]:
    folder.mkdir(exist_ok=True)
    given = {
        "listen": "127.0.0.1:0",
        "health_listen": "127.0.0.1:0",
        "address_file": folder / "address",
        "health_address_file": folder / "health",
        "tls_cert": pair.cert,
        "tls_key": pair.key,
        "tls_client_ca": pair.ca,
        "allow": f"{SERVICE}={WATCHER} {SERVICE}=spiffe://leasegate/operator",
        "drain_delay": 0,
    }
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(COMMAND, env=environment(**given | variables), cwd=folder, stderr=stderr, text=True)
    try:
        eventually(lambda: (folder / "health").exists() or process.poll() is not None, timeout_s=30, every_s=0.02)
        assert process.poll() is None, (folder / "stderr").read_text()
        yield Started(process, folder)
    finally:
        process.kill()
        process.wait()


@contextmanager
def held_call(server: Started, ca: Authority, name: str = "held") -> Iterator[list[object]]:
    """A call that is under way until the file ``release`` is there; the list gets its answer or error."""
    folder = server.folder / name
    folder.mkdir()
    outcome: list[object] = []

    def call() -> None:
        with connect(server.address, tls=ca.client(WATCHER).client()) as channel:
            try:
                outcome.append(
                    engine_service_pb2_grpc.EngineServiceStub(channel)
                    .EnsureEngine(Request(mount=f"hold:{folder}"))
                    .mount
                )
            except errors.LeasegateError as err:
                outcome.append(err)

    thread = threading.Thread(target=call)
    thread.start()
    eventually((folder / "entered").exists, every_s=0.02)
    yield outcome
    (folder / "release").touch()
    thread.join()


def test_a_call_under_way_ends_well_on_sigterm_and_new_ones_are_refused(tmp_path: Path, ca: Authority) -> None:
    with started(tmp_path / "run", ca.server(), drain_delay=0.5) as server:
        with held_call(server, ca) as outcome, grpc.insecure_channel(server.health) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            seen = [next(watch).status]
            server.process.send_signal(signal.SIGTERM)
            while seen[-1] != health_pb2.HealthCheckResponse.NOT_SERVING or len(seen) == 1:
                seen.append(next(watch).status)
            eventually(lambda: refused(server, ca), every_s=0.05)
            assert server.process.poll() is None
        assert outcome == [f"hold:{server.folder / 'held'}"]
        assert server.process.wait(timeout=20) == 0
        events = [line["event"] for line in server.logged()]
    assert events[-2:] == ["rpc", "drained"]


def refused(server: Started, ca: Authority) -> bool:
    with connect(server.address, tls=ca.client(WATCHER, "late").client()) as channel:
        try:
            engine_service_pb2_grpc.EngineServiceStub(channel).EnsureEngine(Request(), timeout=2)
        except errors.PeerUnavailableError:
            return True
        return False


def test_the_grace_is_bounded(tmp_path: Path, ca: Authority) -> None:
    with started(tmp_path / "run", ca.server(), drain_grace=0.3) as server, held_call(server, ca) as outcome:
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: outcome)
        assert isinstance(outcome[0], errors.PeerUnavailableError)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, ca: Authority, number: signal.Signals) -> None:
    with started(tmp_path / "run", ca.server()) as server, held_call(server, ca):
        server.process.send_signal(number)
        eventually(lambda: "draining" in (server.folder / "stderr").read_text(), every_s=0.02)
        server.process.send_signal(number)
        assert server.process.wait(timeout=10) == 128 + number


def test_every_log_line_is_json_and_a_secret_in_an_exception_is_in_none(tmp_path: Path, ca: Authority) -> None:
    canary = "hvs.CAESIJcanary0123456789"
    with started(tmp_path / "run", ca.server()) as server:
        with connect(server.address, tls=ca.client(WATCHER).client()) as channel:
            stub = engine_service_pb2_grpc.EngineServiceStub(channel)
            with pytest.raises(errors.InternalError) as internal:
                stub.EnsureEngine(
                    Request(mount=f"fail:Vault said {canary}, password=canary-7 sorry"),
                    metadata=(("x-request-id", "r-1"),),
                )
        stranger = Authority(tmp_path / "other").client(WATCHER).client(ca=ca.ca)
        with connect(server.address, tls=stranger) as channel, pytest.raises(errors.PeerUnavailableError):
            engine_service_pb2_grpc.EngineServiceStub(channel).EnsureEngine(Request(), timeout=5)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        lines, text = server.logged(), (server.folder / "stderr").read_text()
    assert "canary" not in text + repr(internal.value.metadata) + str(internal.value)
    found = [line for line in lines if line.get("request_id") == "r-1"]
    assert [line["event"] for line in found] == ["unexpected error", "rpc"]
    assert found[0]["error_id"] == internal.value.metadata["error_id"]
    assert "RuntimeError: Vault said [hidden], password=[hidden] sorry" in found[0]["exception"]
    assert (found[1]["code"], found[1]["caller"], found[1]["process"], found[1]["level"]) == (
        "INTERNAL",
        WATCHER,
        "engine",
        "info",
    )


def refusal(**variables: object) -> str:
    """Start with these options, see it refuse in one line with exit code 2, and answer the line."""
    done = subprocess.run(
        COMMAND, env=environment(**variables), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("leasegate-engine: ")
    return done.stderr


def test_a_second_server_on_the_port_is_refused(tmp_path: Path, ca: Authority) -> None:
    pair = ca.server()
    with started(tmp_path / "run", pair) as server:
        files = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": pair.ca}
        taken = refusal(**files, listen=server.address, health_listen="127.0.0.1:0")
        assert f"--listen {server.address}: Address already in use" in taken
        for flag in ("health_listen", "metrics_listen"):
            free = {"listen": "127.0.0.1:0", "health_listen": "127.0.0.1:0"}
            assert "Address already in use" in refusal(**files, **free | {flag: server.health})


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "--tls-cert, --tls-key and --tls-client-ca are required"),
        ({"plaintext_loopback": 1, "listen": "0.0.0.0:0"}, "--listen 0.0.0.0:0 is none"),
        ({"plaintext_loopback": 1, "listen": "somehost:1"}, "loopback addresses only"),
        ({"tls_cert": "{cert}"}, "--tls-key and --tls-client-ca not given"),
        (
            {"tls_cert": "{cert}", "tls_key": "{key}", "tls_client_ca": "{ca}", "plaintext_loopback": 1},
            "exclude each other",
        ),
        (
            {"tls_cert": "/nowhere/x.crt", "tls_key": "{key}", "tls_client_ca": "{ca}"},
            "'/nowhere/x.crt' does not exist",
        ),
        (
            {"tls_cert": "{cert}", "tls_key": "{ca}", "tls_client_ca": "{ca}"},
            "are no PEM certificate and its unencrypted private key",
        ),
        (
            {"tls_cert": "{cert}", "tls_key": "{other}", "tls_client_ca": "{ca}"},
            "are no PEM certificate and its unencrypted private key",
        ),
        ({"tls_cert": "{cert}", "tls_key": "{key}", "tls_client_ca": "{key}"}, "holds no PEM certificate"),
        (
            {"tls_cert": "{cert}", "tls_key": "{key}", "tls_client_ca": "{ca}", "allow": f"{SERVICE}=plaintext"},
            "--plaintext-loopback only",
        ),
        (
            {"plaintext_loopback": 1, "allow": "leasegate.roles.v1.RoleService=x"},
            "serves only leasegate.engine.v1.EngineService",
        ),
        ({"plaintext_loopback": 1, "allow": "EngineService"}, "is not SERVICE=SAN"),
        ({"plaintext_loopback": 1, "listen": "127.0.0.1"}, "is not HOST:PORT"),
        ({"plaintext_loopback": 1, "listen": "127.0.0.1:70000"}, "is not HOST:PORT"),
        (
            {"plaintext_loopback": 1, "health_listen": "nowhere.invalid:1", "listen": "127.0.0.1:0"},
            "--health-listen nowhere.invalid:1: ",
        ),
        ({"plaintext_loopback": 1, "max_concurrent_rpcs": "many"}, "'many' is not a valid integer"),
        ({"plaintext_loopback": 1, "max_concurrent_rpcs": 0}, "not in the range"),
        ({"plaintext_loopback": 1, "drain_grace": -1}, "not in the range"),
        ({"plaintext_loopback": 1, "log_level": "loud"}, "'loud' is not one of"),
        ({"plaintext_loopback": 1, "vault_config": "/nowhere.yaml"}, "'/nowhere.yaml' does not exist"),
        ({"plaintext_loopback": 1, "vault_config": "/\x1b]0;t\x07\u202e"}, r"'/\x1b]0;t\x07\u202e' does not exist"),
        (
            {
                "plaintext_loopback": 1,
                "listen": "127.0.0.1:0",
                "health_listen": "127.0.0.1:0",
                "address_file": "/nowhere/address",
            },
            "there is no folder /nowhere",
        ),
    ],
)
def test_bad_options_are_refused_in_one_line(ca: Authority, variables: dict[str, object], said: str) -> None:
    pair, other = ca.server(), ca.client(WATCHER)
    files = {"cert": pair.cert, "key": pair.key, "ca": pair.ca, "other": other.key}
    assert said in refusal(
        **{name: value.format(**files) if isinstance(value, str) else value for name, value in variables.items()}
    )


def test_an_unknown_flag_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [*COMMAND, "--nothing"], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--nothing" in done.stderr


def test_help_explains_every_option_with_its_variable() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    flags = [
        line.split()[0] for line in done.stdout.splitlines() if line.strip().startswith("--") and "--help" not in line
    ]
    assert len(flags) > 10
    text = done.stdout.replace("\n", "").replace(" ", "")
    for flag in flags:
        assert f"LEASEGATE_ENGINE_{flag[2:].upper().replace('-', '_')}" in text
