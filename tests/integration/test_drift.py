"""engine and roles correct what somebody else changed in Vault, on a real bao and PostgreSQL, over real gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.errors import LeasesInUseError
from tests.integration.vault_services import (
    MOUNT,
    connection,
    delete_engine,
    engine_service,
    ensure_engine,
    ensure_role,
    quiet,
    role_service,
)
from tests.servers import Servers

NAME = "k8s.-.demo.postgres-app"
CONFIG, ROLE = f"{MOUNT}/config/{NAME}", f"{MOUNT}/roles/k8s.-.demo.psql-role"
Engine = engine_service_pb2_grpc.EngineServiceStub
Roles = role_service_pb2_grpc.RoleServiceStub


@pytest.fixture
def engine(servers: Servers) -> Iterator[Any]:
    with engine_service(servers) as stub:
        stub.EnsureEngine(ensure_engine(servers))
        yield stub
    servers.vault("DELETE", f"sys/mounts/{MOUNT}")


@pytest.fixture
def roles(servers: Servers, engine: Any) -> Iterator[Any]:
    with role_service(servers) as stub:
        yield stub


def lead_elsewhere(servers: Servers) -> str:
    """Lead the connection to another database by hand; answers the URL that it had."""
    url = str(servers.must("GET", CONFIG)["data"]["connection_details"]["connection_url"])
    servers.must("POST", CONFIG, connection_url=url.replace("/postgres?", "/template1?"), verify_connection=False)
    return url


def url_now(servers: Servers) -> str:
    return str(servers.must("GET", CONFIG)["data"]["connection_details"]["connection_url"])


def test_the_answer_names_the_database_without_user_and_password(servers: Servers, engine: Any) -> None:
    assert (
        engine.EnsureEngine(ensure_engine(servers)).database
        == f"{servers.postgres_host}:{servers.postgres_port}/postgres"
    )


def test_a_connection_to_another_database_is_corrected_at_once(servers: Servers, engine: Any) -> None:
    url, request = lead_elsewhere(servers), ensure_engine(servers)
    with pytest.raises(LeasesInUseError):  # whoever does not know where it led may be moving it
        engine.EnsureEngine(request)
    request.last_database = f"{servers.postgres_host}:{servers.postgres_port}/somewhere"
    with pytest.raises(LeasesInUseError):
        engine.EnsureEngine(request)
    request.last_database = f"{servers.postgres_host}:{servers.postgres_port}/postgres"
    answer = engine.EnsureEngine(request)
    assert (answer.changed, answer.drift_corrected, url_now(servers)) == (True, True, url)
    again = engine.EnsureEngine(request)
    assert (again.changed, again.drift_corrected) == (False, False)


def test_whatever_was_written_is_corrected_and_reported(servers: Servers, engine: Any) -> None:
    before = servers.must("GET", CONFIG)["data"]
    for drift in (
        {"allowed_roles": "other"},
        {"username_template": "{{ random 20 }}"},
        {"max_open_connections": 1},
        {"max_idle_connections": 1},
        {"max_connection_lifetime": "7s"},
    ):
        servers.must("POST", CONFIG, **drift)
        assert servers.must("GET", CONFIG)["data"] != before
        answer = engine.EnsureEngine(ensure_engine(servers))
        assert (answer.changed, answer.drift_corrected) == (True, True), drift
        found = servers.must("GET", CONFIG)["data"]
        shown = {**found, **found.pop("connection_details")}
        for key, value in before.items():
            assert key == "connection_details" or shown[key] == value, key
        assert (shown.get("max_open_connections", 0), shown.get("max_idle_connections", 0)) == (0, 0)
        assert not engine.EnsureEngine(ensure_engine(servers)).changed


def test_what_is_deleted_is_written_again_and_reported(servers: Servers, engine: Any) -> None:
    for path in (CONFIG, f"sys/mounts/{MOUNT}"):
        servers.must("DELETE", path)
        answer = engine.EnsureEngine(ensure_engine(servers))
        assert (answer.changed, answer.drift_corrected) == (True, True), path
        assert servers.vault("GET", CONFIG)[0] == 200


def test_a_change_of_the_owner_is_not_reported_as_drift(servers: Servers, engine: Any) -> None:
    request = ensure_engine(servers)
    request.postgres.max_open_connections = 3
    answer = engine.EnsureEngine(request)
    assert (answer.changed, answer.drift_corrected) == (True, False)
    engine.DeleteEngine(delete_engine(servers))
    answer = engine.EnsureEngine(request)
    assert (answer.changed, answer.drift_corrected) == (True, False)


def test_only_the_connection_is_removed_where_its_owner_stays(servers: Servers, engine: Any) -> None:
    request = delete_engine(servers)
    request.connection_only = True
    request.ClearField("quiesce_report")
    with pytest.raises(LeasesInUseError):
        engine.DeleteEngine(request)
    request.quiesce_report.CopyFrom(quiet(servers, connection=NAME))
    answer = engine.DeleteEngine(request)
    assert (answer.unmounted, list(answer.remaining_owners)) == (False, ["demo/postgresql-engine"])
    assert servers.vault("GET", CONFIG)[0] == 404
    assert not engine.DeleteEngine(request).unmounted  # a second time does no harm
    other = ensure_engine(servers)
    other.postgres.CopyFrom(connection(servers, name="k8s.-.demo.other-app"))
    assert engine.EnsureEngine(other).connection == "k8s.-.demo.other-app"


def test_a_role_led_to_another_connection_is_corrected_at_once(servers: Servers, roles: Any) -> None:
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    servers.must("POST", ROLE, db_name="by-hand", creation_statements=["SELECT 1;"])
    with pytest.raises(LeasesInUseError):  # whoever does not know which one it had may be changing it
        roles.EnsureDbRole(request)
    request.last_db_name = NAME
    assert roles.EnsureDbRole(request).changed
    found = servers.must("GET", ROLE)["data"]
    assert (found["db_name"], found["creation_statements"]) == (NAME, list(request.definition.creation_statements))
    assert not roles.EnsureDbRole(request).changed


def test_a_role_that_its_owner_leads_elsewhere_waits_for_its_leases(servers: Servers, roles: Any) -> None:
    request = ensure_role(servers)
    roles.EnsureDbRole(request)
    servers.must("POST", ROLE, db_name="by-hand")
    request.definition.db_name, request.last_db_name = "new", NAME
    request.quiesce_report.CopyFrom(quiet(servers, connection="by-hand"))
    with pytest.raises(LeasesInUseError):
        roles.EnsureDbRole(request)
    request.quiesce_report.CopyFrom(quiet(servers, connection=NAME))
    assert roles.EnsureDbRole(request).changed
