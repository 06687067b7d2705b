"""The process ``python -m services.roles``: reads its options, opens sessions, serves, and closes in reverse order."""

from __future__ import annotations

from contextlib import closing

from leasegate.roles.v1 import role_service_pb2, role_service_pb2_grpc
from services.common.config import ServerConfig, StartupRefusedError, server_command
from services.common.rpc.server import serve, service
from services.common.vault.call_metrics import new_server_registry
from services.common.vault.sessions import Sessions
from services.common.vault.vaults import Vaults
from services.common.vault_config.read import VaultConfigError, read_vault_config
from services.roles.roles import DbRoles
from services.roles.scope import SCOPE
from services.roles.servicer import RoleServicer


@server_command("roles", port=7702, help="Writes the roles of PostgreSQL secrets engines in Vault, and removes them.")
def main(config: ServerConfig) -> None:
    """Serve until SIGTERM."""
    try:
        named = read_vault_config(config.vault_config, allow_any_vault=config.allow_any_vault)
    except VaultConfigError as err:
        raise StartupRefusedError(str(err)) from err
    vaults = Vaults(named, service="roles")
    with closing(Sessions(SCOPE, vaults=vaults)) as sessions:
        descriptor = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
        servicer = RoleServicer(DbRoles(sessions), vaults)
        roles = service(descriptor, role_service_pb2_grpc.add_RoleServiceServicer_to_server, servicer, first=True)
        serve(config, [roles], health=sessions.serving, registry=new_server_registry())


if __name__ == "__main__":
    main()
