"""``python -m watcher`` as a process: it starts or says in one line why not, answers probes, and ends cleanly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.stack.stack import LocalStack
from tests.certificates import Authority
from tests.eventually import eventually
from tests.integration.watcher_stack import ROOT, Services, watcher_kubeconfig


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A cluster of its own, as the watcher looks after everything that is in it."""
    with LocalStack.start(tmp_path_factory.mktemp("cluster"), services=False) as running:
        yield running


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The three services behind mTLS, played."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.client()
    services = Services(tls=authority.server().server())
    services.start()
    yield services
    services.stop()


@pytest.fixture
def options(cluster: LocalStack, services: Services) -> dict[str, str]:
    """Everything that it needs."""
    assert services.tls is not None
    folder = services.tls.cert.parent
    given = {name.upper(): str(address) for name, address in services.addresses.items()}
    given |= {
        "TLS_CERT": str(folder / "client.crt"),
        "TLS_KEY": str(folder / "client.key"),
        "TLS_CA": str(services.tls.client_ca),
    }
    given |= {
        "ALLOW_ANY_VAULT": "true",
        "HEALTH_LISTEN": "127.0.0.1:0",
        "METRICS_LISTEN": "127.0.0.1:0",
        "SERVICE_ADDRESS": "*/vault=127.0.0.1:8200 demo/db=[::1]:5432",
    }
    return {"KUBECONFIG": str(watcher_kubeconfig(cluster))} | {
        f"LEASEGATE_WATCHER_{name}": value for name, value in given.items()
    }


def environment(options: dict[str, str]) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "protos" / "gen")))} | options


@contextmanager
def process(options: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stderr:
        running = subprocess.Popen([sys.executable, "-m", "watcher"], env=environment(options), stderr=stderr, cwd=ROOT)
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(10)


def addresses(log: Path) -> tuple[str, str]:
    """Where health and metrics are, as it logs them."""
    found = eventually(
        lambda: re.search(r'"health": "([^"]+)", "metrics": "([^"]+)"', log.read_text()), what="its addresses"
    )
    assert found is not None
    return found[1], found[2]


def status(address: str, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_becomes_ready_and_ends_cleanly(options: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "watcher.log"
    with process(options, log) as running:
        health, metrics = addresses(log)
        assert status(health, "/healthz") == 200
        assert status(health, "/other") == 404
        eventually(lambda: status(health, "/readyz") == 200, what="readiness")
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'workqueue_depth{name="access_requests"} 0.0' in text
        assert 'workqueue_depth{name="events"} 0.0' in text
        assert "leasegate_watcher_ready 1.0" in text
        running.send_signal(number)
        assert running.wait(15) == 0
    assert '"stopping"' in log.read_text()


def test_it_listens_on_ipv6(options: dict[str, str], tmp_path: Path) -> None:
    """As a cluster of IPv6 alone needs it (field report 25)."""
    log = tmp_path / "watcher.log"
    there = {"LEASEGATE_WATCHER_HEALTH_LISTEN": "[::1]:0", "LEASEGATE_WATCHER_METRICS_LISTEN": "[::1]:0"}
    with process(options | there, log):
        for address, path in zip(addresses(log), ("/healthz", "/metrics"), strict=True):
            assert address.startswith("[::1]:")
            assert status(address, path) == 200


def test_it_is_not_ready_before_access_answers(options: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "watcher.log"
    with process(options | {"LEASEGATE_WATCHER_ACCESS": "127.0.0.1:1"}, log):
        health, _ = addresses(log)
        eventually(lambda: "change feed disconnected" in log.read_text(), what="a poll of the change feed")
        assert (status(health, "/healthz"), status(health, "/readyz")) == (200, 503)


@pytest.mark.parametrize(
    ("audience", "by", "says"),
    [
        ("https://kubernetes.default.svc", "admin", "is an audience of the API server"),
        ("https://kubernetes.default.svc", "watcher", "cannot be tried: .*for the audience leasegate-vault alone"),
        ("another", "watcher", "cannot be tried: .*deploy/policies/tokens.yaml"),
        ("", "watcher", "--token-audience is empty"),
    ],
)
def test_it_refuses_an_audience_of_the_api_server(
    cluster: LocalStack, options: dict[str, str], audience: str, by: str, says: str
) -> None:
    """H4, F7: it tries the audience with a token of its own, whoever it runs as."""
    changes = {"LEASEGATE_WATCHER_TOKEN_AUDIENCE": audience}
    if by == "admin":
        changes["KUBECONFIG"] = str(cluster.kubeconfig)
    done = subprocess.run(
        [sys.executable, "-m", "watcher", f"--token-audience={audience}"],
        env=environment(options | changes),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, bool(re.search(says, done.stderr))) == (2, True), done.stderr


def test_an_audience_that_is_vaults_alone_passes_as_any_user(
    cluster: LocalStack, options: dict[str, str], tmp_path: Path
) -> None:
    """Also where the watcher runs as a user that is no ServiceAccount."""
    log = tmp_path / "watcher.log"
    with process(options | {"KUBECONFIG": str(cluster.kubeconfig)}, log):
        health, _ = addresses(log)
        eventually(lambda: status(health, "/readyz") == 200, what="readiness")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"KUBECONFIG": "/nowhere"}, "--kubeconfig"),
        ({"LEASEGATE_WATCHER_TEAM_AUTH_METHODS": "kubernetes,ldap"}, "there are kubernetes, token"),
        ({"LEASEGATE_WATCHER_TEAM_SERVICE_ACCOUNTS": "vault,Not A Name"}, "team-service-accounts"),
        (
            {"LEASEGATE_WATCHER_SERVICE_ADDRESS": "vault=127.0.0.1:1"},
            "--service-address 'vault=127.0.0.1:1' is not NS/NAME=HOST:PORT",
        ),
        ({"LEASEGATE_WATCHER_SERVICE_ADDRESS": "*/vault=nowhere"}, "is not HOST:PORT"),
        ({"LEASEGATE_WATCHER_CLUSTER_NAME": "Not A Name"}, "--cluster-name"),
        ({"LEASEGATE_WATCHER_ENGINE": "nowhere"}, "is not HOST:PORT"),
        ({"LEASEGATE_WATCHER_TLS_CERT": "/nowhere.crt"}, "tls-cert"),
        ({"LEASEGATE_WATCHER_RESYNC_INTERVAL": "0"}, "resync"),
        ({"LEASEGATE_WATCHER_HEALTH_LISTEN": "127.0.0.1:1"}, "--health-listen"),
    ],
)
def test_it_says_in_one_line_why_it_does_not_start(options: dict[str, str], changes: dict[str, str], says: str) -> None:
    if os.geteuid() == 0 and "HEALTH_LISTEN" in str(changes):
        changes = {
            "LEASEGATE_WATCHER_HEALTH_LISTEN": "192.0.2.1:1"
        }  # root may bind port 1, nobody an address of another machine
    done = subprocess.run(
        [sys.executable, "-m", "watcher"],
        env=environment(options | changes),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_its_help_explains_every_option(options: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "watcher", "--help"],
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=True,
    )
    for flag in (
        "--kubeconfig", "--engine", "--roles", "--access", "--tls-cert", "--tls-key", "--tls-ca", "--cluster-name",
        "--service-address", "--token-audience", "--team-service-accounts", "--team-auth-methods",
        "--finalizer-timeout", "--resync-interval", "--health-listen",
        "--metrics-listen", "--log-level",
    ):  # fmt: skip
        assert flag in done.stdout
    assert "LEASEGATE_WATCHER_SERVICE_ADDRESS" in done.stdout
