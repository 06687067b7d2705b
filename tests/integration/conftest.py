"""The services that several modules call, and what they leave in Vault taken out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.vault.sessions import Sessions
from tests.integration.vault_services import MOUNT, engine_service, ensure_engine, role_service
from tests.integration.vault_users import SCOPE, Clock, disable_methods, enable_methods
from tests.servers import Servers
from tests.vaults import any_vault


@pytest.fixture
def roles(servers: Servers) -> Iterator[role_service_pb2_grpc.RoleServiceStub]:
    """The role service."""
    with role_service(servers) as stub:
        yield stub


@pytest.fixture
def engine(servers: Servers) -> Iterator[engine_service_pb2_grpc.EngineServiceStub]:
    """The engine service, with the guide's engine made."""
    with engine_service(servers) as stub:
        stub.EnsureEngine(ensure_engine(servers))
        yield stub


@pytest.fixture
def unmounted(servers: Servers) -> Iterator[None]:
    """Afterwards the guide's mount and another are gone, with their leases."""
    yield
    for path in (MOUNT, "team-a"):
        servers.vault("POST", f"sys/leases/revoke-prefix/{path}", sync=True)
        servers.vault("DELETE", f"sys/mounts/{path}")


@pytest.fixture
def clock() -> Clock:
    """Real time that the test moves on."""
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Iterator[Sessions]:
    """Sessions by that time, with which teams act."""
    with closing(Sessions(SCOPE, vaults=any_vault(), clock=clock)) as made:
        yield made


@pytest.fixture
def auth_methods(servers: Servers) -> Iterator[None]:
    """Vault's auth methods, for as long as a test lasts."""
    enable_methods(servers)
    yield
    disable_methods(servers)
