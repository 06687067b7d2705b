"""The engine service on the wire: decode, call the domain once, encode."""

from __future__ import annotations

from dataclasses import replace

import grpc

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.engine.v1 import engine_service_pb2_grpc
from services.common.errors import writes_nothing
from services.common.logs import bound
from services.common.vault.vaults import Vaults
from services.engine import wire
from services.engine.engines import SecretEngines, Wanted
from services.engine.hosts import check_hosts


class EngineServicer(engine_service_pb2_grpc.EngineServiceServicer):
    """Answers ``leasegate.engine.v1.EngineService``; the interceptors turn its errors into statuses."""

    def __init__(self, engines: SecretEngines, vaults: Vaults) -> None:
        self._engines, self._vaults = engines, vaults

    def EnsureEngine(self, request: pb.EnsureEngineRequest, context: grpc.ServicerContext) -> pb.EnsureEngineResponse:
        """Write the mount and its connection as described."""
        with writes_nothing():
            wanted = self._permitted(wire.wanted(request))
        with bound(object=wanted.owner.entry):
            return wire.ensured(wanted, self._engines.ensure_engine(wanted))

    def DeleteEngine(self, request: pb.DeleteEngineRequest, context: grpc.ServicerContext) -> pb.DeleteEngineResponse:
        """Remove the owner from the mount."""
        unwanted = wire.unwanted(request)
        unwanted = replace(unwanted, target=self._vaults.resolve(unwanted.target))
        with bound(object=unwanted.owner.entry):
            return wire.deleted(self._engines.delete_engine(unwanted))

    def _permitted(self, wanted: Wanted) -> Wanted:
        """What a caller asks for, at the Vault that the operator named, and what the operator permits of it.

        Raises:
            VaultNotAllowedError: No entry has the Vault.
            PathNotOwnedError: The path is not for the namespace.
            SpecInvalidError: The database is at an address of Vault's own machine.
        """
        target = self._vaults.resolve(wanted.target)
        namespace = wanted.owner.namespace
        self._vaults.check_mount(target, wanted.mount, namespace=namespace)
        check_hosts(
            wanted.connection.url,
            vault_address=target.address,
            may_be_local=self._vaults.permits_local_databases(target),
            field="postgres.database",
        )
        adoptable = self._vaults.permits_adoption(target, wanted.mount, namespace=namespace)
        return replace(wanted, target=target, adoptable=adoptable)
