"""Every field of the engine service's requests wrong in turn: the field is named, and nothing is made in Vault."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from google.protobuf.duration_pb2 import Duration

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.types.v1 import types_pb2
from services.common.errors import SpecInvalidError
from tests.integration.vault_services import MOUNT, delete_engine, engine_service, ensure_engine, owner
from tests.servers import Servers

Stub = engine_service_pb2_grpc.EngineServiceStub


@pytest.fixture
def engine(servers: Servers) -> Iterator[Stub]:
    with engine_service(servers) as stub:
        yield stub


WRONG: list[tuple[str, Callable[[pb.EnsureEngineRequest], object]]] = [
    ("owner.name", lambda r: r.owner.ClearField("name")),
    ("owner.name", lambda r: setattr(r.owner, "name", "a b")),
    ("owner.namespace", lambda r: setattr(r.owner, "namespace", "../demo")),
    ("owner.cluster", lambda r: setattr(r.owner, "cluster", "a.b")),
    ("owner.cluster_uid", lambda r: setattr(r.owner, "cluster_uid", 'x"}')),
    ("owner.generation", lambda r: setattr(r.owner, "generation", -1)),
    ("target.source.name", lambda r: r.target.source.ClearField("name")),
    ("target.address", lambda r: r.target.ClearField("address")),
    ("target.address", lambda r: setattr(r.target, "address", "vault:8200")),
    ("target.address", lambda r: setattr(r.target, "address", "https://user:pw@vault:8200")),
    ("target.address", lambda r: setattr(r.target, "address", "https://vault:8200/v1/")),
    ("target.address", lambda r: setattr(r.target, "address", "https://vault:99999")),
    ("target.vault_namespace", lambda r: setattr(r.target, "vault_namespace", "a\r\nX-Evil: 1")),
    ("target.ca_bundle", lambda r: setattr(r.target, "ca_bundle", b"nonsense")),
    ("target.server_name", lambda r: setattr(r.target, "server_name", "a b")),
    ("target.token.token", lambda r: setattr(r.target.token, "token", "s.abc\n")),
    ("target.kubernetes.auth_role", lambda r: setattr(r.target.kubernetes, "jwt", "e.y.J")),
    (
        "target.kubernetes.mount",
        lambda r: r.target.kubernetes.MergeFrom(types_pb2.KubernetesAuth(mount="../x", auth_role="r", jwt="e.y.J")),
    ),
    (
        "target.kubernetes.jwt",
        lambda r: r.target.kubernetes.MergeFrom(types_pb2.KubernetesAuth(auth_role="r", jwt="a b")),
    ),
    (
        "target.userpass.username",
        lambda r: r.target.userpass.MergeFrom(types_pb2.UserpassAuth(username="a/b", password="p")),
    ),
    ("target.app_role.role_id", lambda r: setattr(r.target.app_role, "secret_id", "s")),
    ("target.certificate.certificate", lambda r: setattr(r.target.certificate, "private_key", b"k")),
    ("mount", lambda r: setattr(r, "mount", "sys/mounts")),
    ("mount", lambda r: setattr(r, "mount", "a//b")),
    ("mount", lambda r: setattr(r, "mount", "a/../b")),
    ("mount", lambda r: setattr(r, "mount", "my-postgres-se/config/x")),
    ("mount", lambda r: setattr(r, "mount", "x" * 300)),
    ("postgres.name", lambda r: r.postgres.ClearField("name")),
    ("postgres.name", lambda r: setattr(r.postgres, "name", "a/b")),
    ("postgres.plugin_name", lambda r: setattr(r.postgres, "plugin_name", "a b")),
    ("postgres.allowed_roles", lambda r: r.postgres.allowed_roles.append("")),
    ("postgres.allowed_roles", lambda r: r.postgres.allowed_roles.extend(f"r{n}" for n in range(1001))),
    ("postgres.max_open_connections", lambda r: setattr(r.postgres, "max_open_connections", 10**9)),
    ("postgres.max_idle_connections", lambda r: setattr(r.postgres, "max_idle_connections", -(10**9))),
    ("postgres.max_connection_lifetime", lambda r: r.postgres.max_connection_lifetime.CopyFrom(Duration(seconds=-1))),
    ("postgres.max_connection_lifetime", lambda r: r.postgres.max_connection_lifetime.CopyFrom(Duration(nanos=5))),
    ("postgres.database", lambda r: r.postgres.database.ClearField("service")),
    ("postgres.database.username", lambda r: setattr(r.postgres.database, "username", "a\nb")),
    ("postgres.database.password", lambda r: setattr(r.postgres.database, "password", "root\n")),
    ("postgres.database.service.scheme", lambda r: r.postgres.database.service.ClearField("scheme")),
    ("postgres.database.service.scheme", lambda r: setattr(r.postgres.database.service, "scheme", "mysql")),
    ("postgres.database.service.host", lambda r: r.postgres.database.service.ClearField("host")),
    ("postgres.database.service.host", lambda r: setattr(r.postgres.database.service, "host", "u:p@host")),
    ("postgres.database.service.host", lambda r: setattr(r.postgres.database.service, "host", "host:1234")),
    ("postgres.database.service.port", lambda r: r.postgres.database.service.ClearField("port")),
    ("postgres.database.service.port", lambda r: setattr(r.postgres.database.service, "port", 65536)),
    ("postgres.database.service.path", lambda r: setattr(r.postgres.database.service, "path", "a b")),
    ("postgres.database.service.query", lambda r: setattr(r.postgres.database.service, "query", "password=x")),
    ("postgres.database.service.query", lambda r: setattr(r.postgres.database.service, "query", "a=%zz")),
    ("postgres.database.url", lambda r: setattr(r.postgres.database, "url", "//postgres.demo.svc:5432/postgres")),
    ("postgres.database.url", lambda r: setattr(r.postgres.database, "url", "postgresql://u:secretpw@h:5432/db")),
    ("postgres.database.url", lambda r: setattr(r.postgres.database, "url", "postgresql://h:5432/db#f")),
    ("postgres.database.url", lambda r: setattr(r.postgres.database, "url", "postgresql://h:5432/db?%70assword=x")),
]


@pytest.mark.parametrize(
    ("field", "break_it"), WRONG, ids=[f"{number}-{field}" for number, (field, _) in enumerate(WRONG)]
)
def test_a_wrong_field_is_named_and_nothing_is_made(
    servers: Servers, engine: Stub, field: str, break_it: Callable[[pb.EnsureEngineRequest], object]
) -> None:
    request = ensure_engine(servers)
    break_it(request)

    with pytest.raises(SpecInvalidError) as invalid:
        engine.EnsureEngine(request)

    assert field in {violation.field for violation in invalid.value.violations}
    assert "secretpw" not in invalid.value.message
    assert servers.vault("GET", f"sys/mounts/{MOUNT}")[0] == 400


def test_a_delete_with_wrong_fields(servers: Servers, engine: Stub) -> None:
    for field, change in (
        ("mount", {"mount": "sys"}),
        ("connection", {"connection": "a/b"}),
        ("owner.name", {"owner": owner("a b")}),
    ):
        request = delete_engine(servers)
        request.MergeFrom(pb.DeleteEngineRequest(**change))
        with pytest.raises(SpecInvalidError) as invalid:
            engine.DeleteEngine(request)
        assert [violation.field for violation in invalid.value.violations] == [field]
