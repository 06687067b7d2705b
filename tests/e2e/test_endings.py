"""How access ends while something is in the way: Vault, its policy or PostgreSQL away, users in use, an engine gone.

The request goes at once, its database user as soon as possible, conditions say all of it, and no user stays.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import pytest

from dev.stack.stack import LocalStack
from tests.e2e.crowd import LONG_S, Crowd, apart, at_once, crowded
from tests.e2e.space import Space
from tests.eventually import eventually
from watcher.specs.kinds import POSTGRES_ROLE, SECRET_ENGINE

STRICT = ['REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}";', 'DROP ROLE "{{name}}";']
MANY = 6


@contextmanager
def _stopped(stack: LocalStack) -> Iterator[None]:
    stack.stop_vault()
    try:
        yield
    finally:
        stack.start_vault()


@contextmanager
def _hanging(stack: LocalStack) -> Iterator[None]:
    """It takes connections and never answers."""
    pid = stack.process("bao").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def _sealed(stack: LocalStack) -> Iterator[None]:
    stack.seal()
    try:
        yield
    finally:
        stack.unseal()


@contextmanager
def _without_right(stack: LocalStack) -> Iterator[None]:
    """The access service may not revoke, neither by lease nor by token."""
    path, vault = "sys/policies/acl/leasegate-access", stack.vault_api()
    policy = str(vault.call("GET", path).body["data"]["policy"])
    less = re.sub(r'path "(sys/leases/revoke/|auth/token/revoke-accessor)[^}]*}', "", policy)
    assert less != policy
    assert vault.call("POST", path, {"policy": less}).ok
    try:
        yield
    finally:
        assert vault.call("POST", path, {"policy": policy}).ok


@contextmanager
def _without_database(stack: LocalStack) -> Iterator[None]:
    stack.stop_postgres()
    try:
        yield
    finally:
        stack.start_postgres()


def _delete(crowd: Crowd, names: list[str]) -> float:
    """Delete requests and wait until Kubernetes has none of them; answers how long the slowest took, in seconds."""
    took: dict[str, float] = {}

    def one(name: str) -> None:
        began = time.monotonic()
        crowd.delete(name)
        eventually(lambda: not crowd.get(name), timeout_s=LONG_S, every_s=0.05, what=f"the end of {name}")
        took[name] = time.monotonic() - began

    at_once(one, names, hands=len(names))
    return max(took.values())


def _said(crowd: Crowd, names: list[str], *words: str) -> None:
    """Wait for an Event on each request, which is no more, that says that its user is still to be dropped, and why."""

    def reported(name: str) -> bool:
        events = crowd.events(name)
        assert any(
            event.startswith("Warning RevocationPending") and all(word in event for word in words) for event in events
        ), events
        return True

    for name in names:
        eventually(lambda name=name: reported(name), timeout_s=LONG_S)  # type: ignore[misc]


OUTAGES = {"stopped": _stopped, "hanging": _hanging, "sealed": _sealed}


@pytest.fixture(scope="module")
def waiting(stack: LocalStack) -> Iterator[Space]:
    """The namespace of all these tests; each has a role of its own in it."""
    with crowded(stack, "waiting") as made:
        yield made


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", OUTAGES)
def test_deleted_while_vault_is_away(waiting: Space, how: str) -> None:
    """Requests are deleted within seconds, users after Vault is back; role and engine wait, report why, and follow."""
    made, engine = apart(waiting, how), how
    crowd = Crowd(made, how)
    crowd.prepare()
    names = crowd.granted(MANY)
    database_users = set(crowd.all_well(names).database_users.values())
    with OUTAGES[how](made.stack):
        longest_s = _delete(crowd, names)
        print(f"Vault {how}: a request was gone after {longest_s:.1f} s at most")
        assert longest_s < 30
        crowd.delete(crowd.role, POSTGRES_ROLE)
        crowd.delete(engine, SECRET_ENGINE)
        _said(crowd, names, "database users of this request are not dropped yet")
        for name in (f"postgresrole/{crowd.role}", f"secretengine/{engine}"):
            eventually(lambda name=name: _waits(made, name), timeout_s=LONG_S)  # type: ignore[misc]
        assert crowd.secrets() == {}
        assert crowd.database_users() == database_users
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    eventually(
        lambda: not crowd.get(engine, SECRET_ENGINE) and not crowd.get(crowd.role, POSTGRES_ROLE), timeout_s=LONG_S
    )
    assert made.described() is None


def _waits(made: Space, name: str) -> bool:
    """Check that an object that is being deleted says in a condition and an Event what it waits for."""
    found = made.get(name)
    assert found.get("metadata", {}).get("deletionTimestamp"), found
    said = [f"{c['reason']} {c['message']}" for c in found["status"].get("conditions") or []]
    assert any("Vault at https://" in text for text in said), said
    assert any("Vault at https://" in text for text in made.events(name)), made.events(name)
    return True


@pytest.mark.timeout(600)
def test_deleted_while_the_right_to_revoke_is_missing(waiting: Space) -> None:
    """The requests go, their users as soon as an operator gives the right back; the Event says which right it is."""
    crowd = Crowd(waiting, "forbidden")
    crowd.prepare()
    names = crowd.granted(MANY)
    with _without_right(waiting.stack):
        longest_s = _delete(crowd, names)
        print(f"without the right: a request was gone after {longest_s:.1f} s at most")
        assert longest_s < 30
        _said(crowd, names, "sys/leases/revoke")
        assert len(crowd.database_users()) == MANY
    eventually(crowd.nothing_left, timeout_s=LONG_S)


@pytest.mark.timeout(600)
def test_deleted_while_the_database_is_away(waiting: Space) -> None:
    """Requests are deleted while Vault cannot drop users; retries are reported, and in the end no user is left."""
    crowd = Crowd(waiting, "unreached")
    crowd.prepare()
    names = crowd.granted(MANY)
    with _without_database(waiting.stack):
        longest_s = _delete(crowd, names)
        print(f"without the database: a request was gone after {longest_s:.1f} s at most")
        assert longest_s < 30
        _said(crowd, names, "cannot reach the database")
        eventually(
            lambda: _failing(waiting.stack) >= MANY, timeout_s=LONG_S, what="the work that fails, in the metrics"
        )
        assert len(crowd.leases()) == MANY
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    eventually(lambda: not _failing(waiting.stack), timeout_s=LONG_S)


def _failing(stack: LocalStack) -> float:
    with urllib.request.urlopen(f"http://{stack.metrics_addresses['access']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("leasegate_work_failing{"))


def test_users_that_own_something_in_an_open_session_are_dropped(waiting: Space) -> None:
    """PostgreSQL refuses to drop them: our own statements do it, whatever the role's are, and end the sessions."""
    crowds = [Crowd(waiting, "owner"), Crowd(waiting, "strict")]
    crowds[0].prepare()
    crowds[1].prepare(revocationStatements=STRICT)
    for crowd in crowds:
        crowd.granted(MANY)
    with _sessions(*crowds) as sessions:
        for crowd in crowds:
            at_once(crowd.delete, crowd.requests())
        for crowd in crowds:
            eventually(crowd.nothing_left, timeout_s=LONG_S)
        for session in sessions:
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")


