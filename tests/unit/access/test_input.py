"""What an operator writes, and by which name a ledger is opened: a mistake is refused, not guessed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from services.access.__main__ import main
from services.access.api import encode
from services.access.domain import durations
from services.access.domain.approval import digest_of
from services.access.domain.models import AttemptState, Priority, VaultTargetRow
from services.access.domain.renewal import rotation_at
from services.access.domain.settings import Settings
from services.access.leases.issue import LeaseIssuer
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, open_ledger
from services.access.ledger.inspect import offline
from services.access.requests.catalog_file import read_catalog
from services.common.config import StartupRefusedError
from services.common.errors import DbRoleNotReadyError, LedgerUnavailableError, PathNotOwnedError
from services.common.vault.response import Answer, Auth
from tests.unit.access.access_builders import a_decision, a_request, a_role
from tests.vaults import config, entry

ROLE = "{name: reader, target: prod, mount: my-postgres-se, db_name: d%s}"
TARGET = "{name: prod, vault: main%s}"


@pytest.mark.parametrize(
    ("targets", "roles", "why"),
    [
        ([TARGET % ""], [ROLE % ", self_approval: 'false'"], "self_approval is true or false"),
        ([TARGET % ""], [ROLE % ", approvals: 0"], "approvals is a number from 1"),
        ([TARGET % ""], [ROLE % ", approvals: true"], "approvals is a number from 1"),
        ([TARGET % ""], [ROLE % ", approvals: null"], "approvals is a number from 1"),
        ([TARGET % ""], [ROLE % "", ROLE % ", approvals: 2"], "reader: is there twice"),
        ([TARGET % ""], [ROLE % ", approvers: []"], "approvers is a list of names in certificates"),
        ([TARGET % ""], [ROLE % ", approvers: null"], "approvers is a list of names in certificates"),
        ([TARGET % ""], [ROLE % ", approvers: spiffe://x/y"], "approvers is a list of names in certificates"),
        ([TARGET % ""], [ROLE % ", approvers: ['a b']"], "approvers is a list of names in certificates"),
        ([TARGET % ""], [ROLE % ", approvers: [1]"], "approvers is a list of names in certificates"),
        ([TARGET % ""], [ROLE % ", approvals: 2, approvers: [a, a]"], "approvals is 2, and approvers names fewer"),
        ([TARGET % "", TARGET % ""], [], "prod: is there twice"),
    ],
)
def test_a_mistake_in_the_catalog_is_refused(tmp_path: Path, targets: list[str], roles: list[str], why: str) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(f"targets: [{', '.join(targets)}]\nroles: [{', '.join(roles)}]\n")
    with pytest.raises(StartupRefusedError, match=why):
        read_catalog(path, config(entry("https://vault.example:8200")))


def test_a_ledger_is_one_by_whatever_name(tmp_path: Path) -> None:
    """Else two processes could have it, each with a lock of its own."""
    path, other = tmp_path / "ledger.db", tmp_path / "elsewhere" / "name.db"
    other.parent.mkdir()
    ledger = open_ledger(path, clock=time.time)
    other.symlink_to(path)
    with pytest.raises(StartupRefusedError, match="only one may"):
        open_ledger(other, clock=time.time)
    assert offline.owner(other) == offline.owner(path) is not None
    with offline.opened(other) as connection:  # what is in the write-ahead log is seen, too
        assert connection.exec_driver_sql("SELECT count(*) FROM meta").scalar() == 1
    ledger.close()


def test_a_closed_ledger_is_not_opened_by_a_late_thread(ledger: Ledger) -> None:
    """As a worker that is still at something when the service stops: the file is the next process' then."""
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="is closed"), ledger.read():
        pass
    with pytest.raises(LedgerUnavailableError, match="is closed"), ledger.write():
        pass


@pytest.mark.parametrize(
    "given", ["--retention=10s", "--orphan-scan-interval=0", "--max-access-duration=0", "--rotation-overlap=soon"]
)
def test_a_span_that_makes_no_sense_is_refused(given: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [f"--ledger={tmp_path / 'ledger.db'}", given])
    assert done.exit_code == 2
    assert given.partition("=")[0] in done.output
    assert not (tmp_path / "ledger.db").exists()


