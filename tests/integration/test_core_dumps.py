"""No process that holds a secret leaves its memory in a file or shows it to others of its user (L)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
PLAIN_USER = () if os.getuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Before a command of root: it reads no more of other processes than a user does."""
SERVER = ("--allow-any-vault", "--plaintext-loopback", "--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0")


class Silent:
    """A server that takes connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._stack = ExitStack()

    def wait(self) -> None:
        self._stack.enter_context(self._socket.accept()[0])

    def close(self) -> None:
        self._stack.close()
        self._socket.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@contextmanager
def running(module: str, *options: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos/gen'}"} | variables
    process = subprocess.Popen(
        [*PLAIN_USER, sys.executable, "-m", module, *options], cwd=folder, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def check(process: subprocess.Popen[bytes]) -> None:
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    read = subprocess.run(
        [*PLAIN_USER, "cat", f"/proc/{process.pid}/environ"], capture_output=True, text=True, check=False
    )
    assert (read.stdout, "Permission denied" in read.stderr) == ("", True)  # as its memory and a debugger's attach


@pytest.mark.parametrize("name", ["engine", "roles", "access"])
def test_a_service_leaves_no_core_dump(name: str, tmp_path: Path) -> None:
    ledger = ("--ledger=ledger.db",) if name == "access" else ()
    options = (*SERVER, "--health-address-file=address", *ledger)
    with running(f"services.{name}", *options, folder=tmp_path) as process:
        eventually((tmp_path / "address").exists)
        check(process)


def test_the_watcher_leaves_no_core_dump(tmp_path: Path, silent: Silent) -> None:
    pair = Authority(tmp_path / "tls").client()
    (tmp_path / "config").write_text(
        f"{{clusters: [{{name: c, cluster: {{server: 'http://{silent.address}'}}}}], "
        "contexts: [{name: x, context: {cluster: c}}], current-context: x}"
    )
    options = (f"--tls-cert={pair.cert}", f"--tls-key={pair.key}", f"--tls-ca={pair.ca}", "--kubeconfig=config")
    with running("watcher", "--allow-any-vault", *options, folder=tmp_path) as process:
        silent.wait()
        check(process)


def test_leasegate_leaves_no_core_dump(tmp_path: Path, silent: Silent) -> None:
    pair = Authority(tmp_path / "tls").client()
    options = (f"--tls-cert={pair.cert}", f"--tls-key={pair.key}", f"--tls-ca={pair.ca}", f"--access={silent.address}")
    with running("cli.leasegate", "leases", *options, folder=tmp_path) as process:
        silent.wait()
        check(process)


def test_kubectl_vault_leaves_no_core_dump(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\n: > started\nexec sleep 30\n")
    kubectl.chmod(0o755)
    with running("cli.kubectl_vault", "get", "dar", folder=tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin") as process:
        eventually((tmp_path / "started").exists)
        check(process)