@contextmanager
def _sessions(*crowds: Crowd) -> Iterator[list[psycopg.Connection[tuple[object, ...]]]]:
    """An open session with a temporary table for each credential."""
    opened: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        for crowd in crowds:
            for secret in crowd.secrets().values():
                user, password = (base64.b64decode(secret["data"][key]).decode() for key in ("username", "password"))
                opened.append(
                    psycopg.connect(crowd.space.stack.postgres_url, user=user, password=password, autocommit=True)
                )
                opened[-1].execute("CREATE TEMPORARY TABLE mine (a int)")
        yield opened
    finally:
        for session in opened:
            with suppress(psycopg.OperationalError):
                session.close()


def test_a_role_that_its_engine_allows_no_more(waiting: Space) -> None:
    """Nothing new is issued, and a condition says so; what there is ends, even where that needs a cleanup role."""
    made = apart(waiting, "narrowed")
    crowd = Crowd(made, "narrowed")
    crowd.prepare()
    names = crowd.granted(MANY)
    before = crowd.made()
    with _sessions(crowd):
        made.patch("secretengine/narrowed", {"spec": {"postgres": {"allowedRoles": [f"k8s.-.{made.name}.another"]}}})
        connection = f"{made.mount}/config/k8s.-.{made.name}.postgres-app"
        eventually(lambda: "another" in made.stack.bao("read", connection).stdout, timeout_s=LONG_S)
        (late,) = crowd.names(1)
        crowd.ask(late)
        assert "allowed" in made.reported(f"databaseaccessrequest/{late}", "Warning", "FailedToGetCredential")
        at_once(crowd.delete, [*names, late])
        eventually(crowd.nothing_left, timeout_s=LONG_S)
    assert crowd.made() == before


