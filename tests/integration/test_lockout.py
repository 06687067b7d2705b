"""Access that has ended is locked out whatever PostgreSQL refuses: the field reports 9, 10, 13 and 14, on real servers.

A database user that cannot be dropped yet can neither log in nor stay in a session. Its owner is shown why, and it is
dropped once that is over. No object gets another owner than the team's statements say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from leasegate.access.v1 import lease_pb2
from leasegate.access.v1 import operator_service_pb2 as operator
from services.access.domain import names
from services.access.domain.models import DropBy
from services.access.worker import dispatch
from services.roles.statements import checked
from tests.eventually import eventually
from tests.integration.access_world import (
    CREATE,
    DB,
    OPERATOR,
    Callee,
    Dar,
    Watcher,
    World,
    in_process,
    put_role,
    world,
)
from tests.servers import Servers

LOCKED_OUT_S = 30
TO_APP_OWNER = ['REASSIGN OWNED BY "{{name}}" TO app_owner;', 'DROP OWNED BY "{{name}}";', 'DROP ROLE "{{name}}";']
MAY_CREATE = [*CREATE, 'GRANT CREATE ON SCHEMA public TO "{{name}}";']


@pytest.fixture(scope="module")
def made(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(servers, tmp_path_factory.mktemp("lockout"), mount="team/lockout") as found:
        found.servers.psql("CREATE ROLE app_owner; GRANT CREATE ON SCHEMA public TO app_owner")
        yield found
        found.servers.psql("DROP OWNED BY app_owner; DROP ROLE app_owner")


@pytest.fixture
def callee(made: World) -> Iterator[Callee]:
    with in_process(made) as found, Watcher(made, found):
        yield found


def issued(
    made: World, callee: Callee, name: str, *, revoke: list[str] | None = None, create: list[str] | None = None
) -> tuple[Dar, lease_pb2.Credential]:
    """An access request of a role of its own, with its credential in use."""
    made.write_role(f"k8s.-.demo.{name}", revoke=list(checked(revoke or [])), create=create)
    put_role(made, callee, name=name, revoke=revoke, create=create)
    dar = Dar(callee, role=name)
    return dar, dar.issue()


def is_alive(session: psycopg.Connection[object]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def why(dar: Dar) -> str:
    """What the owner is shown of a database user that is locked out."""
    shown = [each.message for each in dar.ensure().access_request.conditions if each.reason == "LockedOut"]
    return shown[0] if shown else ""


def locked_out(made: World, dar: Dar, credential: lease_pb2.Credential) -> str:
    """Wait until it is, and answer what the owner is shown."""
    eventually(lambda: not made.can_log_in(credential), timeout_s=LOCKED_OUT_S, what="that the user cannot log in")
    return eventually(lambda: why(dar), timeout_s=LOCKED_OUT_S, what="the condition that says why")


def gone(made: World, credential: lease_pb2.Credential) -> None:
    """Its database user is dropped."""
    eventually(lambda: credential.username not in made.database_users(), timeout_s=60, what="the drop")


def owner_of(made: World, table: str) -> str:
    found = made.servers.psql(f"SELECT tableowner FROM pg_tables WHERE tablename = '{table}'")  # noqa: S608
    return str(found[0][0]) if found else ""


@contextmanager
def read_only(made: World) -> Iterator[None]:
    """PostgreSQL takes no writes of new transactions, as a server that is switched over, or the managing user's."""
    made.servers.psql("ALTER ROLE postgres SET default_transaction_read_only = on")
    made.servers.must("POST", f"{made.mount}/reset/{DB}")
    try:
        yield
    finally:
        made.servers.psql("BEGIN; SET TRANSACTION READ WRITE; ALTER ROLE postgres RESET ALL; COMMIT")
        made.servers.must("POST", f"{made.mount}/reset/{DB}")


def test_a_read_only_server_gives_no_table_to_the_managing_user(made: World, callee: Callee) -> None:
    """Field report 9: the team's own statements are tried again, and their owner keeps the table."""
    dar, credential = issued(made, callee, "switched", revoke=TO_APP_OWNER, create=MAY_CREATE)
    made.connect(credential).execute("CREATE TABLE switched (a int)").connection.close()
    with read_only(made):
        dar.decide("DENIED")
        shown = eventually(
            lambda: [each.message for each in dar.ensure().access_request.conditions if "25006" in each.message],
            what="the refusal",
        )
        assert "the server is read-only" in shown[0]
    gone(made, credential)
    assert owner_of(made, "switched") == "app_owner"
    made.servers.psql("DROP TABLE switched")
    dar.end()


