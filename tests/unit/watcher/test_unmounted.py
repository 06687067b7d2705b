"""An engine that is being deleted, whose mount somebody removed, so that database users cannot be dropped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leasegate.engine.v1 import engine_service_pb2
from services.common import errors
from tests.unit.watcher.watcher_world import MOUNT, VAULT, World
from watcher.kube.resources import SECRET
from watcher.specs.kinds import SECRET_ENGINE

NAME = "postgresql-engine"


@pytest.fixture
def unmounted() -> Iterator[World]:
    """The guide's objects with a database user left, their mount gone, and the engine being deleted."""
    world = World()
    world.guide()
    world.decide()
    world.settle()
    world.access.remaining = 1
    world.engine.mounts.clear()
    world.engine.connections.clear()
    yield world
    world.watcher.stop()


def _is_there(world: World) -> bool:
    return world.kube.see(SECRET_ENGINE, f"demo/{NAME}") is not None


def test_the_engine_is_made_again_until_the_users_are_dropped(unmounted: World) -> None:
    unmounted.delete(SECRET_ENGINE, NAME)
    unmounted.advance(4)
    assert unmounted.engine.mounts == {}, "what takes no longer than usual costs no call"
    unmounted.advance(4)
    assert unmounted.engine.mounts == {(VAULT, MOUNT): {f"demo/{NAME}"}}
    assert unmounted.condition(SECRET_ENGINE, NAME, "Available")["reason"] == "RevokingLeases"
    unmounted.access.remaining = 0
    unmounted.advance(3)
    assert not _is_there(unmounted)
    assert unmounted.engine.mounts == {}


def test_what_cannot_be_made_again_is_abandoned_and_reported(unmounted: World) -> None:
    unmounted.delete(SECRET, "postgres-user-cred")
    unmounted.delete(SECRET_ENGINE, NAME)
    unmounted.advance(60, step_s=1)
    failed = unmounted.condition(SECRET_ENGINE, NAME, "Failed")
    assert failed["reason"] == "VaultAuthMissing"
    assert f"mount {MOUNT} was removed" in failed["message"]
    assert "postgres-user-cred" in failed["message"]
    unmounted.advance(80, step_s=1)
    assert not _is_there(unmounted)
    assert any("Warning VaultCleanupSkipped" in event for event in unmounted.kube.events("demo"))


def test_a_mount_that_is_there_is_never_abandoned(unmounted: World) -> None:
    """The users can still be dropped, however long that takes, and whatever is missing to write the connection."""
    unmounted.engine.mounts[VAULT, MOUNT] = {f"demo/{NAME}"}
    unmounted.delete(SECRET, "postgres-user-cred")
    unmounted.delete(SECRET_ENGINE, NAME)
    unmounted.advance(600, step_s=5)
    assert _is_there(unmounted)
    assert unmounted.condition(SECRET_ENGINE, NAME, "Available")["reason"] == "RevokingLeases"
    unmounted.access.remaining = 0
    unmounted.advance(5)
    assert not _is_there(unmounted)


def test_a_vault_that_is_away_meanwhile_is_named(unmounted: World) -> None:
    for method in ("EnsureEngine", "DeleteEngine"):
        unmounted.engine.fail_always(method, errors.VaultSealedError("Vault is sealed", address=VAULT))
    unmounted.delete(SECRET_ENGINE, NAME)
    unmounted.advance(300, step_s=2)
    assert unmounted.condition(SECRET_ENGINE, NAME, "Failed")["reason"] == "VaultSealed"
    assert _is_there(unmounted)
    assert unmounted.engine.asked(engine_service_pb2.DeleteEngineRequest)
