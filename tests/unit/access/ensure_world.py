"""One request over a real ledger with a Vault in memory, for tests of EnsureAccessRequest that claims."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.access.domain import names
from services.access.domain.models import Approval, Attempt, AttemptState, Decision, Subject, VaultTargetRow
from services.access.domain.request_view import AccessRequestView
from services.access.domain.settings import Settings
from services.access.leases.ensure import AccessEnsurer, Ensured
from services.access.leases.issue import LeaseIssuer
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Tx
from services.access.ledger.guard import LedgerGuard
from services.access.requests.requests import AccessRequests, DesiredAccess
from services.common.vault.response import Answer, Auth
from tests.clock import Clock
from tests.unit.access.access_builders import a_role, a_target
from tests.unit.access.access_world import ledger_at

OWNER = "spiffe://leasegate/watcher"


class Vault:
    """Makes tokens, and a credential for each read, named after its token; fails when the test says so."""

    address = "https://v:1"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.displays: list[str] = []
        self.error: Exception | None = None
        self.reading: Callable[[], object] = lambda: None

    def write(self, path: str, body: Mapping[str, Any] | None = None, **_: Any) -> Answer:
        self.calls.append(path)
        if not path.startswith("auth/token/create/"):
            return Answer()
        assert body is not None
        self.displays.append(body["display_name"])
        number = len(self.displays)
        return Answer(
            auth=Auth(client_token=str(number), accessor=f"accessor-{number}", lease_duration_s=90_000, renewable=False)
        )

    def read(self, path: str, *, token: str = "", **_: Any) -> Answer:
        self.calls.append(path)
        self.reading()
        if self.error:
            raise self.error
        data = {"username": names.database_user_name(self.displays[int(token) - 1]), "password": f"password-{token}"}
        return Answer(data=data, lease_id=f"{path}/{token}", lease_duration_s=3600, renewable=True)


class World:
    """The service's part over a real ledger: one request, its role and its Vault."""

    def __init__(self, file: Path) -> None:
        self.clock, self.vault = Clock(), Vault()
        self.ledger = ledger_at(file, clock=self.clock)
        self.vaults: Any = SimpleNamespace(at=self._at, service_auth=lambda _row: True)
        self.settings, self.guard = Settings(), LedgerGuard(self.ledger)
        self.decisions: tuple[Decision, ...] = ()
        self.digest = ""
        with self.ledger.write() as tx:
            target = catalog.put_target(tx, a_target())
            catalog.put_role(tx, a_role(target=target.id))
        self.start()
        self.commits: list[Tx] = []
        self.ledger.listeners.append(self.commits.append)

    def start(self) -> None:
        """A process of the service, without memory of one before."""
        self.requests = AccessRequests(self.ledger, self.vaults, guard=self.guard)
        self.issuer = LeaseIssuer(self.ledger, self.vaults, settings=self.settings, guard=self.guard)
        self.ensurer = AccessEnsurer(self.ledger, self.requests, self.issuer)

    @contextmanager
    def _at(self, _row: VaultTargetRow) -> Iterator[Vault]:
        yield self.vault

    @property
    def desired(self) -> DesiredAccess:
        return DesiredAccess(
            uid="uid-1",
            cluster="-",
            cluster_uid="c1",
            namespace="demo",
            name="cred",
            generation=1,
            role_namespace="demo",
            role_name="psql-role",
            subjects=(Subject("ServiceAccount", "", "demo-sa", "demo"),),
            ttl_s=None,
            requester="alice",
            decisions=self.decisions,
            status_digest=self.digest,
        )

    def ensure(self, *, secret_attempt: int = 0, claim: bool = True, owner: str = OWNER) -> Ensured:
        done = self.ensurer.ensure_request(self.desired, owner=owner, secret_attempt=secret_attempt, claim=claim)
        self.digest = done.view.digest
        return done

    def pending(self, *, prepared: bool = True) -> None:
        """Asked for; with its token unless no worker came to make it. Counts from here on."""
        self.ensure()
        if prepared:
            self.issuer.prepare_token(self.attempt())
        self.commits.clear()
        self.vault.calls.clear()

    def decide(self, kind: Approval = Approval.APPROVED, *, digest: str = "") -> None:
        self.decisions += (Decision(kind, "carol", 1, "", "", self.clock(), digest, digest, False),)

    def view(self) -> AccessRequestView:
        """Where the access request stands."""
        return self.requests.show_request("uid-1", owner=OWNER)

    def attempt(self, number: int = 1) -> Attempt:
        with self.ledger.read() as tx:
            return next(each for each in attempts.open_of(tx, "uid-1") if each.sequence == number)

    def states(self) -> list[AttemptState]:
        with self.ledger.read() as tx:
            return [each.state for each in attempts.open_of(tx, "uid-1")]

    def tries(self) -> int:
        with self.ledger.read() as tx:
            found = requests.find(tx, "uid-1")
        assert found
        return found.failures
