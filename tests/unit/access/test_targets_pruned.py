"""What a team writes into its AppBindings does not fill the ledger (attack H5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from leasegate.types.v1 import types_pb2
from services.access.domain.quotas import Quotas
from services.access.ledger import catalog, pruning
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger
from services.access.requests.catalog import Catalog
from services.access.worker.prune import LedgerPruner
from services.common.errors import QuotaExceededError, SpecInvalidError
from services.common.vault.target import MAX_CA_BUNDLE, VaultTarget
from tests.clock import Clock
from tests.unit.access.access_builders import a_role
from tests.unit.access.access_world import ledger_at

MOST = 4


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    made = ledger_at(tmp_path / "ledger.db", clock=clock)
    yield made
    made.close()


def a_catalog(ledger: Ledger) -> Catalog:
    unused: Any = SimpleNamespace()
    vaults: Any = SimpleNamespace(resolve=lambda target: target)
    ledger.quotas = Quotas(targets=MOST)
    return Catalog(ledger, vaults, unused)


def a_vault(number: int, *, name: str = "vault", namespace: str = "evil") -> VaultTarget:
    return VaultTarget(name=name, namespace=namespace, cluster="-", address=f"https://v{number}:8200")


def addresses(ledger: Ledger, namespace: str = "evil") -> set[str]:
    with ledger.read() as tx:
        t = schema.vault_targets.c
        return set(tx.execute(sa.select(t.address).where(t.namespace == namespace)).scalars())


def test_h5_sixty_edits_of_an_address_leave_few_rows(ledger: Ledger, clock: Clock) -> None:
    made = a_catalog(ledger)
    for number in range(60):
        clock.now += 1
        made.put_target(a_vault(number))
    assert len(addresses(ledger)) <= MOST
    LedgerPruner(ledger, kept_s=1e9).prune()
    assert addresses(ledger) == {"https://v59:8200"}


def test_h5_an_address_that_comes_back_is_the_newest(ledger: Ledger, clock: Clock) -> None:
    made = a_catalog(ledger)
    for number in (1, 2, 1):
        clock.now += 100
        made.put_target(a_vault(number))
    LedgerPruner(ledger, kept_s=1e9).prune()
    assert addresses(ledger) == {"https://v1:8200"}


def test_h5_what_a_role_depends_on_stays(ledger: Ledger, clock: Clock) -> None:
    made = a_catalog(ledger)
    row = made.put_target(a_vault(0))
    with ledger.write() as tx:
        catalog.put_role(tx, a_role(target=row.id))
    for number in range(1, 20):
        clock.now += 100
        made.put_target(a_vault(number))
    clock.now += 10 * pruning.TARGETS_KEPT_S
    LedgerPruner(ledger, kept_s=1e9).prune()
    assert addresses(ledger) == {"https://v0:8200"}  # the newest one is described no more


def test_h5_a_namespace_has_a_limit_that_says_what_to_do(ledger: Ledger, clock: Clock) -> None:
    made = a_catalog(ledger)
    for number in range(MOST):
        made.put_target(a_vault(number, name=f"vault-{number}"))
    with pytest.raises(QuotaExceededError, match=r"Namespace evil has 4 .* may have 4: delete.*--max-targets") as many:
        made.put_target(a_vault(9, name="vault-9"))
    assert many.value.metadata == {"limit": "4", "namespace": "evil"}
    name = a_vault(10, name="vault-10")
    with pytest.raises(QuotaExceededError):  # a reference in a snapshot makes a row, too
        made.put_role(a_role(namespace="evil"), at=name, pause_number=0, caller="watcher")
    made.put_target(a_vault(9, name="vault-9", namespace="demo"))  # of others nothing is taken
    clock.now += pruning.TARGETS_KEPT_S + 1
    made.put_target(a_vault(9, name="vault-9"))
    assert addresses(ledger) == {"https://v9:8200"}


def test_h5_a_target_in_use_that_is_described_again_stays(ledger: Ledger, clock: Clock) -> None:
    made = a_catalog(ledger)
    for _ in range(30):
        clock.now += pruning.TARGETS_KEPT_S / 2
        made.put_target(a_vault(1))
        LedgerPruner(ledger, kept_s=1e9).prune()
    assert addresses(ledger) == {"https://v1:8200"}


def test_h5_a_large_ca_bundle_is_refused() -> None:
    source = types_pb2.ObjectRef(name="vault", namespace="evil")
    target = types_pb2.VaultTarget(source=source, address="https://v1:8200", ca_bundle=b"x" * (MAX_CA_BUNDLE + 1))
    with pytest.raises(SpecInvalidError, match=r"ca_bundle: has more than 64 KiB"):
        VaultTarget.from_proto(target)
