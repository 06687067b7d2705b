"""SIGKILL at every failpoint of the access service, on real servers: afterwards only owned database users exist.

The process ends itself at the point (``services.access.domain.failpoints``) as a kill would end it: no handler runs, no
buffer is flushed. Then it is started again, and the watcher continues from what its Secret has. The wait of a recovery
is cut to a second, as no read here takes longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
import yaml

from leasegate.access.v1 import access_request_pb2, lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.access.domain import failpoints
from services.access.requests import reassess
from services.common.errors import ApprovalRequiredError, ConflictError, LeasegateError
from tests.eventually import eventually
from tests.integration.access_world import CREATE, ROLE, Dar, Killed, Watcher, World, put_role, start, world
from tests.servers import real_servers
from tests.vaults import write

CLAIMING = ("ensure.committed:2", *(point for point in failpoints.POINTS if point.startswith("claim.")))
"""Where a kill differs if the decision and the claim are one call, whose first commit is the second of its request."""
RECOVER = tuple(point for point in failpoints.POINTS if point.startswith("recover."))
TWICE = (
    *RECOVER,
    *(
        f"{point}:2"
        for point in RECOVER
        if point not in ("recover.begun", "recover.accessor", "recover.first", "recover.closed")
    ),
)
REVOKE_TOKEN = ("revoke_token.revoked",)
GIVING_BACK = ("claim.refused", "claim.revoked")
SLOW = ("renew.asked", "renew.committed", "rotate.due")
STEP = "reassess.step"
ELSEWHERE = {*RECOVER, *REVOKE_TOKEN, *GIVING_BACK, *SLOW, STEP}
REST = tuple(point for point in failpoints.POINTS if point not in ELSEWHERE)
SLOW_ROLE, SHORT_ROLE = "k8s.-.demo.slow-role", "k8s.-.demo.short-role"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with real_servers() as servers, world(servers, tmp_path_factory.mktemp("kills")) as found:
        named = yaml.safe_load(found.vault_config_file.read_text())["vaults"]
        write(found.vault_config_file, named[0] | {"maxRequestDuration": "1s"})
        yield found


@pytest.fixture(autouse=True)
def nothing_left(made: World) -> Iterator[None]:
    """Each test begins with an empty ledger and no database user."""
    yield
    for part in made.folder.glob(f"{made.ledger.name}*"):
        part.unlink()
    made.servers.must("POST", f"sys/leases/revoke-force/{made.mount}/creds")
    for user in made.database_users():
        made.servers.psql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')


@dataclass
class Secret:
    """What the watcher keeps: the credential of one attempt, if any."""

    secret_attempt: int = 0
    credential: lease_pb2.Credential = field(default_factory=lease_pb2.Credential)


def reconcile(dar: Dar, secret: Secret, *, at_once: bool = True) -> bool:
    """What the watcher does with a request, once; answers whether nothing is left to do.

    With ``at_once`` it claims in the same call, as it does, else in a call of its own, as an older one does.
    """
    answer = dar.ensure(secret_attempt=secret.secret_attempt, claim=at_once)
    if answer.next_step == watcher.NEXT_STEP_CLAIM:
        credential = dar.claimed(answer, secret_attempt=secret.secret_attempt)
        secret.secret_attempt, secret.credential = credential.attempt, credential
        dar.acknowledge(credential.attempt)
    elif answer.next_step == watcher.NEXT_STEP_ACKNOWLEDGE:
        dar.acknowledge(secret.secret_attempt)
    elif answer.next_step == watcher.NEXT_STEP_REMOVE and secret.secret_attempt:
        secret.secret_attempt = 0
    else:
        return not answer.HasField("retry_after")
    return False


def converge(dar: Dar, secret: Secret) -> None:
    """The watcher tries until nothing is left to do."""

    def done() -> bool:
        with suppress(LeasegateError):
            return reconcile(dar, secret)
        return False

    eventually(done, timeout_s=30, what="a request with nothing left to do")


@contextmanager
def running(made: World, crash_at: str = "", **options: str) -> Iterator[Killed]:
    service = start(made, crash_at=crash_at, **{"rotation-overlap": "1s"}, **options)
    try:
        yield service
    finally:
        service.close()


def dies(service: Killed) -> None:
    eventually(lambda: service.process.poll() is not None, timeout_s=30, what="the point")
    assert service.process.returncode == 137, service.log.read_text()[-2000:]


def owned_only(made: World, secret: Secret) -> None:
    """PostgreSQL has the database user of the active attempt and no other; so has Vault's list of leases."""
    credentials = [secret.credential] if secret.secret_attempt else []
    want = {credential.username for credential in credentials}
    eventually(lambda: made.database_users() == want, timeout_s=60, what=f"{want} and no other database user")
    leases_of_nobody_else(made, credentials)


