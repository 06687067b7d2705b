"""The role service on the wire: decode, call the domain once, encode."""

from __future__ import annotations

import grpc

from leasegate.roles.v1 import role_service_pb2 as pb
from leasegate.roles.v1 import role_service_pb2_grpc
from services.common.vault.owner import Owner
from services.common.vault.paths import mount_path
from services.common.vault.target import Target
from services.roles import wire
from services.roles.roles import Roles


class RoleServicer(role_service_pb2_grpc.RoleServiceServicer):
    """Answers ``leasegate.roles.v1.RoleService``; what it raises the interceptors turn into statuses."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    def EnsureRole(self, request: pb.EnsureRoleRequest, context: grpc.ServicerContext) -> pb.EnsureRoleResponse:
        """Write the role as described."""
        wanted = wire.wanted(request)
        return wire.ensured(wanted, request, self._roles.ensure(wanted))

    def DeleteRole(self, request: pb.DeleteRoleRequest, context: grpc.ServicerContext) -> pb.DeleteRoleResponse:
        """Remove the role."""
        owner, target = Owner.from_proto(request.owner), Target.from_proto(request.target)
        self._roles.delete(owner, target, mount_path(request.mount, field="mount"))
        return pb.DeleteRoleResponse()

    def EnsureAdopter(self, request: pb.EnsureAdopterRequest, context: grpc.ServicerContext) -> pb.EnsureAdopterResponse:
        """Write an adopter."""
        self._roles.ensure_adopter(wire.adopter_wanted(request))
        return pb.EnsureAdopterResponse()

    def DeleteAdopter(self, request: pb.DeleteAdopterRequest, context: grpc.ServicerContext) -> pb.DeleteAdopterResponse:
        """Remove an adopter."""
        name, target = wire.adopter_name(request.name), Target.from_proto(request.target)
        self._roles.delete_adopter(target, mount_path(request.mount, field="mount"), name)
        return pb.DeleteAdopterResponse()
