"""The workers of the access service over a real ledger, with a fake Vault and a fake clock."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.access.domain import approval
from services.access.domain.models import Attempt, AttemptState, Origin, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.leases.heartbeat import Heartbeat
from services.access.leases.recover import IssuanceRecovery
from services.access.leases.renew import LeaseRenewal
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db import schema
from services.access.ledger.db.database import Ledger, Tx, open_ledger
from services.access.worker.dispatch import AttemptDispatcher
from services.common.errors import (
    LeasegateError,
    VaultFailedError,
)
from services.common.vault.response import Answer, Auth
from tests.clock import Clock
from tests.unit.access.access_builders import a_decision, a_request, a_role, a_target


@cache
def _migrated() -> Path:
    """A ledger to copy, as its making takes longer than most tests."""
    folder = Path(tempfile.mkdtemp(prefix="leasegate-unit-"))
    atexit.register(shutil.rmtree, folder)
    open_ledger(folder / "ledger.db", clock=time.time).close()
    return folder / "ledger.db"


def ledger_at(path: Path, *, clock: Callable[[], float]) -> Ledger:
    """A new ledger."""
    shutil.copyfile(_migrated(), path)
    return open_ledger(path, clock=clock)


class Vault:
    """A Vault whose database is away until the test says otherwise; it counts its calls."""

    address = "https://v:1"

    def __init__(self) -> None:
        self.error: LeasegateError | None = None
        self.refused: LeasegateError | None = None  # what PostgreSQL says to each revocation of a lease
        self.database_is_there = False
        self.made, self.database_user = 0, ""
        self.revoked: list[str] = []
        self.renewed: list[int] = []
        self.most_s = 10**6

    def write(self, path: str, body: Mapping[str, Any] | None = None, **_: Any) -> Answer:
        if self.error:
            raise self.error
        if self.refused and path.startswith("sys/leases/revoke/"):
            raise self.refused
        if path.startswith("auth/token/create/"):
            self.made += 1
            return Answer(
                auth=Auth(client_token="t", accessor=f"accessor-{self.made}", lease_duration_s=600, renewable=False)
            )
        if path.startswith("sys/leases/renew/") and body:
            self.renewed.append(int(body["increment"]))
            return Answer(lease_duration_s=min(int(body["increment"]), self.most_s))
        if path == "auth/token/revoke-accessor" and body:
            self.revoked.append(str(body["accessor"]))
        return Answer()

    def read(self, _path: str, **_: Any) -> Answer:
        if not self.database_is_there:
            raise VaultFailedError("the database is away", path="x")
        return Answer(data={"username": self.database_user}, lease_id=f"m/creds/a/{self.made}")


class World:
    """A ledger, the workers of the service, and a fake Vault."""

    def __init__(self, file: Path) -> None:
        self.clock, self.vault = Clock(), Vault()
        self.ledger = ledger_at(file, clock=self.clock)
        settings = Settings()
        vaults: Any = SimpleNamespace(
            at=self._at, max_request_duration_s=lambda _row: 5.0, service_auth=lambda _row: True
        )
        self.vaults = vaults
        self.renewal = LeaseRenewal(self.ledger, vaults, settings=settings, jitter=lambda: 1.0)
        issuer: Any = SimpleNamespace(prepare_token=self._prepare, forget_token=lambda _attempt: None)
        recovery = IssuanceRecovery(self.ledger, vaults)
        self.work = AttemptDispatcher(
            self.ledger, vaults, issuer=issuer, renewal=self.renewal, recovery=recovery, jitter=lambda: 1.0
        )
        self.heartbeat = Heartbeat(self.ledger, self.renewal, settings=settings)

    def attempt_of(self, uid: str) -> Attempt:
        """The newest attempt of a request that is not closed."""
        with self.ledger.read() as tx:
            return attempts.open_of(tx, uid)[-1]

    @contextmanager
    def _at(self, _row: VaultTargetRow) -> Iterator[Vault]:
        yield self.vault

    def _prepare(self, _attempt: Attempt) -> None:
        if self.vault.error:
            raise self.vault.error

    def begin(
        self,
        state: AttemptState,
        *,
        uid: str = "uid-1",
        number: int = 1,
        origin: Origin = Origin.KUBERNETES,
        **columns: Any,
    ) -> Attempt:
        """An approved request whose attempt is in this state; due at once unless said otherwise."""
        with self.ledger.write() as tx:
            role = catalog.put_role(tx, a_role(target=_target(tx)))
            request = a_request(uid=uid, name=uid, origin=origin, digest=approval.digest_of(a_request(uid=uid), role))
            if requests.find(tx, uid) is None:
                requests.insert(tx, request)
                requests.decide(tx, uid, [a_decision(digest=request.digest)])
            made = attempts.begin(tx, request=request, role=role, sequence=number, due_at=tx.now)
            lease = {
                "lease_id": f"m/creds/r/{uid}",
                "lease_ttl_s": 3600.0,
                "issued_at": tx.now,
                "renewable": True,
                "ends_at": tx.now + 3600,
            }
            given = {
                "state": state,
                "accessor": "its-own",
                **(lease if state in (AttemptState.ISSUED, AttemptState.ACTIVE, AttemptState.RETIRING) else {}),
                **columns,
            }
            tx.execute(schema.attempts.update().where(schema.attempts.c.id == made.id).values(**given))
            self.vault.database_user = made.database_user
            return attempts.get(tx, made.id)

    def attempt(self, made: Attempt) -> Attempt:
        with self.ledger.read() as tx:
            return attempts.get(tx, made.id)

    def do(self, made: Attempt) -> Attempt:
        """Let time pass until the attempt is due, and have a worker look at it."""
        self.clock.now = max(self.clock.now, self.attempt(made).due_at or 0.0)
        self.work.process_attempt(made.id)
        return self.attempt(made)


def _target(tx: Tx) -> int:
    return catalog.put_target(tx, a_target()).id
