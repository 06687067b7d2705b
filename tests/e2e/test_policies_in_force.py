"""While a policy is not in force nothing new is issued, and renewal and revocation go on: real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.stack.stack import LocalStack
from tests.e2e.space import ENGINE, REQUEST, ROLE, Space, space
from tests.eventually import eventually

POLICIES = Path(__file__).parents[2] / "deploy/policies"
CONDITION = "PoliciesNotInForce"
KINDS = (ENGINE, ROLE, REQUEST, "appbinding/vault", "appbinding/postgres-app")
LATER = "databaseaccessrequest/later"


@pytest.fixture
def often(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack, whose watcher compares the policies each other second."""
    stack.set_options("watcher", resync_interval="2")
    _restart(stack)
    yield stack
    stack.set_options("watcher")
    _restart(stack)


@pytest.fixture
def guide(often: LocalStack) -> Iterator[Space]:
    """The guide's objects with a live lease of 20 seconds."""
    with space(often, "force") as made:
        objects = made.guide()
        for each in objects:
            if each["kind"] == "PostgresRole":
                each["spec"] |= {"defaultTTL": "20s", "maxTTL": "1h"}
        made.apply(*objects)
        made.granted()
        yield made


def _restart(stack: LocalStack) -> None:
    watcher = stack.process("watcher")
    watcher.terminate()
    watcher.start()
    watcher.wait_ready()


def _expiry(guide: Space) -> str:
    return str((guide.status(REQUEST).get("lease") or {}).get("expireTime"))


def _all_say(guide: Space, *, wanted: bool) -> None:
    """Wait until each kind of object has the condition, or none has it."""
    eventually(
        lambda: all(bool(guide.condition(name, CONDITION)) is wanted for name in KINDS),
        timeout_s=45,
        what=f"the condition on every object: {wanted}",
    )


def _later(guide: Space) -> None:
    """Apply and approve another access request."""
    body: dict[str, Any] = guide.guide("postgresAccessRequest")[0]
    guide.apply(body | {"metadata": {"name": "later", "namespace": guide.name}})
    eventually(lambda: guide.status(LATER).get("digest"), timeout_s=30, what="a digest")
    guide.decide("approve", "later")


def test_f18_renewal_and_revocation_go_on_and_nothing_new_is_issued(guide: Space) -> None:
    name = guide.secret_name()
    data = guide.secret(name)
    users = guide.database_users()
    guide.stack.kubectl("delete", "validatingadmissionpolicybinding/leasegate-own-decision")
    try:
        _all_say(guide, wanted=True)
        before = _expiry(guide)
        _later(guide)
        eventually(
            lambda: guide.condition(LATER, "Failed").get("reason") == CONDITION, timeout_s=30, what="why it waits"
        )
        eventually(lambda: _expiry(guide) > before, timeout_s=45, what="a renewal")
        assert guide.database_users() == users
        assert guide.user_works(data)
        guide.decide("deny")
        eventually(lambda: not guide.database_users(), timeout_s=45, what="the revocation")
        assert not guide.get(f"secret/{name}")
    finally:
        guide.stack.kubectl("apply", "--server-side", "--force-conflicts", "-R", "-f", str(POLICIES))
    _all_say(guide, wanted=False)
    assert guide.user_works(guide.secret(guide.secret_name("later")))
