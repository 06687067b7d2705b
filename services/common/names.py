"""Names in Vault, as the guide prints them: ``k8s.{cluster or -}.{namespace}.{name}``."""

from __future__ import annotations

DEFAULT_MOUNT = "database"
DEFAULT_PLUGIN = "postgresql-database-plugin"
"""What an empty plugin name means (leasegate.engine.v1.PostgresConnection)."""
CLEANUP_ROLE_PREFIX = "leasegate-cleanup."


def vault_name(cluster: str, namespace: str, name: str) -> str:
    """Name a role (of a PostgresRole) or a connection (of an AppBinding) in Vault.

    Args:
        cluster: The operator's name for the cluster; empty stands for ``-``.
        namespace: Namespace of the object.
        name: Name of the object.
    """
    return f"k8s.{cluster or '-'}.{namespace}.{name}"
