"""The role service on the wire: decode, call the domain once, encode."""

from __future__ import annotations

from dataclasses import replace

import grpc

from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from leasegate.types.v1 import types_pb2
from services.common.errors import writes_nothing
from services.common.logs import bound
from services.common.vault.object_ref import ObjectRef
from services.common.vault.paths import mount_path
from services.common.vault.target import VaultTarget
from services.common.vault.vaults import Vaults
from services.roles import wire
from services.roles.roles import DbRoles


class RoleServicer(role_service_pb2_grpc.RoleServiceServicer):
    """Answers ``leasegate.roles.v1.RoleService``; the interceptors turn its errors into statuses."""

    def __init__(self, roles: DbRoles, vaults: Vaults) -> None:
        self._roles, self._vaults = roles, vaults

    def EnsureDbRole(self, request: pb.EnsureDbRoleRequest, context: grpc.ServicerContext) -> pb.EnsureDbRoleResponse:
        """Write the database role as described."""
        with writes_nothing():
            wanted = wire.wanted(request)
            wanted = replace(wanted, target=self._vaults.resolve(wanted.target))
        with bound(object=wanted.owner.entry):
            return wire.ensured(wanted, request, self._roles.ensure_db_role(wanted))

    def DeleteDbRole(self, request: pb.DeleteDbRoleRequest, context: grpc.ServicerContext) -> pb.DeleteDbRoleResponse:
        """Remove the database role."""
        owner, target = ObjectRef.from_proto(request.owner), self._target(request.target)
        mount = mount_path(request.mount, field="mount")
        with bound(object=owner.entry):
            self._roles.delete_db_role(owner, target, mount)
        return pb.DeleteDbRoleResponse()

    def EnsureCleanupRole(
        self, request: pb.EnsureCleanupRoleRequest, context: grpc.ServicerContext
    ) -> pb.EnsureCleanupRoleResponse:
        """Write a cleanup role."""
        wanted = wire.cleanup_role_wanted(request)
        wanted = replace(wanted, target=self._vaults.resolve(wanted.target))
        with bound(object=wanted.target.display):
            self._roles.ensure_cleanup_role(wanted)
        return pb.EnsureCleanupRoleResponse()

    def DeleteCleanupRole(
        self, request: pb.DeleteCleanupRoleRequest, context: grpc.ServicerContext
    ) -> pb.DeleteCleanupRoleResponse:
        """Remove a cleanup role."""
        name, target = wire.cleanup_role_name(request.name), self._target(request.target)
        mount = mount_path(request.mount, field="mount")
        with bound(object=target.display):
            self._roles.delete_cleanup_role(target, mount, name)
        return pb.DeleteCleanupRoleResponse()

    def _target(self, message: types_pb2.VaultTarget) -> VaultTarget:
        return self._vaults.resolve(VaultTarget.from_proto(message))