def leases_of_nobody_else(made: World, credentials: list[lease_pb2.Credential]) -> None:
    """Vault has a lease for each credential; any other lease has no database user, which its revocation proves.

    A reader that dies at the wrong moment makes Vault keep a lease that its token does not know
    (docs/adr/0025-lease-without-a-user.md), so that neither the token's end nor any name leads to it. Its database user
    is recovered and dropped; the lease itself stays until its TTL.
    """
    found = {
        f"{made.mount}/creds/{role}/{lease}" for role in (ROLE, SLOW_ROLE, SHORT_ROLE) for lease in made.leases(role)
    }
    mine = {credential.lease.lease_id for credential in credentials}
    assert mine <= found
    for lease in found - mine:
        made.servers.must("POST", "sys/leases/revoke", lease_id=lease, sync=True)
    eventually(lambda: made.database_users() == {credential.username for credential in credentials}, timeout_s=60)
    assert all(made.can_log_in(credential) for credential in credentials)


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
        secret.secret_attempt = 0
        owned_only(made, secret)
        eventually(lambda: not mine.end().open_attempts)
        eventually(lambda: not reader.cleanup_roles, what="cleanup roles that are removed")


def life(dar: Dar, secret: Secret, *, at_once: bool) -> Iterator[None]:
    """The whole life of a request, step by step: created, approved, issued, its Secret lost, issued again, deleted."""
    dar.ensure()
    yield
    dar.decided() if at_once else dar.decide()
    yield
    for _ in range(2):
        while not reconcile(dar, secret, at_once=at_once):
            yield
        secret.secret_attempt = 0  # somebody deletes the Secret
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=20)


def lives_until(service: Killed, dar: Dar, secret: Secret, *, at_once: bool = True) -> None:
    """Live until the service dies."""
    with suppress(LeasegateError):
        for _ in life(dar, secret, at_once=at_once):
            pass
    eventually(lambda: service.process.poll() is not None, timeout_s=30, what="the point")
    assert service.process.returncode == 137, service.log.read_text()[-2000:]


@pytest.mark.parametrize(
    ("point", "at_once"),
    [*((point, False) for point in REST), *((point, True) for point in CLAIMING if point not in GIVING_BACK)],
)
def test_killed_on_the_way(made: World, point: str, at_once: bool) -> None:
    secret = Secret()
    with running(made, crash_at=point) as service:
        put_role(made, service.callee)
        dar = Dar(service.callee)
        lives_until(service, dar, secret, at_once=at_once)
    secret.secret_attempt = 0  # the harder case: what was answered did not come to be kept
    recovers(made, dar, secret, ended=point.startswith("revoke."))


@pytest.mark.parametrize("point", REVOKE_TOKEN)
def test_killed_while_a_token_is_ended(made: World, point: str) -> None:
    with running(made, crash_at=point) as service:
        put_role(made, service.callee)
        dar = Dar(service.callee)
        dar.ensure()
        with suppress(LeasegateError):
            dar.end()
        dies(service)
    recovers(made, dar, Secret(), ended=True)


@pytest.mark.parametrize("point", TWICE)
def test_killed_while_a_database_user_is_recovered(made: World, point: str) -> None:
    """The first kill leaves a database user whose lease is not in the ledger; the second one hits its recovery."""
    secret = Secret()
    with running(made, crash_at="claim.read") as service:
        put_role(made, service.callee)
        dar = Dar(service.callee)
        lives_until(service, dar, secret)
    with running(made, crash_at=point) as service, Watcher(made, service.callee):
        dies(service)
    recovers(made, dar, secret, ended=False)


@pytest.mark.parametrize("point", GIVING_BACK)
def test_killed_while_a_reader_gives_back(made: World, point: str) -> None:
    """Denied while the credential is read: its lease is refused, and the reader revokes it."""
    made.write_role(SLOW_ROLE, create=[*CREATE, "SELECT pg_sleep(0.7);"])
    with running(made, crash_at=point) as service:
        put_role(made, service.callee, name="slow-role")
        dar = Dar(service.callee, role="slow-role")
        dar.ensure()
        dar.decide()
        claiming = threading.Thread(target=lambda: _quietly(dar.claim))
        claiming.start()
        eventually(lambda: dar.ensure().access_request.access_state == access_request_pb2.ACCESS_STATE_ISSUING)
        dar.decide("DENIED")
        dies(service)
        claiming.join(timeout=10)
    recovers(made, dar, Secret(), ended=False)


