"""SIGKILL at every named point of the access service, with real servers: afterwards PostgreSQL has the logins that a request owns, and no other.

The process ends itself at the point (``services.access.crash``) as a kill would end it: no handler runs, no buffer is flushed. Then it is started
again, and the watcher goes on from what it holds. The wait of an adoption is cut to a second, as no read here takes longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
import yaml

from leasegate.access.v1 import lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.access import crash
from services.common.errors import LeasegateError
from tests.eventually import eventually
from tests.integration.access_world import Callee, Dar, Killed, Watcher, World, put_role, start, world
from tests.servers import Servers

UNDO = tuple(point for point in crash.POINTS if point.startswith("undo."))
SLOW = ("renew.asked", "renew.committed", "rotate.due")
REST = tuple(point for point in crash.POINTS if point not in UNDO and point not in SLOW and point not in ("claim.refused", "claim.revoked"))


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("kills")) as found:
        logins = yaml.safe_load(found.logins_file.read_text())
        logins[0]["max_request_duration"] = "1s"
        found.logins_file.write_text(yaml.safe_dump(logins))
        yield found


@dataclass
class Secret:
    """What the watcher keeps: the credential of one attempt, if any."""

    held: int = 0
    credential: lease_pb2.Credential = field(default_factory=lease_pb2.Credential)


def reconcile(dar: Dar, secret: Secret) -> bool:
    """What the watcher does with a request, once; answers whether nothing is left to do."""
    answer = dar.ensure(held=secret.held)
    if answer.next_step == watcher.NEXT_STEP_CLAIM:
        credential = dar.claim(held=secret.held)
        secret.held, secret.credential = credential.attempt, credential
        dar.acknowledge(credential.attempt)
    elif answer.next_step == watcher.NEXT_STEP_ACKNOWLEDGE:
        dar.acknowledge(secret.held)
    elif answer.next_step == watcher.NEXT_STEP_REMOVE:
        secret.held = 0
    else:
        return not answer.HasField("retry_after")
    return False


def story(dar: Dar, secret: Secret) -> None:
    """Asked for, approved, issued, lost and issued anew, ended; until the service dies."""
    dar.ensure()
    eventually(lambda: not dar.ensure().request.conditions or True)
    dar.decide()
    converge(dar, secret)
    secret.held = 0  # somebody deleted the Secret
    converge(dar, secret)
    dar.end()


def converge(dar: Dar, secret: Secret) -> None:
    """The watcher tries until nothing is left to do."""

    def done() -> bool:
        with suppress(LeasegateError):
            return reconcile(dar, secret)
        return False

    eventually(done, timeout_s=30, what="a request with nothing left to do")


@contextmanager
def running(made: World, crash_at: str = "", **options: str) -> Iterator[Killed]:
    service = start(made, crash_at=crash_at, overlap="1s", **options)
    try:
        yield service
    finally:
        service.close()


def dies(service: Killed) -> None:
    eventually(lambda: service.process.poll() is not None, timeout_s=30, what="the point")
    assert service.process.returncode == 137, service.log.read_text()[-2000:]


def owned_only(made: World, secret: Secret) -> None:
    """PostgreSQL has the login of the active attempt and no other; so has Vault's list of leases."""
    want = {secret.credential.username} if secret.held else set()
    eventually(lambda: made.logins() == want, timeout_s=30, what=f"{want} and no other login")
    eventually(lambda: len(made.leases()) == len(want), timeout_s=10, what="as many leases")
    if secret.held:
        assert made.can_log_in(secret.credential)


def recovers(made: World, dar: Dar, secret: Secret, *, ended: bool, **options: str) -> None:
    """Started again, everything comes to where it would have come; then the request is ended."""
    with running(made, **options) as service, Watcher(made, service.callee) as reader:
        put_role(made, service.callee)
        mine = dar.again(service.callee)
        if ended:
            mine.end()
        converge(mine, secret)
        owned_only(made, secret)
        mine.end()
        secret.held = 0
        owned_only(made, secret)
        eventually(lambda: not mine.end().open_attempts)
        eventually(lambda: not reader.adopters, what="adopters that are removed")


def cut_short(made: World, service: Killed, secret: Secret) -> tuple[Dar, bool]:
    """The story up to the kill; answers the request, and whether it was being ended."""
    callee: Callee = service.callee
    put_role(made, callee)
    dar, ended = Dar(callee), False
    try:
        dar.ensure()
        eventually(lambda: service.process.poll() is not None or not dar.ensure().request.open_attempts, timeout_s=5)
        dar.decide()
        for _ in range(2):
            while not reconcile(dar, secret):
                pass
            secret.held = 0
        ended = True
        dar.end()
        eventually(lambda: not dar.end().open_attempts, timeout_s=20)
    except LeasegateError:
        pass
    return dar, ended


@pytest.mark.parametrize("point", REST)
def test_killed_on_the_way(made: World, point: str) -> None:
    secret = Secret()
    with running(made, crash_at=point) as service:
        dar, ended = cut_short(made, service, secret)
        if point.startswith("endt."):
            Dar(service.callee).end()
        dies(service)
    secret.held = 0  # whether the watcher wrote it is not told: the harder case
    recovers(made, dar, secret, ended=ended)
