"""Each text of ``services.common.vault.error_texts`` is provoked on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.common.vault import error_texts
from services.common.vault.error_texts import Drop
from services.common.vault.response import error_text
from tests.servers import Servers

MOUNT = "texts/database"
CREATE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
DROP = 'DROP ROLE "{{name}}";'


def refusal(servers: Servers, status: int, method: str, path: str, token: str | None = None, **body: Any) -> str:
    """The text with which the server refuses a call."""
    found, answer = servers.vault(method, path, token, **body)
    assert found == status, answer
    return error_text(answer)


def write_connection(servers: Servers, *, port: int, **body: Any) -> dict[str, Any]:
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{servers.postgres_host}:{port}/postgres?connect_timeout=2"
    return {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": url,
        "username": "postgres",
        "password": "root",
        "allowed_roles": "*",
        **body,
    }


@pytest.fixture
def mount(servers: Servers) -> Iterator[str]:
    servers.must("POST", f"sys/mounts/{MOUNT}", type="database")
    servers.must("POST", f"{MOUNT}/config/db", **write_connection(servers, port=servers.postgres_port))
    servers.must("POST", f"{MOUNT}/roles/r", db_name="db", creation_statements=[CREATE], revocation_statements=[DROP])
    yield MOUNT
    servers.vault("POST", f"sys/leases/revoke-force/{MOUNT}")
    servers.must("DELETE", f"sys/mounts/{MOUNT}")


@pytest.mark.usefixtures("mount")
def test_a_path_without_a_mount_has_no_route(servers: Servers) -> None:
    assert error_texts.is_no_route(refusal(servers, 404, "GET", "nowhere/roles/r"))
    assert not error_texts.is_no_route(refusal(servers, 404, "GET", f"{MOUNT}/roles/absent"))


@pytest.mark.usefixtures("mount")
def test_a_path_without_a_mount_is_said_to_have_none(servers: Servers) -> None:
    assert error_texts.is_no_mount(refusal(servers, 400, "GET", "sys/mounts/nowhere"))


@pytest.mark.usefixtures("mount")
def test_a_mount_in_use_differs_from_one_above_it(servers: Servers) -> None:
    same = refusal(servers, 400, "POST", f"sys/mounts/{MOUNT}", type="database")
    assert error_texts.is_mount_in_use(same, MOUNT)
    below = refusal(servers, 400, "POST", f"sys/mounts/{MOUNT}/below", type="database")
    assert not error_texts.is_mount_in_use(below, f"{MOUNT}/below")


@pytest.mark.usefixtures("mount")
def test_a_connection_that_cannot_be_verified(servers: Servers) -> None:
    wrong = refusal(servers, 400, "POST", f"{MOUNT}/config/bad", **write_connection(servers, port=1))
    assert error_texts.is_connection_unverified(wrong)
    body = write_connection(servers, port=servers.postgres_port, password="no")
    assert error_texts.is_connection_unverified(refusal(servers, 400, "POST", f"{MOUNT}/config/bad", **body))
    body = write_connection(servers, port=1, plugin_name="none")
    assert not error_texts.is_connection_unverified(refusal(servers, 400, "POST", f"{MOUNT}/config/bad", **body))


@pytest.mark.usefixtures("mount")
def test_a_database_role_that_does_not_exist(servers: Servers) -> None:
    said = refusal(servers, 400, "GET", f"{MOUNT}/creds/absent")
    assert error_texts.is_unknown_db_role(said)


def test_a_token_role_that_does_not_exist(servers: Servers) -> None:
    said = refusal(servers, 400, "POST", "auth/token/create/absent")
    assert error_texts.is_unknown_token_role(said, "absent")
    assert not error_texts.is_unknown_token_role(said, "leasegate")


def test_a_list_of_nothing_is_not_found(servers: Servers) -> None:
    """Orphans are looked for by it (``services.access.worker.orphan_scan``)."""
    assert refusal(servers, 404, "LIST", f"sys/leases/lookup/{MOUNT}/creds") == ""


def test_a_lease_that_does_not_exist(servers: Servers) -> None:
    assert error_texts.is_lease_unknown(refusal(servers, 400, "POST", f"sys/leases/renew/{MOUNT}/creds/r/absent"))


@pytest.mark.usefixtures("mount")
def test_a_renewal_that_the_database_refuses_is_no_unknown_lease(servers: Servers) -> None:
    raising = "DO $$ BEGIN RAISE EXCEPTION 'lease not found'; END $$;"
    role: dict[str, Any] = {"db_name": "db", "creation_statements": [CREATE], "revocation_statements": [DROP]}
    servers.must("POST", f"{MOUNT}/roles/raising", **role, renew_statements=[raising])
    lease = servers.must("GET", f"{MOUNT}/creds/raising")["lease_id"]
    said = refusal(servers, 400, "POST", f"sys/leases/renew/{lease}")
    assert "lease not found" in said
    assert not error_texts.is_lease_unknown(said)
    servers.must("POST", f"{MOUNT}/config/db", **write_connection(servers, port=1, verify_connection=False))
    unreached = refusal(servers, 400, "POST", f"sys/leases/renew/{lease}")
    assert not error_texts.is_lease_unknown(unreached)
    assert error_texts.in_own_words(unreached) == "Vault cannot reach the database"
    servers.must("POST", f"{MOUNT}/config/db", **write_connection(servers, port=servers.postgres_port))
    servers.must("POST", f"sys/leases/revoke/{lease}", sync=True)


@pytest.mark.usefixtures("mount")
def test_a_mount_that_is_being_removed_exists_and_has_no_route(servers: Servers) -> None:
    """Vault disables no mount whose leases it cannot revoke; what the database said is about a statement."""
    user = servers.must("GET", f"{MOUNT}/creds/r")["data"]["username"]
    servers.psql(f'CREATE TABLE kept (); ALTER TABLE kept OWNER TO "{user}"')
    try:
        status, answer = servers.vault("DELETE", f"sys/mounts/{MOUNT}")
        said = error_text(answer)
        assert status in (400, 500)
        assert error_texts.sqlstate(said) == "2BP01"
        assert error_texts.quotes_statements(f"sys/mounts/{MOUNT}", said)
        assert servers.must("GET", f"sys/mounts/{MOUNT}")["data"]["type"] == "database"
        assert error_texts.is_no_route(refusal(servers, 404, "GET", f"{MOUNT}/roles/r"))
    finally:
        servers.psql(f'DROP TABLE kept; DROP ROLE "{user}"')


def test_a_denied_token_differs_from_an_unknown_one(servers: Servers) -> None:
    made = servers.must("POST", "auth/token/create-orphan", policies=["none"])["auth"]
    servers.must("POST", "auth/token/revoke-accessor", accessor=made["accessor"])
    assert error_texts.is_denied_by_policy(
        refusal(servers, 403, "GET", "auth/token/lookup-self", servers.token_with("none"))
    )
    for unknown in ("s.absent", made["client_token"]):
        assert not error_texts.is_denied_by_policy(refusal(servers, 403, "GET", "auth/token/lookup-self", unknown))


@pytest.mark.usefixtures("mount")
def test_a_refused_drop_differs_from_an_unreachable_database(servers: Servers) -> None:
    made = servers.must("GET", f"{MOUNT}/creds/r")
    user, lease = made["data"]["username"], made["lease_id"]
    servers.psql(f'CREATE TABLE kept (); ALTER TABLE kept OWNER TO "{user}"')
    try:
        owning = refusal(servers, 400, "POST", f"sys/leases/revoke/{lease}", sync=True)
        assert error_texts.drop_failure(owning) is Drop.OWNS
        body = write_connection(servers, port=1, verify_connection=False)
        servers.must("POST", f"{MOUNT}/config/db", **body)
        unreached = refusal(servers, 400, "POST", f"sys/leases/revoke/{lease}", sync=True)
        assert error_texts.drop_failure(unreached) is Drop.UNREACHED
    finally:
        servers.psql(f'DROP TABLE kept; DROP ROLE "{user}"')


RAISED = "DO $$ BEGIN RAISE EXCEPTION 'no table (SQLSTATE 57P01)' USING ERRCODE = '{}'; END $$;"
REFUSALS = {
    'DROP TABLE absent; DROP ROLE "{{name}}";': ("42P01", Drop.REFUSED),
    'REVOKE absent FROM "{{name}}";': ("42704", Drop.REFUSED),
    "SELECT absent();": ("42883", Drop.REFUSED),
    "NONSENSE;": ("42601", Drop.REFUSED),
    "SELECT absent;": ("42703", Drop.REFUSED),
    "GRANT USAGE ON SCHEMA absent TO PUBLIC;": ("3F000", Drop.REFUSED),
    "SELECT 'x'::int;": ("22P02", Drop.REFUSED),
    "SET TRANSACTION READ ONLY; DROP TABLE absent;": ("25006", Drop.PASSING),
    RAISED.format("P0001"): ("P0001", Drop.REFUSED),
    RAISED.format("LG001"): ("LG001", Drop.OWNS),
    RAISED.format("40001"): ("40001", Drop.PASSING),
    RAISED.format("53300"): ("53300", Drop.PASSING),
}


def test_why_a_drop_failed_is_said_by_the_last_sqlstate(servers: Servers, mount: str) -> None:
    """The ones before it may be of a name or a message that the holder of the credential wrote."""
    for statements, expected in REFUSALS.items():
        role: dict[str, Any] = {"db_name": "db", "creation_statements": [CREATE]}
        servers.must("POST", f"{mount}/roles/refusing", **role, revocation_statements=[statements])
        made = servers.must("GET", f"{mount}/creds/refusing")
        said = refusal(servers, 400, "POST", f"sys/leases/revoke/{made['lease_id']}", sync=True)
        assert (error_texts.sqlstate(said), error_texts.drop_failure(said)) == expected, statements
        servers.must("POST", f"{mount}/roles/refusing", **role, revocation_statements=[DROP])
        servers.must("POST", f"sys/leases/revoke/{made['lease_id']}", sync=True)


def test_what_a_credential_cannot_be_read_for_has_words_of_its_own(servers: Servers, mount: str) -> None:
    """They quote nothing (tests/integration/test_statement_texts.py)."""

    def words(status: int, role: str = "r", token: str | None = None) -> str:
        return error_texts.in_own_words(refusal(servers, status, "GET", f"{mount}/creds/{role}", token))

    assert words(400, "absent") == "unknown role"
    assert words(403, token=servers.token_with("none")) == "permission denied"
    for body, said in (
        ({"allowed_roles": "other"}, "the role is not among allowed_roles of the connection"),
        ({"password": "no"}, "PostgreSQL refused with SQLSTATE 28P01: the password of the managing user is wrong"),
    ):
        connection = write_connection(servers, port=servers.postgres_port, verify_connection=False, **body)
        servers.must("POST", f"{mount}/config/db", **connection)
        assert words(500) == said
    servers.must("POST", f"{mount}/config/db", **write_connection(servers, port=1, verify_connection=False))
    assert words(500) == "Vault cannot reach the database"