@pytest.mark.parametrize("after_s", [0.05, 0.4])
def test_killed_while_vault_creates_the_database_user(made: World, after_s: float) -> None:
    """Vault goes on without its client, or stops and leaves a database user without a lease (docs/safety.md)."""
    made.write_role(SLOW_ROLE, create=[*CREATE, "SELECT pg_sleep(0.5);"])
    with running(made) as service:
        put_role(made, service.callee, name="slow-role")
        dar = Dar(service.callee, role="slow-role")
        dar.ensure()
        dar.decide()
        claiming = threading.Thread(target=lambda: _quietly(dar.claim))
        claiming.start()
        eventually(
            lambda: dar.ensure().access_request.access_state == access_request_pb2.ACCESS_STATE_ISSUING, every_s=0.01
        )
        threading.Event().wait(after_s)  # into the read
        service.kill()
        claiming.join(timeout=10)
    recovers(made, dar, Secret(), ended=False)


@pytest.mark.parametrize("point", SLOW)
def test_killed_while_a_credential_is_kept_alive(made: World, point: str) -> None:
    made.write_role(SHORT_ROLE, ttl="4s", max_ttl="12s")
    secret = Secret()
    with running(made, crash_at=point) as service:
        put_role(made, service.callee, name="short-role", ttl_s=4, max_ttl_s=12)
        dar = Dar(service.callee, role="short-role")
        dar.ensure()
        dar.decide()
        converge(dar, secret)
        dies(service)
    recovers(made, dar, secret, ended=True)


def test_killed_while_a_changed_role_is_reassessed(made: World) -> None:
    """The next process goes on: what nobody acknowledged is revoked, and the former approval never counts."""
    many = reassess.MANY + reassess.STEP + 10
    with running(made, crash_at=STEP) as service:
        put_role(made, service.callee)
        dars = sorted((Dar(service.callee) for _ in range(many)), key=lambda dar: dar.uid)
        before = {dar.uid: dar.ensure().access_request.digest for dar in dars}
        last = dars[-1]
        last.decide()
        credential = last.claim()
        assert made.can_log_in(credential)
        with suppress(LeasegateError):
            put_role(made, service.callee, max_ttl_s=1800)
        dies(service)
    with running(made) as service:
        with pytest.raises((ApprovalRequiredError, ConflictError)):
            last.again(service.callee).acknowledge(credential.attempt)
        eventually(lambda: not made.database_users(), timeout_s=30, what="the last credential revoked")
        assert all(dar.again(service.callee).ensure().access_request.digest != before[dar.uid] for dar in dars)


def _quietly(call: Callable[[], object]) -> None:
    with suppress(LeasegateError):
        call()


def test_killed_while_many_are_made(made: World) -> None:
    """Each access request has one database user afterwards, and Vault's list of leases agrees."""
    many = 24
    with running(made) as service:
        put_role(made, service.callee)
        requests = [(Dar(service.callee), Secret()) for _ in range(many)]
        for number, (dar, _) in enumerate(requests):
            dar.ensure()
            dar.decide() if number % 2 else dar.decided()
        claiming = [threading.Thread(target=_claim_each, args=(requests[part::6],)) for part in range(6)]
        for each in claiming:
            each.start()
        eventually(lambda: len(made.database_users()) > many // 4, every_s=0.005)
        service.kill()
        for each in claiming:
            each.join(timeout=20)
    with running(made) as service, Watcher(made, service.callee) as reader:
        put_role(made, service.callee)
        again = [(dar.again(service.callee), secret) for dar, secret in requests]
        for dar, secret in again:
            converge(dar, secret)
        want = {secret.credential.username for _, secret in again}
        assert len(want) == many
        eventually(lambda: made.database_users() == want, timeout_s=30, what="one database user for each request")
        leases_of_nobody_else(made, [secret.credential for _, secret in again])
        for dar, _ in again:
            dar.end()
        eventually(lambda: not made.database_users(), timeout_s=30)
        eventually(lambda: not any(dar.end().open_attempts for dar, _ in again), timeout_s=30)
        eventually(lambda: not reader.cleanup_roles)


def _claim_each(requests: list[tuple[Dar, Secret]]) -> None:
    with suppress(LeasegateError):
        for dar, secret in requests:
            credential = dar.claimed(dar.ensure(claim=True))
            secret.secret_attempt, secret.credential = credential.attempt, credential
            dar.acknowledge(credential.attempt)