def test_a_default_of_reading_only_stops_no_lockout(
    made: World, callee: Callee, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "LOCKOUT_AFTER_S", 2.0)
    dar, credential = issued(made, callee, "frozen", revoke=TO_APP_OWNER, create=MAY_CREATE)
    made.connect(credential).execute("CREATE TABLE frozen (a int)").connection.close()
    with read_only(made):
        dar.decide("DENIED")
        gone(made, credential)
    assert owner_of(made, "frozen") == "app_owner"
    made.servers.psql("DROP TABLE frozen")
    dar.end()


@contextmanager
def managed_by(made: World, user: str) -> Iterator[None]:
    """Vault's connection has another user, and then its own again."""
    url = made.servers.must("GET", f"{made.mount}/config/{DB}")["data"]["connection_details"]["connection_url"]
    connection = {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url}
    connection["username_template"] = "{{ .DisplayName | truncate 63 }}"
    made.servers.must("POST", f"{made.mount}/config/{DB}", **connection, username=user, password=user)
    try:
        yield
    finally:
        made.servers.must("POST", f"{made.mount}/config/{DB}", **connection, username="postgres", password="root")


@pytest.mark.parametrize("revoke", [[], ['DROP ROLE "{{name}}";']], ids=["default", "strict"])
def test_an_open_session_ends_where_vaults_user_is_no_superuser(made: World, callee: Callee, revoke: list[str]) -> None:
    """Field report 10: the holder's temporary table made PostgreSQL refuse the drop until the session ended."""
    made.servers.psql("CREATE ROLE limited CREATEROLE LOGIN PASSWORD 'limited'")
    with managed_by(made, "limited"):
        dar, credential = issued(made, callee, f"small-{len(revoke)}", revoke=revoke)
        session = made.connect(credential)
        session.execute("CREATE TEMP TABLE mine (a int)")
        dar.decide("DENIED")
        eventually(lambda: not is_alive(session), timeout_s=LOCKED_OUT_S, what="the end of the session")
        assert not made.can_log_in(credential)
        session.close()
        gone(made, credential)
        dar.end()
        eventually(lambda: not dar.end().open_attempts, timeout_s=60, what="that nothing is left")
    made.servers.psql("DROP OWNED BY limited; DROP ROLE limited")


def test_an_object_in_another_database_locks_out_and_is_named(made: World, callee: Callee) -> None:
    """Field report 13: one large object in template1 kept the user logging in."""
    dar, credential = issued(made, callee, "elsewhere")
    where = {"host": made.servers.postgres_host, "port": made.servers.postgres_port, "dbname": "template1"}
    with psycopg.connect(**where, user=credential.username, password=credential.password, autocommit=True) as other:  # type: ignore[arg-type]
        other.execute("SELECT lo_create(0)")
    dar.decide("DENIED")
    shown = locked_out(made, dar, credential)
    shown = eventually(lambda: shown if "template1" in (shown := why(dar)) else "", what="the database's name")
    assert shown.startswith("1 database user(s) locked out, not dropped yet, because")
    leases = callee.as_(OPERATOR).operator.ListLeases(operator.ListLeasesRequest()).leases
    mine = next(lease for lease in leases if lease.username == credential.username)
    assert mine.HasField("lock_time")
    assert "template1" in mine.revocation_error
    force = names.cleanup_role_name(mount=made.mount, db_name=DB, revocation_statements=(), drop_by=DropBy.FORCE)
    assert len(made.leases(force)) == 1  # each try revokes the one lease of the lockout
    url = made.servers.postgres_url.rpartition("/")[0] + "/template1"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'DROP OWNED BY "{credential.username}"')
    gone(made, credential)
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=60, what="that nothing is left")


def test_a_member_of_the_managing_user_that_made_a_table_is_dropped(made: World, callee: Callee) -> None:
    """Field report 14: break-glass access; the table is the managing user's afterwards."""
    dar, credential = issued(made, callee, "glass", create=[f"{CREATE[0].removesuffix(';')} IN ROLE postgres;"])
    made.connect(credential).execute("CREATE TABLE glass (a int)").connection.close()
    dar.decide("DENIED")
    eventually(lambda: not made.can_log_in(credential), timeout_s=LOCKED_OUT_S)
    gone(made, credential)
    assert owner_of(made, "glass") == "postgres"
    made.servers.psql("DROP TABLE glass")
    dar.end()


