"""The orphan scan lists leases with any auth that works, and reports the mounts that it could not compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.access.domain.models import VaultTargetRow
from services.access.ledger import catalog
from services.access.ledger.db.database import Ledger
from services.access.vault.circuit_breaker import CircuitBreakers
from services.access.worker.metrics import AccessMetrics
from services.access.worker.orphan_scan import OrphanScanner
from services.common.errors import VaultAuthMissingError
from services.common.vault.response import Answer
from tests.clock import Clock
from tests.unit.access.access_builders import a_role
from tests.unit.access.access_world import ledger_at

SERVER = "https://v:1"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Two teams name the same mount of one Vault."""
    opened = ledger_at(tmp_path / "ledger.db", clock=Clock())
    with opened.write() as tx:
        for team in ("one", "two"):
            row = VaultTargetRow(0, "-", team, "vault", team, SERVER, SERVER, "", b"", False, "")
            catalog.put_role(tx, a_role(namespace=team, target=catalog.put_target(tx, row).id))
    yield opened
    opened.close()


def scanner(ledger: Ledger, *, with_auth: set[str]) -> OrphanScanner:
    """Only these teams' auths exist; Vault has a lease that nobody knows."""
    keys = {"sys/leases/lookup/my-postgres-se/creds": ["k8s.-.demo.psql-role/"]}
    vault = SimpleNamespace(list=lambda path: Answer(data={"keys": keys.get(path, ["strange"])}))

    @contextmanager
    def at(row: VaultTargetRow) -> Iterator[Any]:
        if row.namespace not in with_auth:
            raise VaultAuthMissingError(f"there is no auth for {row.namespace}/vault yet", target=row.name)
        yield vault

    vaults: Any = SimpleNamespace(at=at)
    return OrphanScanner(ledger, vaults)


@pytest.mark.parametrize("team", ["one", "two"])
def test_one_working_auth_is_enough_for_a_mount(ledger: Ledger, team: str) -> None:
    found = scanner(ledger, with_auth={team}).find_orphans()
    assert [orphan.lease_id for orphan in found.orphans] == ["my-postgres-se/creds/k8s.-.demo.psql-role/strange"]
    assert found.skipped_mounts == ()


def test_a_mount_without_any_auth_is_reported_and_counted(ledger: Ledger) -> None:
    """Else a figure of no findings would be taken for the word that all is explained."""
    made = scanner(ledger, with_auth=set())
    (skipped_mounts,) = made.find_orphans().skipped_mounts
    assert "there is no auth" in skipped_mounts.reason
    registry = CollectorRegistry()
    guard: Any = SimpleNamespace(known_id="", paused_access_requests=0)
    AccessMetrics(ledger, registry, orphan_scanner=made, breakers=CircuitBreakers(), guard=guard)
    page = generate_latest(registry).decode()
    assert "leasegate_orphaned_leases 0.0" in page
    assert "leasegate_orphan_scan_skipped_mounts 1.0" in page
