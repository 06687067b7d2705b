"""Names, defaults and digests that the watcher and the services have to compute alike. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

DEFAULT_MOUNT = "database"
DEFAULT_PLUGIN = "postgresql-database-plugin"
"""What an empty plugin name means (leasegate.engine.v1.PostgresConnection)."""
DEFAULT_AUTH_MOUNTS: Mapping[str, str] = {
    "kubernetes": "kubernetes",
    "userpass": "userpass",
    "certificate": "cert",
    "app_role": "approle",
}
"""Where Vault mounts an auth method by default, by its name in ``leasegate.types.v1.VaultTarget.auth``."""
CLEANUP_ROLE_PREFIX = "leasegate-cleanup."


def vault_name(cluster: str, namespace: str, name: str) -> str:
    """Name a db_role (of a PostgresRole) or a connection (of an AppBinding) in Vault, as the guide prints it.

    Args:
        cluster: The operator's name for the cluster; empty stands for ``-``.
        namespace: Namespace of the object.
        name: Name of the object.
    """
    return f"k8s.{cluster or '-'}.{namespace}.{name}"


def target_digest(identity: str) -> str:
    """Digest of a Vault (``services.common.vault_config.entries.vault_identity``); another digest is another target.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
