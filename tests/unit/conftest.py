"""What many unit tests of the access service begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.access.ledger.database import Ledger
from tests.clock import Clock
from tests.unit.access_world import ledger_at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """A new ledger whose time is that of ``clock``."""
    opened = ledger_at(tmp_path / "ledger.db", clock=clock)
    yield opened
    opened.close()