@pytest.mark.timeout(600)
def test_a_mount_removed_before_the_recovery(waiting: Space) -> None:
    """A mount removed by hand whose reads have an unknown outcome is mounted again until all users are dropped."""
    made, access = apart(waiting, "unmounted"), waiting.stack.process("access")
    crowd = Crowd(made, "unmounted")
    crowd.prepare(statements=["SELECT pg_sleep(2);"])
    names = crowd.names(MANY)
    try:
        at_once(crowd.ask, names)
        eventually(lambda: crowd.made() >= MANY, timeout_s=LONG_S, every_s=0.02, what="credentials being read")
        access.kill()
        made.stack.bao("secrets", "disable", made.mount)
        at_once(crowd.delete, names)
        crowd.delete("unmounted", SECRET_ENGINE)
    finally:
        access.start()
        access.wait_ready()
    eventually(lambda: not crowd.requests(), timeout_s=LONG_S)
    eventually(lambda: not crowd.get("unmounted", SECRET_ENGINE), timeout_s=LONG_S, what="the end of the engine")
    assert crowd.nothing_left()
    assert made.described() is None


def test_a_database_at_another_port_waits_for_the_leases(waiting: Space) -> None:
    """Host and port change only without leases: Vault would revoke them at the new place, succeed, and forget them."""
    stack = waiting.stack
    here, there = (urlsplit(str(url)) for url in (stack.postgres_url, stack.postgres_tls_url))
    app = {
        "apiVersion": "appcatalog.appscode.com/v1alpha1",
        "kind": "AppBinding",
        "metadata": {"name": "moving-app"},
        "spec": {
            "secret": {"name": "postgres-user-cred"},
            "clientConfig": {
                "url": f"postgresql://127.0.0.1:{here.port}/postgres?sslmode=disable",
                "insecureSkipTLSVerify": True,
            },
        },
    }
    waiting.apply(app)
    ref = {"name": "moving-app", "namespace": waiting.name}
    made = apart(waiting, "moving", databaseRef=ref)
    crowd = Crowd(made, "moving")
    crowd.prepare(databaseRef=ref)
    names = crowd.granted(MANY)
    before = crowd.all_well(names)
    made.patch(
        "appbinding/moving-app",
        {"spec": {"clientConfig": {"url": f"postgresql://127.0.0.1:{there.port}/postgres?sslmode=require"}}},
    )
    made.phase("secretengine/moving", "Processing", timeout_s=LONG_S)
    assert str(MANY) in made.reported("secretengine/moving", "Warning", "LeasesInUse", "use the database as it is")
    connection = f"{made.mount}/config/k8s.-.{made.name}.moving-app"
    assert f":{there.port}/" not in stack.bao("read", connection).stdout
    assert crowd.all_well(names).leases == before.leases
    at_once(crowd.delete, names)
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    made.phase("secretengine/moving", "Success", timeout_s=LONG_S)
    assert f":{there.port}/" in stack.bao("read", connection).stdout
    again = crowd.granted(1)
    at_once(crowd.delete, again)
    eventually(crowd.nothing_left, timeout_s=LONG_S)