def test_a_teams_failing_statements_change_no_owner(made: World, callee: Callee) -> None:
    """One right that the managing user lost used to give the team's tables to it."""
    made.servers.psql("CREATE ROLE kept_owner")
    give = [each.replace("app_owner", "kept_owner") for each in TO_APP_OWNER]
    dar, credential = issued(made, callee, "renamed", revoke=give, create=MAY_CREATE)
    made.connect(credential).execute("CREATE TABLE renamed (a int)").connection.close()
    made.servers.psql("ALTER ROLE kept_owner RENAME TO former_owner")
    dar.decide("DENIED")
    assert "42704: a role or object does not exist" in locked_out(made, dar, credential)
    assert owner_of(made, "renamed") == credential.username
    made.servers.psql("ALTER ROLE former_owner RENAME TO kept_owner")
    gone(made, credential)
    assert owner_of(made, "renamed") == "kept_owner"
    made.servers.psql("DROP TABLE renamed; DROP ROLE kept_owner")
    dar.end()


def test_a_user_that_owns_nothing_is_dropped_whatever_statements_say(made: World, callee: Callee) -> None:
    """Else a mistake in statements would keep each database user, locked out, for ever."""
    dar, credential = issued(made, callee, "mistaken", revoke=["NONSENSE;"])
    dar.decide("DENIED")
    eventually(lambda: not made.can_log_in(credential), timeout_s=LOCKED_OUT_S)
    gone(made, credential)
    dar.end()
    eventually(lambda: not dar.end().open_attempts, timeout_s=60, what="that nothing is left")
    # H7: Vault would run the statements at the lease's TTL once more, with whatever the role says then.
    assert not made.leases("k8s.-.demo.mistaken")


@pytest.mark.parametrize(
    "leaves",
    [
        ["SET ROLE app_owner;"],
        ["SET SESSION AUTHORIZATION app_owner;"],
        ["CREATE TEMP TABLE pg_roles AS SELECT * FROM pg_catalog.pg_roles WHERE false;"],
        ["CREATE TEMP TABLE pg_stat_activity (pid int, usename name);", "SET search_path = pg_temp, pg_catalog;"],
    ],
)
def test_what_sql_leaves_in_vaults_session_keeps_no_user(made: World, callee: Callee, leaves: list[str]) -> None:
    """Vault keeps its session open, and Leasegate's own statements meet there what a team's SQL left."""
    name = f"leaves{sum(map(len, leaves))}"
    dar, credential = issued(made, callee, name, revoke=["SELECT 1;"], create=[*CREATE, *leaves])
    session = made.connect(credential)
    dar.decide("DENIED")
    eventually(lambda: not made.can_log_in(credential), timeout_s=LOCKED_OUT_S, what="that the user cannot log in")
    eventually(lambda: not is_alive(session), timeout_s=LOCKED_OUT_S, what="the end of its session")
    gone(made, credential)
    dar.end()
    made.servers.must("POST", f"{made.mount}/reset/{DB}")


@pytest.mark.parametrize(
    "fails",
    [
        "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53300'; END $$;",
        "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '28P01'; END $$;",
        "SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(1);",
        "SELECT pg_terminate_backend(pg_backend_pid());",
    ],
    ids=["too many connections", "a wrong password", "a timeout", "its own end"],
)
def test_h7_statements_that_fail_like_a_server_that_is_away_keep_nobody(
    made: World, callee: Callee, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What looks as if it passed by itself is waited for, and not for ever."""
    monkeypatch.setattr(dispatch, "LOCKOUT_AFTER_S", 2.0)
    dar, credential = issued(made, callee, f"away{len(fails)}", revoke=[fails])
    session = made.connect(credential)
    dar.decide("DENIED")
    eventually(lambda: not made.can_log_in(credential), timeout_s=LOCKED_OUT_S, what="that the user cannot log in")
    eventually(lambda: not is_alive(session), timeout_s=LOCKED_OUT_S, what="the end of its session")
    made.servers.must("POST", f"sys/leases/revoke-force/{made.mount}/creds")
    made.servers.psql(f'DROP ROLE IF EXISTS "{credential.username}"')
