"""The process ``python -m services.roles``: reads its options, opens sessions, serves, and closes in reverse order."""

from __future__ import annotations

from contextlib import closing

from leasegate.roles.v1 import role_service_pb2, role_service_pb2_grpc
from services.common.config import ServerConfig, StartupRefusedError, server_command
from services.common.rpc.server import serve, service
from services.common.vault.call_metrics import new_server_registry
from services.common.vault.service_auth import ServiceAuthError, ServiceAuths
from services.common.vault.sessions import Sessions
from services.roles.roles import DbRoles
from services.roles.scope import SCOPE
from services.roles.servicer import RoleServicer


@server_command("roles", port=7702, help="Writes the roles of PostgreSQL secrets engines in Vault, and removes them.")
def main(config: ServerConfig) -> None:
    """Serve until SIGTERM."""
    try:
        own = ServiceAuths.read_file(config.vault_config)
    except ServiceAuthError as err:
        raise StartupRefusedError(f"--vault-config: {err}") from err
    with closing(Sessions(SCOPE, service_auths=own)) as sessions:
        descriptor = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
        servicer = RoleServicer(DbRoles(sessions))
        roles = service(descriptor, role_service_pb2_grpc.add_RoleServiceServicer_to_server, servicer, first=True)
        serve(config, [roles], health=sessions.serving, registry=new_server_registry())


if __name__ == "__main__":
    main()
