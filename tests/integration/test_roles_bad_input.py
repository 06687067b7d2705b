"""Every field of the role service's requests wrong in turn: the field is named, and nothing is written to Vault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from leasegate.types.v1 import types_pb2
from services.common.errors import SpecInvalidError
from tests.integration.vault_services import (
    CLEANUP_ROLE,
    MOUNT,
    cleanup_role,
    ensure_role,
    target,
)
from tests.servers import Servers

Stub = role_service_pb2_grpc.RoleServiceStub

pytestmark = pytest.mark.usefixtures("unmounted")


BIG = "x" * (64 * 1024 + 1)
WRONG: list[tuple[str, Callable[[pb.EnsureDbRoleRequest], object]]] = [
    ("owner.name", lambda r: r.owner.ClearField("name")),
    ("owner.name", lambda r: setattr(r.owner, "name", "a/b")),
    ("owner.name", lambda r: r.owner.CopyFrom(types_pb2.ObjectRef(name="k8s.-.demo.x"))),
    ("owner.name", lambda r: r.owner.CopyFrom(types_pb2.ObjectRef(name="leasegate-cleanup.0123456789ab"))),
    ("owner.namespace", lambda r: setattr(r.owner, "namespace", "Demo")),
    ("target.address", lambda r: setattr(r.target, "address", "ftp://vault")),
    ("mount", lambda r: setattr(r, "mount", "auth/token")),
    ("mount", lambda r: setattr(r, "mount", "a b")),
    ("definition.db_name", lambda r: r.definition.ClearField("db_name")),
    ("definition.db_name", lambda r: setattr(r.definition, "db_name", "a/b")),
    ("definition.creation_statements", lambda r: r.definition.ClearField("creation_statements")),
    (
        "definition.creation_statements",
        lambda r: r.definition.creation_statements.__setitem__(slice(None), ["SELECT 1"]),
    ),
    ("definition.creation_statements[2]", lambda r: r.definition.creation_statements.append("  ")),
    ("definition.creation_statements[2]", lambda r: r.definition.creation_statements.append(BIG)),
    ("definition.creation_statements", lambda r: r.definition.creation_statements.extend(["SELECT 1"] * 63)),
    ("definition.revocation_statements[0]", lambda r: r.definition.revocation_statements.append("")),
    ("definition.rollback_statements[0]", lambda r: r.definition.rollback_statements.append("SELECT '\0'")),
    ("definition.renew_statements", lambda r: r.definition.renew_statements.extend(["SELECT 1"] * 65)),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration(seconds=86401))),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration())),
    ("definition.default_ttl", lambda r: r.definition.default_ttl.CopyFrom(Duration(seconds=1, nanos=1))),
    ("definition.max_ttl", lambda r: r.definition.max_ttl.CopyFrom(Duration(seconds=-5))),
    ("definition.max_ttl", lambda r: r.definition.max_ttl.CopyFrom(Duration(seconds=10**12))),
]


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("field", "break_it"), WRONG, ids=[f"{number}-{field}" for number, (field, _) in enumerate(WRONG)]
)
def test_a_wrong_field_is_named_and_nothing_is_written(
    servers: Servers, roles: Stub, field: str, break_it: Callable[[pb.EnsureDbRoleRequest], object]
) -> None:
    request = ensure_role(servers)
    break_it(request)

    with pytest.raises(SpecInvalidError) as invalid:
        roles.EnsureDbRole(request)

    assert field in {violation.field for violation in invalid.value.violations}
    assert servers.vault("LIST", f"{MOUNT}/roles")[0] == 404


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": "k8s.-.demo.psql-role"}),
        ("name", {"name": "leasegate-cleanup.0123456789AB"}),
        ("name", {"name": f"{CLEANUP_ROLE}/x"}),
        ("mount", {"mount": "sys"}),
        ("connection", {"connection": "a/b"}),
        ("revocation_statements[0]", {"revocation_statements": [" "]}),
    ],
)
@pytest.mark.usefixtures("engine")
def test_a_wrong_cleanup_role(servers: Servers, roles: Stub, field: str, change: dict[str, object]) -> None:
    request = cleanup_role(servers)
    request.MergeFrom(pb.EnsureCleanupRoleRequest(**change))  # type: ignore[arg-type]

    with pytest.raises(SpecInvalidError) as invalid:
        roles.EnsureCleanupRole(request)

    assert [violation.field for violation in invalid.value.violations] == [field]
    assert servers.vault("LIST", f"{MOUNT}/roles")[0] == 404
    if field == "name":
        with pytest.raises(SpecInvalidError):
            roles.DeleteCleanupRole(pb.DeleteCleanupRoleRequest(target=target(servers), mount=MOUNT, name=request.name))
