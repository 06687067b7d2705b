"""What the holder of one credential can do to others on the same connection, on real servers: delay them, no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import pytest

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2_grpc
from tests.integration.vault_services import MOUNT, ensure_engine, ensure_role, issue, log_in, revoke
from tests.servers import Servers

EngineStub = engine_service_pb2_grpc.EngineServiceStub
RoleStub = role_service_pb2_grpc.RoleServiceStub
Answer = TypeVar("Answer")

ROLE = "k8s.-.demo.psql-role"
AT_MOST_S = 5.0

pytestmark = pytest.mark.usefixtures("unmounted")


@pytest.fixture
def holder(servers: Servers, engine: EngineStub, roles: RoleStub) -> Iterator[dict[str, str]]:
    """A credential whose holder keeps a lock on the own database user, as an open transaction does."""
    engine.EnsureEngine(ensure_engine(servers))
    roles.EnsureDbRole(ensure_role(servers))
    lease = issue(servers, ROLE, "demo-psql-role-holder")
    session = log_in(servers, lease)
    session.autocommit = False
    session.execute("CREATE TEMP TABLE mine (a int)")
    yield lease
    session.close()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    """What a call answers, and after how many seconds."""
    began = time.monotonic()
    return call(), time.monotonic() - began


def test_an_open_transaction_delays_no_other_call(servers: Servers, holder: dict[str, str]) -> None:
    others = issue(servers, ROLE, "demo-psql-role-others")
    with ThreadPoolExecutor(3) as pool:
        refused = pool.submit(
            timed, lambda: servers.vault("POST", f"sys/leases/revoke/{holder['lease_id']}", sync=True)
        )
        began = pool.submit(timed, lambda: issue(servers, ROLE, "demo-psql-role-new"))
        ended = pool.submit(timed, lambda: revoke(servers, others))

        (status, body), refused_s = refused.result(timeout=30)
        new, began_s = began.result(timeout=30)
        code, ended_s = ended.result(timeout=30)

    assert status == 400
    assert "SQLSTATE 55P03" in str(body)
    assert code < 300
    log_in(servers, new).close()
    with pytest.raises(psycopg.OperationalError):
        log_in(servers, others)
    assert max(refused_s, began_s, ended_s) < AT_MOST_S, (refused_s, began_s, ended_s)
    assert revoke(servers, new) < 300
    assert servers.must("LIST", f"{MOUNT}/roles")["data"]["keys"] == [ROLE]
