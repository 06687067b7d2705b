"""``leasegate leases|renew|revoke|orphans`` on real servers: what it prints, what it ends, and what nobody explains."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from leasegate.access.v1 import lease_pb2, orphan_pb2
from leasegate.access.v1 import operator_service_pb2 as pb
from services.access.domain.names import new_attempt_id
from services.common import errors
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    OPERATOR,
    ROLE,
    WATCHER,
    Callee,
    Dar,
    World,
    in_process,
    put_role,
    world,
)
from tests.integration.operators import leasegate, listing_granted
from tests.servers import Servers, real_servers


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers of its own, as these tests look at everything that is left in Vault."""
    with real_servers() as running:
        yield running


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("operators")) as found:
        yield found


@pytest.fixture(scope="module")
def callee(made: World) -> Iterator[Callee]:
    with in_process(made) as found:
        put_role(made, found)
        yield found


@pytest.fixture(autouse=True)
def _granted(made: World) -> Iterator[None]:
    with listing_granted(made.servers):
        yield


@pytest.fixture
def credential(made: World, callee: Callee) -> Iterator[lease_pb2.Credential]:
    """A credential in use, whose request is ended afterwards."""
    dar = Dar(callee)
    credential = dar.issue()
    yield credential
    dar.end()
    eventually(lambda: credential.username not in made.database_users(), timeout_s=30)
    eventually(lambda: not dar.end().open_attempts)


def find(callee: Callee, *database_users: str) -> pb.FindOrphansResponse:
    return callee.as_(OPERATOR).operator.FindOrphans(pb.FindOrphansRequest(database_users=database_users))


def by_hand(made: World) -> tuple[str, str]:
    """A credential that somebody takes from Leasegate's role without it: lease id and user."""
    answer = made.servers.must("GET", f"{made.mount}/creds/{ROLE}")
    return str(answer["lease_id"]), str(answer["data"]["username"])


def test_leases_are_listed(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    table = leasegate(made, callee, "leases")
    assert table.returncode == 0, table.stderr
    head, *rows = table.stdout.splitlines()
    columns = ["HANDLE", "STATE", "ROLE", "USER", "ISSUED", "EXPIRES", "RENEWED", "ACCESS REQUEST"]
    assert re.split(r"\s{3,}", head) == columns
    (row,) = [row for row in rows if credential.username in row]
    assert row.split()[:3] == [credential.lease.handle, "active", ROLE]
    shown = json.loads(leasegate(made, callee, "leases", "--state=active", "-o", "json").stdout)
    assert credential.lease.handle in {lease["handle"] for lease in shown}
    assert credential.password not in table.stdout + json.dumps(shown)
    none = leasegate(made, callee, "leases", "--state=issued")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "No leases.\n")


