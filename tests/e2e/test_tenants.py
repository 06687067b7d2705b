"""A greedy namespace delays another one's approved access request by less than 5 s (attacks H5 and M3).

The address that answers nothing is in no operator's file, so that it is refused before anything is called. That calls
to a listed Vault which answers nothing leave workers to others is tested with the queues themselves
(``test_workqueue.py``, ``test_worker_pool.py``).
"""

from __future__ import annotations

import itertools
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.crowd import LONG_S, Crowd, at_once
from tests.e2e.space import ENGINE, space
from tests.eventually import eventually
from watcher.kube.client import KubeError
from watcher.specs.kinds import APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

DEAD_ENGINES = 20
FLAPS_PER_S = 10
MOST_S = 5.0
ASKED = 5
"""Access requests of the modest namespace, one after the other."""


@pytest.fixture
def greedy_requests(request: pytest.FixtureRequest) -> int:
    """How many access requests the greedy namespace has: 1,000 in the issue, 100 in the suite."""
    return int(request.config.getoption("--greedy", default=100))


@contextmanager
def silent_server() -> Iterator[int]:
    """A port whose connections are taken by the kernel, and that answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield server.getsockname()[1]


def dead_engines(crowd: Crowd, port: int) -> list[str]:
    """SecretEngines whose Vault swallows packets."""
    vault = crowd.get("vault", APP_BINDING)
    config = {"url": f"http://127.0.0.1:{port}"}
    spec = {**vault["spec"], "clientConfig": config}
    crowd.space.apply({**_kind(vault), "metadata": {"name": "dead"}, "spec": spec})
    (engine,) = crowd.space.guide("postgresSecretEngine")
    names = [f"dead-{number}" for number in range(DEAD_ENGINES)]
    for name in names:
        spec = {**engine["spec"], "vaultRef": {"name": "dead"}, "path": f"{crowd.space.mount}-{name}"}
        crowd.api.create(
            SECRET_ENGINE,
            {**_kind(engine), "metadata": {"name": name}, "spec": spec},
            namespace=crowd.space.name,
        )
    return names


def _kind(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("apiVersion", "kind")}


@contextmanager
def flapping(crowd: Crowd) -> Iterator[list[int]]:
    """The crowd's role is changed ten times a second; the list counts."""
    stop, count = threading.Event(), [0]
    usual = crowd.get(crowd.role, POSTGRES_ROLE)["spec"]["creationStatements"]

    def flap() -> None:
        for number in itertools.count():
            if stop.wait(1 / FLAPS_PER_S):
                return
            with suppress(KubeError):
                statements = [*usual, f"SELECT {number % 7};"]
                crowd.patch(crowd.role, {"spec": {"creationStatements": statements}}, POSTGRES_ROLE)
                count[0] += 1

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield count
    finally:
        stop.set()
        thread.join()


def approved_to_secret_s(crowd: Crowd) -> float:
    """Seconds from an approval to its Secret."""
    (name,) = crowd.names(1)
    crowd.create(name)
    crowd.approve(name)
    began = time.monotonic()
    eventually(lambda: any(name in key for key in crowd.secrets()), timeout_s=LONG_S, every_s=0.02)
    eventually(
        lambda: (crowd.get(name).get("status") or {}).get("secret"),
        timeout_s=LONG_S,
        every_s=0.05,
        what=f"the Secret of {name}",
    )
    return time.monotonic() - began


def test_h5_m3_a_greedy_namespace_delays_no_other(stack: LocalStack, greedy_requests: int) -> None:
    with (
        space(stack, "modest", at_once=True) as one,
        space(stack, "greedy", at_once=True) as other,
        silent_server() as port,
    ):
        modest, greedy = Crowd(one, "modest"), Crowd(other, "greedy")
        for crowd in (modest, greedy):
            crowd.space.apply(*crowd.space.guide("postgres-app", "postgresSecretEngine"))
        for crowd in (modest, greedy):
            crowd.space.phase(ENGINE, "Success")
            crowd.prepare()
        modest.pass_by()
        dead = dead_engines(greedy, port)
        names = greedy.names(greedy_requests)
        with flapping(greedy) as flaps:
            at_once(greedy.create, names)
            eventually(lambda: flaps[0] >= FLAPS_PER_S, timeout_s=LONG_S, what="a role that flaps")
            took = [approved_to_secret_s(modest) for _ in range(ASKED)]
            assert flaps[0] >= 2 * FLAPS_PER_S
        print(f"{greedy_requests} greedy requests, {flaps[0]} flaps: {', '.join(f'{each:.2f} s' for each in took)}")
        usual = [approved_to_secret_s(modest) for _ in range(2)]
        print(f"usual: {', '.join(f'{each:.2f} s' for each in usual)}")
        assert statistics.median(took) - min(usual) < MOST_S
        eventually(
            lambda: all((greedy.get(name).get("status") or {}).get("digest") for name in names[:5]),
            timeout_s=LONG_S,
            what="the greedy namespace's own access requests go on, too",
        )
        for name in dead:
            greedy.delete(name, SECRET_ENGINE)
            with suppress(KubeError):
                greedy.patch(name, {"metadata": {"finalizers": []}}, SECRET_ENGINE)
