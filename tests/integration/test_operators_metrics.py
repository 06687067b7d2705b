"""The access service's metrics as they are scraped, and its circuit breaker, with a Vault that answers nothing."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from leasegate.access.v1 import requester_service_pb2 as requester
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    Callee,
    Dar,
    Killed,
    Watcher,
    World,
    approve,
    ask,
    in_process,
    put_role,
    start,
    world,
)  # fmt: skip
from tests.integration.operators import listing_granted
from tests.servers import Servers, real_servers
from tests.vaults import write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Servers of their own: they are killed here."""
    with real_servers() as servers, world(servers, tmp_path_factory.mktemp("figures")) as found:
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def scraped(made: World, **options: str) -> Iterator[tuple[Killed, int]]:
    """The service as a process, and the port of its metrics."""
    port = free_port()
    service = start(made, **{"metrics-listen": f"127.0.0.1:{port}", **options})
    try:
        yield service, port
    finally:
        service.close()


def scrape(port: int) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name.removeprefix("leasegate_"): float(value) for name, _, value in lines}


def test_all_metrics_are_scraped(made: World) -> None:
    with (
        listing_granted(made.servers),
        scraped(made, **{"orphan-scan-interval": "300ms"}) as (service, port),
        Watcher(made, service.callee),
    ):
        put_role(made, service.callee)
        empty = scrape(port)
        assert "next_lease_expiry_seconds" not in empty
        assert empty['leases{state="active"}'] == 0
        dars = [Dar(service.callee) for _ in range(3)]
        credentials = [dar.issue() for dar in dars]
        now = scrape(port)
        assert now['leases{state="active"}'] == 3
        assert now['attempts{state="active"}'] == 3
        assert 3500 < now["next_lease_expiry_seconds"] <= 3600
        assert now["attempts_recovered_total"] == 0
        assert now['issuance_paused{reason="LedgerMismatch"}'] == now["access_requests_paused"] == 0
        assert {f'work_due{{priority="{lane}"}}' for lane in ("revoke", "issue", "renew")} <= now.keys()
        assert {f'work_oldest_seconds{{priority="{lane}"}}' for lane in ("revoke", "issue", "renew")} <= now.keys()
        assert now["vault_circuit_open"] == 0
        eventually(lambda: scrape(port).get("orphaned_leases") == 0)
        made.servers.must("POST", f"sys/leases/revoke/{credentials[0].lease.lease_id}", sync=True)
        eventually(lambda: scrape(port)["orphaned_leases"] == 1)
        assert time.time() - scrape(port)["orphan_scan_timestamp_seconds"] < 60
        for dar in dars:
            dar.end()
        eventually(lambda: scrape(port)['leases{state="active"}'] == 0)
        assert now["leases_issued_total"] == 3
        eventually(lambda: scrape(port)["leases_revoked_total"] == 3)
        after = scrape(port)
        assert 0 <= after["lease_revocation_seconds_sum"] < 60
        assert after['vault_requests_total{code="200",operation="creds_read"}'] == 3
        assert after['vault_request_seconds_count{operation="lease_revoke"}'] >= 3
        assert not any(credential.password in service.log.read_text() for credential in credentials)


def test_work_that_fails_and_a_vault_that_is_away_are_seen(made: World) -> None:
    with scraped(made) as (service, port):
        put_role(made, service.callee)
        dar = Dar(service.callee)
        credential = dar.issue()
        made.servers.bao.process.kill()
        try:
            dar.end()
            eventually(lambda: scrape(port)["vault_circuit_open"] == 1, timeout_s=30)
            assert scrape(port)['work_failing{priority="revoke"}'] == 1
            assert scrape(port)['leases{state="revoking"}'] == 1
        finally:
            made.servers.bao.start()
        eventually(lambda: credential.username not in made.database_users(), timeout_s=30)
        eventually(lambda: scrape(port)["vault_circuit_open"] == 0)


def test_a_recovered_attempt_is_counted(made: World) -> None:
    with in_process(made):
        pass
    crashed = start(made, crash_at="claim.read")
    put_role(made, crashed.callee)
    dar = Dar(crashed.callee)
    dar.ensure()
    dar.decide()
    with pytest.raises(errors.LeasegateError):
        dar.claim()
    crashed.process.wait(10)
    crashed.callee.close()
    with scraped(made, **{"max-request-duration": "1s"}) as (service, port), Watcher(made, service.callee):
        eventually(lambda: scrape(port)["attempts_recovered_total"] == 1, timeout_s=40)
        dar.again(service.callee).end()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes every connection and answers nothing."""
    taken: list[socket.socket] = []

    def take(server: socket.socket) -> None:
        while True:
            try:
                taken.append(server.accept()[0])
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        thread = threading.Thread(target=take, args=(server,), daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for each in taken:
        each.close()


def add_vault(made: World, port: int) -> None:
    """A second Vault, with one role, in the catalog and in the configuration."""
    address = f"http://127.0.0.1:{port}"
    found = yaml.safe_load(made.vault_config_file.read_text())["vaults"]
    write(made.vault_config_file, *found, {**found[0], "name": "hole", "addresses": [address]})
    catalog = yaml.safe_load(made.catalog_file.read_text())
    catalog["targets"].append({"name": "hole", "vault": "hole"})
    catalog["roles"].append({**catalog["roles"][0], "name": "hole-reader", "target": "hole"})
    made.catalog_file.write_text(yaml.safe_dump(catalog))


def ask_there(callee: Callee) -> str:
    message = requester.CreateAccessRequestRequest(
        request_id=f"r{time.monotonic_ns()}", vault_target="hole", db_role="hole-reader", reason="x"
    )
    return str(callee.as_(ALICE).requester.CreateAccessRequest(message).access_request.id)


def test_a_vault_that_swallows_everything_hangs_nobody(servers: Servers, tmp_path: Path) -> None:
    with world(servers, tmp_path) as made, black_hole() as port:
        add_vault(made, port)
        with in_process(made, workers=4) as callee:
            there = [
                ask_there(callee) for _ in range(6)
            ]  # each has a token made beforehand, by a worker that waits in vain
            claims = callee.as_(ALICE).requester

            def fails_at_once() -> bool:
                try:
                    claims.ClaimCredential(requester.ClaimCredentialRequest(access_request_id=there[0]))
                except errors.VaultUnavailableError as err:
                    return (
                        err.retry_after_s is not None and "not asked again" in err.message
                    )  # the one that probes gets the error of the probe
                except errors.DeadlineExpiredError:
                    return False  # it waited for the Vault itself
                raise AssertionError("a Vault that swallows everything issued a credential")

            for uid in there:
                approve(callee, uid)
            eventually(fails_at_once, timeout_s=60, every_s=0.5)
            mine = ask(callee).id  # at the Vault that answers
            approve(callee, mine)
            credential = claims.ClaimCredential(requester.ClaimCredentialRequest(access_request_id=mine)).credential
            claims.ReleaseAccessRequest(requester.ReleaseAccessRequestRequest(request_id="x", access_request_id=mine))
            eventually(lambda: credential.username not in made.database_users(), timeout_s=20)  # no worker hangs