def test_a_lease_is_renewed_by_its_handle(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    done = leasegate(made, callee, "renew", credential.lease.handle, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["renew_time"]
    unknown = leasegate(made, callee, "renew", "0" * 12)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "error: no open lease has this handle.\n"


def test_a_lease_that_is_not_in_use_is_not_renewed(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    dar.ensure()
    dar.decide()
    credential = dar.claim()
    done = leasegate(made, callee, "renew", credential.lease.handle)
    assert done.returncode == 1
    assert "the lease is not renewed: it is not in use" in done.stderr
    dar.end()
    eventually(lambda: credential.username not in made.database_users(), timeout_s=30)


def test_a_lease_is_revoked_by_its_handle(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    assert leasegate(made, callee, "revoke", credential.lease.handle).returncode == 2  # --reason is asked for
    done = leasegate(made, callee, "revoke", credential.lease.handle, "--reason", "it leaked")
    assert (done.returncode, done.stdout) == (0, f"lease {credential.lease.handle}: revoking\n"), done.stderr
    eventually(lambda: credential.username not in made.database_users(), timeout_s=30)


def test_all_is_explained(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    done = leasegate(made, callee, "orphans", "--postgres", made.servers.postgres_url)
    assert done.returncode == 0, done.stdout
    assert done.stdout == "Compared 1 leases of Vault and 1 database users of PostgreSQL: all is explained.\n"
    assert find(callee, credential.username, "postgres").database_users_compared == 1


def test_a_lease_that_the_ledger_does_not_know_is_found(
    made: World, callee: Callee, credential: lease_pb2.Credential
) -> None:
    lease_id, _ = by_hand(made)
    done = leasegate(made, callee, "orphans")
    assert done.returncode == 1
    assert lease_id in done.stdout
    assert "vault lease revoke -sync" in done.stdout
    assert credential.lease.lease_id not in done.stdout
    made.servers.must("POST", f"sys/leases/revoke/{lease_id}", sync=True)
    assert leasegate(made, callee, "orphans").returncode == 0


def test_a_lease_that_somebody_ended_is_found(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    made.servers.must("POST", f"sys/leases/revoke/{credential.lease.lease_id}", sync=True)
    (orphan,) = find(callee).orphans
    assert (orphan.kind, orphan.username) == (orphan_pb2.ORPHAN_KIND_LEASE_MISSING, credential.username)
    assert orphan.lease_id == credential.lease.lease_id


def test_users_that_the_ledger_does_not_explain_are_found(made: World, callee: Callee) -> None:
    dar = Dar(callee)
    ended = dar.issue()
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=30)
    unknown = f"token-demo-psql-role-{new_attempt_id()}"
    for user in (ended.username, unknown):
        made.servers.psql(f'CREATE ROLE "{user}" LOGIN')
    eventually(
        lambda: len(find(callee, ended.username, unknown, "postgres").orphans) == 2, timeout_s=30
    )  # the token of the first ends last
    done = leasegate(made, callee, "orphans", "--postgres", made.servers.postgres_url, "-o", "json")
    assert done.returncode == 1
    found = {orphan["username"]: orphan for orphan in json.loads(done.stdout)["orphans"]}
    assert {user: orphan["kind"] for user, orphan in found.items()} == {
        ended.username: "ORPHAN_KIND_DATABASE_USER_CLOSED",
        unknown: "ORPHAN_KIND_DATABASE_USER_UNKNOWN",
    }
    assert found[ended.username]["access_request_id"] == dar.uid
    for orphan in found.values():  # what to do does it
        made.servers.psql("ALTER ROLE" + orphan["advice"].partition("ALTER ROLE")[2])
    assert leasegate(made, callee, "orphans", "--postgres", made.servers.postgres_url).returncode == 0


def test_without_the_right_to_list_it_says_so(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    assert credential.username in made.database_users()
    assert find(callee).leases_compared == 1
    made.servers.allow_mounts()
    done = leasegate(made, callee, "orphans")
    assert done.returncode == 0
    assert f"NOT COMPARED  {made.mount}" in done.stdout
    assert "--list-leases" in done.stdout
    assert "Compared 0 leases" in done.stdout


def test_too_many_users_at_once_are_refused(callee: Callee) -> None:
    with pytest.raises(errors.SpecInvalidError, match="at most"):
        find(callee, *["x"] * 20_001)


@pytest.mark.parametrize("san", [WATCHER, ALICE])
def test_operators_only(callee: Callee, san: str) -> None:
    with pytest.raises(errors.CallerNotAllowedError):
        callee.as_(san).operator.FindOrphans(pb.FindOrphansRequest())
    with pytest.raises(errors.CallerNotAllowedError):
        callee.as_(san).operator.RenewLease(pb.OperatorServiceRenewLeaseRequest(handle="x"))


def test_what_is_wrong_is_said_in_a_line_with_what_to_do(made: World, callee: Callee) -> None:
    nobody = leasegate(made, callee, "leases", "--access=127.0.0.1:1")
    assert nobody.returncode == 1
    assert "check that the access service runs there" in nobody.stderr
    uncertain = leasegate(None, None, "leases", LEASEGATE_ACCESS=callee.address)
    assert uncertain.returncode == 1
    assert "LEASEGATE_CERTS" in uncertain.stderr
    made.client(WATCHER)
    tls = made.authority.folder
    watcher = leasegate(made, callee, "leases", f"--tls-cert={tls / 'watcher.crt'}", f"--tls-key={tls / 'watcher.key'}")
    assert watcher.returncode == 1
    assert "operator's certificate" in watcher.stderr
    database = leasegate(made, callee, "orphans", "--postgres", "postgresql://root:geheim@127.0.0.1:1/postgres")
    assert database.returncode == 1
    assert database.stderr.startswith("error: PostgreSQL: ")
    assert "geheim" not in database.stderr
    assert leasegate(made, callee, "leases", "--access=nonsense").returncode == 2
    for output in (nobody, uncertain, watcher, database):
        assert output.stderr.count("\n") == 1
        assert output.stdout == ""


def test_the_right_to_list_is_no_more_than_that(made: World, callee: Callee, credential: lease_pb2.Credential) -> None:
    token, lease = made.servers.token_with("leasegate-access"), credential.lease.lease_id
    listed, _ = made.servers.vault("LIST", f"sys/leases/lookup/{made.mount}/creds/{ROLE}", token)
    assert listed == 200
    for method, path in (
        ("LIST", "sys/leases/lookup/foreign/creds"),
        ("LIST", f"sys/leases/lookup/{made.mount}"),
        ("LIST", "sys/leases/lookup/auth/token/create"),
        ("GET", f"sys/leases/lookup/{lease}"),
        ("POST", f"sys/leases/lookup/{lease}"),
    ):
        assert made.servers.vault(method, path, token)[0] in (403, 405), path
    assert made.servers.vault("POST", "sys/leases/lookup", token, lease_id=lease)[0] == 403
    assert find(callee).leases_compared == 1
