"""Objects may be applied in any order and converge, and be deleted in any order and leave nothing behind."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator

import pytest

from dev.demo.story import EXAMPLES, NotSeenError, Story
from dev.stack.stack import LocalStack
from tests.eventually import eventually

APPLY = ("enabled", "postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest")
DELETE = {
    "vault": "appbinding/vault serviceaccount/vault",
    "postgres-app": "appbinding/postgres-app secret/postgres-user-cred",
    "engine": "secretengine/postgresql-engine",
    "role": "postgresrole/psql-role",
    "request": "databaseaccessrequest/postgres-cred-rqst",
}
KINDS = "secretengines,postgresroles,databaseaccessrequests,appbindings"


def _orders(names: tuple[str, ...], count: int, seed: int) -> list[tuple[str, ...]]:
    """The reverse order, which is the hardest, and others by chance."""
    every = list(itertools.permutations(names))
    return [tuple(reversed(names)), *random.Random(seed).sample(every, count - 1)]


@pytest.fixture
def story(stack: LocalStack) -> Iterator[Story]:
    """An empty namespace demo, gone again afterwards."""
    story = Story(stack)
    story.shell.ok("kubectl create ns demo")
    yield story
    story.shell.ok("kubectl delete namespace demo --timeout=60s")


def _apply(story: Story, stack: LocalStack, name: str) -> None:
    file = stack.enabled_namespace("demo") if name == "enabled" else f"{EXAMPLES}/{name}.yaml"
    story.shell.ok(f"kubectl apply -n demo -f '{file}'")


def _grant(story: Story) -> None:
    eventually(lambda: story.status().get("digest"), timeout_s=60, what="the digest of the request")
    assert story.shell.ok("kubectl vault approve databaseaccessrequest postgres-cred-rqst -n demo") == "approved"
    eventually(lambda: story.status().get("secret"), timeout_s=60, what="the Secret")


@pytest.mark.parametrize("order", _orders(APPLY, 5, 1), ids="-".join)
def test_any_order_of_apply_converges(story: Story, stack: LocalStack, order: tuple[str, ...]) -> None:
    """All of it becomes Success and is granted, whichever came first."""
    for name in order:
        _apply(story, stack, name)
    _grant(story)
    for kind in ("secretengine", "postgresrole"):
        found = json.loads(story.shell.ok(f"kubectl get {kind} -n demo -o json"))["items"]
        assert [item["status"]["phase"] for item in found] == ["Success"]
    assert len(story.database_users()) == 1


@pytest.mark.parametrize("order", _orders(tuple(DELETE), 6, 2), ids="-".join)
def test_any_order_of_delete_leaves_nothing(story: Story, stack: LocalStack, order: tuple[str, ...]) -> None:
    """Every finalizer goes, and no lease, role, mount or user is left."""
    for name in APPLY:
        _apply(story, stack, name)
    _grant(story)
    for name in order:
        story.shell.ok(f"kubectl delete -n demo --wait=false {DELETE[name]}")

    def nothing() -> bool:
        left = json.loads(story.shell.ok(f"kubectl get {KINDS} -n demo -o json"))["items"]
        assert left == [], [(item["kind"], item["metadata"].get("finalizers"), item.get("status")) for item in left]
        code, _ = story.shell.run("vault read sys/mounts/my-postgres-se")
        assert code != 0, "the mount is still there"
        try:
            return bool(story._no_user() and story._no_secret())
        except NotSeenError as err:
            raise AssertionError(str(err)) from err

    eventually(nothing, timeout_s=90)
