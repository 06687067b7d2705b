"""The transactions of one credential on the ledger alone: ``python -m benchmarks.ledger``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import click

from services.access.domain.models import AccessRequest, Approval, Attempt, DbRole, Origin, VaultTargetRow
from services.access.ledger import attempts, catalog, pauses, requests
from services.access.ledger.db.database import Ledger, Tx, open_ledger

_TARGET = VaultTargetRow(0, "-", "demo", "vault", "d", "https://v:1", "https://v:1", "", b"", False, "")
_ROLE = DbRole(
    0, "-", "c1", "demo", "psql", 0, "pg", "k8s.-.demo.psql", "db", ("DROP ROLE x;",), 600.0, 3600.0, "r1", False
)


@click.command()
@click.option("--count", default=400, show_default=True, help="Credentials of each measurement.")
@click.option("--writers", default=16, show_default=True, help="Threads of the second measurement.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the ledger's file is put.  [default: the temporary folder]"
)
def main(count: int, writers: int, folder: Path | None) -> None:
    """Print the milliseconds of one credential's three commits, and credentials a second with several writers."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        ledger = open_ledger(Path(made) / "ledger.db", clock=time.time)
        issue = _issuer(ledger)
        for number in range(50):
            issue(f"warm-{number}")
        took = [_timed(issue, f"one-{number}") for number in range(count)]
        with ThreadPoolExecutor(writers) as pool:
            began = time.perf_counter()
            list(pool.map(lambda number: issue(f"many-{number}"), range(count)))
            rate = count / (time.perf_counter() - began)
        ledger.close()
    click.echo(
        f"one writer: {median(took) * 1000:.2f} ms a credential (p50); {writers} writers: {rate:.0f} credentials/s"
    )


def _issuer(ledger: Ledger) -> Callable[[str], None]:
    """Make a function that commits what an access request takes from its creation to its acknowledge."""
    with ledger.write() as tx:
        role = catalog.put_role(tx, replace(_ROLE, target=catalog.put_target(tx, _TARGET).id))

    def issue(uid: str) -> None:
        request = _request(uid, tx_now=time.time())
        with ledger.write() as tx:
            requests.insert(tx, request)
            attempt = attempts.begin(tx, request=request, role=role, sequence=1, due_at=None)
        with ledger.write() as tx:
            _look(tx, uid)
            attempts.commit_issuing(tx, attempt.id, accessor="a", replacing=True, token_ends_at=tx.now + 3600)
        with ledger.write() as tx:
            attempts.commit_lease(
                tx,
                attempt.id,
                lease_id=f"pg/creds/r/{uid}",
                ttl_s=600.0,
                renewable=True,
                ends_at=tx.now + 600,
                max_ends_at=None,
                issued_at=tx.now,
            )
            requests.update(tx, request, last_sequence=1)
        with ledger.write() as tx:
            _look(tx, uid)
            attempts.activate(tx, attempts.get(tx, attempt.id), due_at=tx.now + 300)

    return issue


def _look(tx: Tx, uid: str) -> list[Attempt]:
    request = requests.find(tx, uid)
    role = catalog.role_of(tx, request) if request else None
    if role is None or pauses.covers(tx, role):
        raise LookupError(uid)
    return attempts.open_of(tx, uid)


def _timed(issue: Callable[[str], None], uid: str) -> float:
    began = time.perf_counter()
    issue(uid)
    return time.perf_counter() - began


def _request(uid: str, *, tx_now: float) -> AccessRequest:
    return AccessRequest(
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
        created_at=tx_now,
        approval=Approval.APPROVED,
        digest="d",
    )


if __name__ == "__main__":
    main()