def test_a_life_that_vault_cannot_read_is_not_asked_for() -> None:
    assert durations.wanted_life_s(role_max_s=None, access_left_s=1e11) == 10 * 365 * 86400


def test_a_token_that_vault_cut_serves_as_another_would_be_cut_as_well() -> None:
    """Else a role without a longest life, or with a longer one than Vault's, never uses a prepared token."""
    assert durations.token_serves(made_at=0.0, ends_at=86400.0, life_s=durations.LONGEST_TTL_S, now=599.0)
    assert durations.token_serves(made_at=0.0, ends_at=86400.0, life_s=86400.0, now=10.0)
    assert not durations.token_serves(made_at=0.0, ends_at=86400.0, life_s=durations.LONGEST_TTL_S, now=600.0)


class Vault:
    """A Vault that makes tokens and credentials."""

    address = "https://v:1"

    def __init__(self, ledger: Ledger, *, lease_id: str = "m/creds/r/x") -> None:
        self.ledger, self.lease_id = ledger, lease_id

    def write(self, path: str, _body: Any = None, **_: Any) -> Answer:
        if path.endswith("/"):
            raise PathNotOwnedError("no lease is named")  # as the scope does
        return Answer(auth=Auth(client_token="t", accessor="a", lease_duration_s=4000, renewable=False))

    def read(self, _path: str, **_: Any) -> Answer:
        with self.ledger.read() as tx:
            (reading,) = attempts.open_of(tx, "uid-1")
        return Answer(
            data={"username": reading.database_user, "password": "p"},
            lease_id=self.lease_id,
            lease_duration_s=600,
            renewable=True,
        )


def issuing(ledger: Ledger, **changes: Any) -> LeaseIssuer:
    """The access service's issuing, with an approved request of an hour for a role whose longest life is an hour."""
    row = VaultTargetRow(0, "-", "demo", "vault", "d", "https://v:1", "https://v:1", "", b"", False, "")
    with ledger.write() as tx:
        role = a_role(target=catalog.put_target(tx, row).id, max_ttl_s=3600.0, default_ttl_s=600.0)
        request = a_request(ttl_s=3600.0)
        requests.insert(tx, request)
        requests.decide(tx, "uid-1", [a_decision(digest=digest_of(request, catalog.put_role(tx, role)))])
    vault = Vault(ledger, **changes)
    vaults: Any = SimpleNamespace(at=lambda _row: _Inside(vault))
    return LeaseIssuer(ledger, vaults, settings=Settings())


class _Inside:
    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def __enter__(self) -> Vault:
        return self.vault

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger whose clock goes on by a second each time it is looked at."""
    times = itertools.count(1000)
    opened = open_ledger(tmp_path / "ledger.db", clock=lambda: float(next(times)))
    yield opened
    opened.close()


def test_access_is_counted_as_its_first_lease_is(ledger: Ledger) -> None:
    """Else a credential with the longest life of its access ends milliseconds before it, and is replaced for these."""
    issued = issuing(ledger).claim_credential("uid-1", owner=a_request().owner, secret_attempt=0)
    with ledger.read() as tx:
        request = requests.find(tx, "uid-1")
    assert request
    assert request.first_issued_at == issued.attempt.issued_at
    assert request.ends_at == issued.attempt.max_ends_at
    assert rotation_at(issued.attempt, request=request, overlap_s=Settings().overlap_s) is None


def test_a_credential_without_a_lease_is_not_answered(ledger: Ledger) -> None:
    with pytest.raises(DbRoleNotReadyError):
        issuing(ledger, lease_id="").claim_credential("uid-1", owner=a_request().owner, secret_attempt=0)
    with ledger.read() as tx:
        (left,) = attempts.open_of(tx, "uid-1")
    assert (left.state, left.priority) == (AttemptState.ISSUING, Priority.REVOKE)
    assert left.due_at


def test_m10_a_row_that_cannot_be_encoded_stops_no_list() -> None:
    def upper(text: str) -> str:
        if text == "bad":
            raise ValueError("surrogates not allowed")
        return text.upper()

    assert encode.readable(upper, ["a", "bad", "b"]) == ["A", "B"]
