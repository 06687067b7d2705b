"""How long a changed db_role keeps other writers of the ledger waiting: ``python -m benchmarks.role_change``."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import click

from benchmarks.waiting import until
from services.access.domain import approval
from services.access.domain.models import (
    AccessRequest,
    Approval,
    AttemptState,
    DbRole,
    Decision,
    Origin,
    VaultTargetRow,
)
from services.access.ledger import attempts, catalog, reassessments, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, Tx, open_ledger
from services.access.requests import reassess
from services.access.worker.reassessor import Reassessor

_TARGET = VaultTargetRow(0, "-", "demo", "vault", "d", "https://v:1", "https://v:1", "", b"", False, "")
_ROLE = DbRole(
    0, "-", "c1", "demo", "psql", 0, "pg", "k8s.-.demo.psql", "db", ("DROP ROLE x;",), 600.0, 3600.0, "r1", False
)
_EVERY_S = 0.005
"""How often the neighbour writes."""


@click.command()
@click.option(
    "--count", default=1000, show_default=True, help="Access requests of the db_role, each with a credential."
)
@click.option("--changes", default=5, show_default=True, help="How often the db_role is changed.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the ledger's file is put.  [default: the temporary folder]"
)
def main(count: int, changes: int, folder: Path | None) -> None:
    """Print the longest transaction, and the longest wait of a neighbour who writes one row at a time."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        ledger = open_ledger(Path(made) / "ledger.db", clock=time.time)
        with ledger.write() as tx:
            role = catalog.put_role(tx, replace(_ROLE, target=catalog.put_target(tx, _TARGET).id))
            for number in range(count):
                _in_use(tx, role, f"uid-{number:05}")
        reassessor = Reassessor(ledger)
        reassessor.start()
        for number in range(changes):
            with _timed(ledger) as turns, _neighbour(ledger) as waits:
                began = time.perf_counter()
                changed = replace(role, digest=f"r{number + 2}")
                with ledger.write() as tx:
                    reassess.role_changed(tx, catalog.put_role(tx, changed))
                put_s = time.perf_counter() - began
                until(lambda: not _left(ledger), timeout_s=600, what="the last step")
                all_s = time.perf_counter() - began
            click.echo(
                f"{count} access requests: put {put_s * 1000:.1f} ms, all reassessed {all_s:.2f} s, longest transaction"
                f" {max(turns) * 1000:.1f} ms; neighbour waits {median(waits) * 1000:.1f} ms (p50),"
                f" {max(waits) * 1000:.1f} ms (longest)"
            )
        reassessor.stop()
        ledger.close()


def _in_use(tx: Tx, role: DbRole, uid: str) -> None:
    """An approved access request with a credential in use."""
    request = AccessRequest(
        uid=uid,
        origin=Origin.KUBERNETES,
        owner="watcher",
        cluster="-",
        cluster_uid="c1",
        namespace="demo",
        name=uid,
        generation=1,
        role_namespace="demo",
        role_name="psql",
        subjects=(),
        ttl_s=600.0,
        requester="alice",
        created_at=tx.now,
    )
    digest = approval.digest_of(request, role)
    request = replace(request, approval=Approval.APPROVED, digest=digest)
    requests.insert(tx, request)
    requests.decide(tx, uid, [Decision(Approval.APPROVED, "bob", 1, "", "", tx.now, digest, digest, False)])
    made = attempts.begin(tx, request=request, role=role, sequence=1, due_at=None)
    lease = {"state": AttemptState.ACTIVE, "lease_id": f"pg/creds/r/{uid}", "ends_at": tx.now + 3600}
    tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(**lease))


def _left(ledger: Ledger) -> bool:
    """Whether an access request is not in line with the db_role."""
    with ledger.read() as tx:
        return reassessments.count(tx) > 0


@contextmanager
def _timed(ledger: Ledger) -> Iterator[list[float]]:
    """How long each transaction that writes keeps its turn."""
    took: list[float] = []
    usual = ledger.write

    @contextmanager
    def write() -> Iterator[Tx]:
        with usual() as tx:
            began = time.perf_counter()
            yield tx
            took.append(time.perf_counter() - began)

    ledger.write = write  # type: ignore[method-assign]
    try:
        yield took
    finally:
        ledger.write = usual  # type: ignore[method-assign]


@contextmanager
def _neighbour(ledger: Ledger) -> Iterator[list[float]]:
    """Somebody else who writes all the time; how long each write takes until it is durable."""
    stop, waits = threading.Event(), list[float]()

    def run() -> None:
        while not stop.wait(_EVERY_S):
            began = time.perf_counter()
            with ledger.write() as tx:
                requests.update_silently(tx, "nobody", failures=0)
            waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield waits
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
