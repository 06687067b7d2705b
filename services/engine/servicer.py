"""The engine service on the wire: decode, call the domain once, encode."""

from __future__ import annotations

import grpc

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from services.engine import wire
from services.engine.engines import SecretEngines


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Answers ``leasegate.engine.v1.EngineService``; what it raises the interceptors turn into statuses."""

    def __init__(self, engines: SecretEngines) -> None:
        self._engines = engines

    def EnsureEngine(self, request: pb.EnsureEngineRequest, context: grpc.ServicerContext) -> pb.EnsureEngineResponse:
        """Make the mount and its connection as described."""
        wanted = wire.wanted(request)
        return wire.ensured(wanted, self._engines.ensure(wanted))

    def DeleteEngine(self, request: pb.DeleteEngineRequest, context: grpc.ServicerContext) -> pb.DeleteEngineResponse:
        """Take the owner off the mount."""
        return wire.deleted(self._engines.delete(wire.unwanted(request)))
