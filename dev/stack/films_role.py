"""The database role films-reader for callers outside Kubernetes: mount, connection and role in Vault, and the catalog.

In Kubernetes, engine and roles write these for SecretEngines and PostgresRoles, and the watcher passes the role to
access. Without Kubernetes, an operator writes them, and access reads the role from its catalog file.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from deploy.vault.api import VaultApi
from dev.stack.errors import StackError

ROLE, MOUNT, CONNECTION, TARGET = "films-reader", "team/films", "films", "local"
_DEFINITION: dict[str, Any] = {
    "db_name": CONNECTION,
    "creation_statements": [
        "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';",
        'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";',
    ],
    "revocation_statements": [],
    "default_ttl": "1h",
    "max_ttl": "24h",
}


def catalog(*, vault: str) -> dict[str, Any]:
    """The content of access' ``--catalog`` file, with the name of Vault's entry in ``--vault-config``."""
    target = {"name": TARGET, "vault": vault}
    role = {"name": ROLE, "target": TARGET, "mount": MOUNT, "vault_role": ROLE, **_DEFINITION}
    return {"targets": [target], "roles": [role]}


def set_up_films(vault: VaultApi, *, postgres_url: str) -> None:
    """Write mount, connection and role to Vault; existing ones are overwritten.

    Args:
        vault: Acts as an administrator.
        postgres_url: URL of a superuser.

    Raises:
        StackError: Vault refused a call.
    """
    url = urlsplit(postgres_url)
    address = f"{url.hostname}:{url.port or 5432}"
    query = f"?{url.query}" if url.query else "?sslmode=disable"
    connection = {
        "plugin_name": "postgresql-database-plugin",
        "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{address}{url.path}{query}",
        "username": url.username,
        "password": url.password,
        "allowed_roles": [ROLE, "leasegate-cleanup.*"],
        # As engine sets it: the user name depends on the attempt alone (docs/safety.md).
        "username_template": "{{ .DisplayName | truncate 63 }}",
    }
    if vault.call("GET", f"sys/mounts/{MOUNT}").status != 200:
        _write(vault, f"sys/mounts/{MOUNT}", {"type": "database"})
    _write(vault, f"{MOUNT}/config/{CONNECTION}", connection)
    _write(vault, f"{MOUNT}/roles/{ROLE}", _DEFINITION)


def _write(vault: VaultApi, path: str, body: dict[str, Any]) -> None:
    answer = vault.call("POST", path, body)
    if not answer.ok:
        raise StackError(f"{path}: Vault answered {answer.status} {answer.errors}")
