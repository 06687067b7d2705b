"""What breaks other operators, each seen by running them: here none of it costs or leaves a lease.

Each test counts in Vault's list of leases and in ``pg_roles``; PostgreSQL counts by itself how many users were ever
made (crowd.py).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dev.stack.stack import LocalStack
from tests.chaos.agreement import Eyes, open_attempts
from tests.chaos.husks import end_husks
from tests.e2e.crowd import LONG_S, Crowd, Seen, at_once, crowded, restart
from tests.e2e.space import ENGINE, Space
from tests.eventually import eventually
from watcher.kube.resources import SECRET
from watcher.specs.kinds import POSTGRES_ROLE

SEED = 20261124
SOON_S = 0.030
MANY = 200


@pytest.fixture(scope="module")
def peers(stack: LocalStack) -> Iterator[Space]:
    """The namespace of all these tests; each has a role of its own in it."""
    with crowded(stack, "peers") as made:
        yield made


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)  # the time between two acts of a person is what these tests are about


def test_deleted_as_soon_as_it_was_made(peers: Space) -> None:
    """100 requests, each deleted 0 to 30 ms after it was made: nothing is made for them, nothing of them is left."""
    crowd, chance = Crowd(peers, "hasty"), random.Random(SEED)
    crowd.prepare()
    pauses = {name: chance.uniform(0, SOON_S) for name in crowd.names(100)}

    def make_and_delete(name: str) -> None:
        crowd.create(name)
        _wait(pauses[name])
        crowd.delete(name)

    at_once(make_and_delete, pauses)
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    assert crowd.made() == 0, f"seed {SEED}"


def test_deleted_as_soon_as_it_was_approved(peers: Space) -> None:
    """The same while the credential is being made: 0 to 30 ms after the approval, and some a little later."""
    crowd, chance = Crowd(peers, "fickle"), random.Random(SEED)
    crowd.prepare()
    pauses = {name: chance.uniform(0, SOON_S if number < 100 else 0.5) for number, name in enumerate(crowd.names(120))}

    def ask_and_delete(name: str) -> None:
        crowd.ask(name)
        _wait(pauses[name])
        crowd.delete(name)

    at_once(ask_and_delete, pauses)
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    print(f"seed {SEED}: {crowd.made()} of {len(pauses)} had begun to be made")
    assert 0 < crowd.made() <= len(pauses)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["access", "watcher"])
def test_killed_while_many_are_made(peers: Space, name: str) -> None:
    """SIGKILL three times while 200 are made: one lease and one database user each; deleted, none at all."""
    crowd, chance = Crowd(peers, f"killed-{name}"), random.Random(f"{SEED}-{name}")
    crowd.prepare()
    names, process = crowd.names(MANY), peers.stack.process(name)
    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(at_once, crowd.ask, names)
        for nth in sorted(chance.sample(range(10, MANY - 20), 3)):
            eventually(lambda nth=nth: crowd.made() >= nth, timeout_s=LONG_S, every_s=0.05, what=f"{nth} users")  # type: ignore[misc]
            process.kill()
            process.start()
            process.wait_ready()
        making.result()
    eventually(
        lambda: _at_rest(crowd) and crowd.all_well(names, husks=True),
        timeout_s=2 * LONG_S,
        every_s=0.5,
        what=f"seed {SEED}",
    )
    _end_husks(crowd)
    seen = crowd.all_well(names)
    print(f"seed {SEED}: {seen.made} made for {MANY}")
    at_once(crowd.delete, names)
    eventually(crowd.nothing_left, timeout_s=LONG_S, every_s=0.5)


def _at_rest(crowd: Crowd) -> bool:
    """Check that nothing is being undone."""
    mine = [row for row in open_attempts(_ledger(crowd)) if f"-{crowd.role}-" in row.database_user]
    busy = [row.state for row in mine if row.state not in ("active", "new", "token")]
    assert busy == []
    return True


def _end_husks(crowd: Crowd) -> None:
    """Revoke leases of reads that the SIGKILL broke off; each is proven to have no user (tests/chaos/husks.py)."""
    stack = crowd.space.stack

    def ask(method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = stack.vault_api().call(method, path, body or None)
        return answer.status, answer.body

    eyes = Eyes(vault=ask, postgres_url=stack.postgres_url, mounts=[crowd.space.mount])
    reported = {(body.get("status") or {})["lease"]["id"] for body in crowd.requests().values()}
    found = end_husks(eyes, crowd.leases() - reported, ledger=_ledger(crowd))
    eyes.close()
    print(f"{found.ended} leases without a user")
    assert found.wrong == []


def _ledger(crowd: Crowd) -> Path:
    return crowd.space.stack.directory / "services" / "ledger.sqlite"


def _unchanged(crowd: Crowd, before: Seen, *, written: bool = False) -> Seen:
    """Check that nothing was issued for what was granted; a request granted meanwhile shows that the watcher went on.

    Args:
        crowd: The requests.
        before: How they were.
        written: Whether somebody else wrote to the Secrets.
    """
    fence = crowd.pass_by()
    after = eventually(lambda: crowd.all_well([*before.database_users, fence]), timeout_s=LONG_S)
    assert after.made == before.made + 1
    for was, now in [(before.database_users, after.database_users), (before.leases, after.leases)] + [
        (before.versions, after.versions)
    ] * (not written):
        assert {name: now[name] for name in was} == was
    crowd.delete(fence)
    return eventually(lambda: crowd.all_well(list(before.database_users)), timeout_s=LONG_S)


def test_an_edited_label_or_annotation_costs_no_lease(peers: Space) -> None:
    """On request, role, engine, AppBindings and the Secret itself: same lease, same Secret."""
    crowd = Crowd(peers, "label")
    crowd.prepare()
    names = crowd.granted(10)
    before = crowd.all_well(names)
    edit = {"metadata": {"labels": {"team": "films"}, "annotations": {"note": "seen"}}}
    at_once(lambda name: crowd.patch(name, edit), names)
    crowd.patch(crowd.role, edit, POSTGRES_ROLE)
    for name in (ENGINE, "appbinding/vault", "appbinding/postgres-app", "secret/postgres-user-cred"):
        peers.patch(name, edit)
    between = _unchanged(crowd, before)
    at_once(lambda name: crowd.patch(name, edit | {"data": {"more": "bW9yZQ=="}}, SECRET), crowd.secrets())
    _unchanged(crowd, between, written=True)


@pytest.mark.parametrize("which", [("watcher",), ("access",), ("watcher", "access")], ids="-".join)
def test_a_restart_costs_no_lease(peers: Space, which: tuple[str, ...]) -> None:
    """No new lease and no write to a Secret."""
    crowd = Crowd(peers, "-".join(("restart", *which)))
    crowd.prepare()
    names = crowd.granted(10)
    before = crowd.all_well(names)
    restart(peers.stack, *which)
    _unchanged(crowd, before)


@pytest.mark.parametrize("how", ["approved at once", "one after the other"])
def test_one_lease_for_each(peers: Space, how: str) -> None:
    """Plain use makes one credential for each object, never a second one that is thrown away."""
    crowd = Crowd(peers, "plain" if how == "approved at once" else "single")
    crowd.prepare()
    names = crowd.names(60 if how == "approved at once" else 5)
    if how == "approved at once":
        at_once(crowd.create, names)
        at_once(crowd.approve, names)
    else:
        at_once(crowd.ask, names, hands=1)
    seen = eventually(lambda: crowd.all_well(names), timeout_s=LONG_S)
    assert seen.made == len(names)
    assert all(crowd.works(name) for name in names[:5])
    at_once(crowd.delete, names)
    eventually(crowd.nothing_left, timeout_s=LONG_S)
    assert crowd.made() == len(names)
