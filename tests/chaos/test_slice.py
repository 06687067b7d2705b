"""Two minutes of ``make chaos``: the same harness with fixed seeds, on real servers.

The machine decides how much of it runs, not what holds. The last two tests break something and demand that the harness
reports it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack.stack import LocalStack
from services.access.domain.models import Attempt, AttemptState
from services.access.leases import recover
from services.access.ledger import attempts
from services.access.ledger.db.database import Ledger, open_ledger
from tests.chaos.agreement import LOST, Eyes
from tests.chaos.husks import end_husks
from tests.chaos.kills import Real
from tests.chaos.people import prepare
from tests.chaos.play import Run
from tests.integration.access_world import ROLE, World, world
from tests.servers import real_servers

SEED = 20261124
LIVES, LIVES_S = 120, 25.0
KILLS, KILLS_S, PHASE_S = 12, 25.0, 12.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Servers of their own, as PostgreSQL's sessions are cut here."""
    with real_servers() as servers, world(servers, tmp_path_factory.mktemp("chaos")) as found:
        prepare(found)
        yield found


@pytest.fixture(autouse=True)
def _new_ledger(request: pytest.FixtureRequest) -> None:
    if "made" in request.fixturenames:
        for file in request.getfixturevalue("made").folder.glob("ledger.db*"):
            file.unlink()


def test_nothing_is_lost_when_the_service_dies_at_its_points(made: World) -> None:
    tally = Run(made, seed=SEED, lives=LIVES, within_s=LIVES_S).go()
    assert tally.broken == []
    assert tally.crashes >= 5


@pytest.mark.timeout(600)  # so that what does not come to rest is named, rather than the time
def test_nothing_is_lost_when_processes_are_killed(tmp_path: Path) -> None:
    with LocalStack.start(tmp_path / "stack") as stack:
        counts = Real(stack, seed=SEED, kills=KILLS, within_s=KILLS_S, phase_s=PHASE_S).go()
    assert counts.broken == []
    assert counts.total > 0


def test_a_lease_that_no_recovery_explains_is_noticed(made: World) -> None:
    open_ledger(made.ledger, clock=time.time).close()
    lease_id = made.servers.must("GET", f"{made.mount}/creds/{ROLE}")["lease_id"]
    eyes = Eyes.of(made)
    try:
        found = end_husks(eyes, eyes.leases(), ledger=made.ledger)
    finally:
        eyes.close()
        made.servers.must("POST", f"sys/leases/revoke/{lease_id}", sync=True)
    assert found.ended == 0
    assert [ROLE in each and "no recovery explains" in each and LOST in each for each in found.wrong] == [True]


def test_a_rule_left_out_is_noticed(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without recovery, what was read when the service died stays in PostgreSQL."""

    def close(recovering: recover.IssuanceRecovery, attempt: Attempt) -> None:
        ledger: Ledger = recovering._ledger
        with ledger.write() as tx:
            attempts.close(tx, attempt.id, AttemptState.RECOVERING)

    monkeypatch.setattr(recover.IssuanceRecovery, "recover_attempt", close)
    tally = Run(made, seed=SEED, lives=4, points=("claim.read",), aim_s=30).go()
    assert any("which no active attempt owns" in each for each in tally.broken)
    for user in made.database_users():
        made.servers.psql(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')
