"""The process ``python -m services.engine``: reads its options, opens sessions, serves, and closes in reverse order."""

from __future__ import annotations

from contextlib import closing

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from services.common.config import ServerConfig, StartupRefusedError, server_command
from services.common.rpc.server import serve, service
from services.common.vault.call_metrics import new_server_registry
from services.common.vault.sessions import Sessions
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import VaultConfigError, read_vault_config
from services.engine.engines import SecretEngines
from services.engine.scope import SCOPE
from services.engine.servicer import EngineServicer


@server_command(
    "engine", port=7701, help="Makes PostgreSQL secrets engines and their connections in Vault, and removes them."
)
def main(config: ServerConfig) -> None:
    """Serve until SIGTERM."""
    try:
        named = read_vault_config(config.vault_config, allow_any_vault=config.allow_any_vault)
    except VaultConfigError as err:
        raise StartupRefusedError(str(err)) from err
    vaults = Vaults(named, service="engine")
    with closing(Sessions(SCOPE, vaults=vaults)) as sessions:
        descriptor = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
        servicer = EngineServicer(SecretEngines(sessions), vaults)
        engine = service(descriptor, engine_service_pb2_grpc.add_EngineServiceServicer_to_server, servicer, first=True)
        serve(config, [engine], health=sessions.serving, registry=new_server_registry())


if __name__ == "__main__":
    main()
