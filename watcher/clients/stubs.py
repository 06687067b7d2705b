"""gRPC stubs of the three services: the only way in which the watcher reaches them.

Every call raises LeasegateError (services.common.rpc.channel).
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from leasegate.access.v1 import requester_service_pb2_grpc, watcher_service_pb2_grpc
from leasegate.engine.v1 import engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class ServiceStubs:
    """A stub for each gRPC service that the watcher calls.

    Attributes:
        engine: Mounts and connections.
        roles: Database roles and cleanup roles in Vault.
        access: Access requests, catalog and change feed.
        requester: Acknowledgement of credentials, and the list of access requests.
    """

    engine: engine_service_pb2_grpc.EngineServiceStub
    roles: role_service_pb2_grpc.RoleServiceStub
    access: watcher_service_pb2_grpc.WatcherServiceStub
    requester: requester_service_pb2_grpc.RequesterServiceStub


def service_stubs(*, engine: grpc.Channel, roles: grpc.Channel, access: grpc.Channel) -> ServiceStubs:
    """Create the stubs on their channels."""
    return ServiceStubs(
        engine=engine_service_pb2_grpc.EngineServiceStub(engine),
        roles=role_service_pb2_grpc.RoleServiceStub(roles),
        access=watcher_service_pb2_grpc.WatcherServiceStub(access),
        requester=requester_service_pb2_grpc.RequesterServiceStub(access),
    )
