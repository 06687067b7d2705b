"""Pausing issuance at a mount, and resuming it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.access.ledger import pauses
from services.access.ledger.db.database import Tx
from services.access.requests.quiesce import IssuancePauses
from services.common.vault.target import VaultTarget
from tests.unit.access.ensure_world import World

AT = VaultTarget(cluster="-", namespace="demo", name="vault", address="https://v:1")
MOUNT = "my-postgres-se"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    made.pending()
    yield made
    made.ledger.close()


def changed(commits: list[Tx]) -> set[str]:
    return {uid for tx in commits for uid in tx.changed}


def test_resuming_what_was_never_paused_writes_nothing(world: World) -> None:
    """The watcher resumes every SecretEngine at its start, which would announce every open access request."""
    IssuancePauses(world.ledger).resume(AT, mount=MOUNT, connection="")
    assert world.commits == []


def test_resuming_a_paused_mount_announces_its_access_requests(world: World) -> None:
    issuance_pauses = IssuancePauses(world.ledger)
    issuance_pauses.quiesce(AT, mount=MOUNT, connection="", revoke_leases=False)
    world.commits.clear()
    issuance_pauses.resume(AT, mount=MOUNT, connection="")
    assert changed(world.commits) == {"uid-1"}
    with world.ledger.read() as tx:
        db_role = world.view().db_role
        assert db_role
        assert not pauses.covers(tx, db_role)


def test_a_pause_of_a_connection_is_not_lifted_with_its_mount(world: World) -> None:
    issuance_pauses = IssuancePauses(world.ledger)
    issuance_pauses.quiesce(AT, mount=MOUNT, connection="k8s.-.demo.postgres-app", revoke_leases=False)
    issuance_pauses.resume(AT, mount=MOUNT, connection="")
    assert world.view().engine_paused
