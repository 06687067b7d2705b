"""The engine service on the wire: decode, call the domain once, encode."""

from __future__ import annotations

import grpc

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from services.common.errors import writes_nothing
from services.common.logs import bound
from services.engine import wire
from services.engine.engines import SecretEngines


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Answers ``leasegate.engine.v1.EngineService``; the interceptors turn its errors into statuses."""

    def __init__(self, engines: SecretEngines) -> None:
        self._engines = engines

    def EnsureEngine(self, request: pb.EnsureEngineRequest, context: grpc.ServicerContext) -> pb.EnsureEngineResponse:
        """Write the mount and its connection as described."""
        with writes_nothing():
            wanted = wire.wanted(request)
        with bound(object=wanted.owner.entry):
            return wire.ensured(wanted, self._engines.ensure_engine(wanted))

    def DeleteEngine(self, request: pb.DeleteEngineRequest, context: grpc.ServicerContext) -> pb.DeleteEngineResponse:
        """Remove the owner from the mount."""
        unwanted = wire.unwanted(request)
        with bound(object=unwanted.owner.entry):
            return wire.deleted(self._engines.delete_engine(unwanted))
