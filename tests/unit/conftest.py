"""What many unit tests begin with: a ledger of the access service, or a watcher in a world of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.access.ledger.db.database import Ledger
from tests.clock import Clock
from tests.unit.access.access_world import ledger_at
from tests.unit.watcher.watcher_world import World


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """A new ledger whose time is that of ``clock``."""
    opened = ledger_at(tmp_path / "ledger.db", clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def world() -> Iterator[World]:
    """A watcher with Kubernetes and services in memory; modules about access have another one."""
    made = World()
    yield made
    made.watcher.stop()
