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


def target_digest(*, address: str, vault_namespace: str, auth_mount: str) -> str:
    """Digest of a Vault target; another digest is another target (leasegate.types.v1.VaultTargetRef).

    Args:
        address: ``https://host:port``.
        vault_namespace: Vault namespace; empty for root.
        auth_mount: Auth mount of the session, ``token`` for a token; empty where there is no auth.

    Returns:
        16 hexadecimal digits.
    """
    parts = (address.lower().rstrip("/"), vault_namespace.strip("/"), auth_mount)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
