"""The definition of a database role: as Vault takes it, and as an approver sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from services.roles.statements import DROP_UNOWNED, FORCE_DROP, LOCKOUT, after_lockout, checked

CLEANUP_ROLE_TTL_S = 60
"""TTL of a cleanup role's lease, which expires soon when nothing revokes it."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A database role of Vault.

    Attributes:
        db_name: Name of the connection.
        creation_statements: SQL that creates the database user.
        revocation_statements: SQL that drops it; empty for Vault's default.
        rollback_statements: SQL that cleans up after a failed creation; empty for Vault's default.
        renew_statements: SQL that extends its validity; empty for Vault's default.
        default_ttl_s: First TTL of a lease; 0 for the mount's default.
        max_ttl_s: Longest life of a lease; 0 for the mount's maximum.
    """

    db_name: str
    creation_statements: tuple[str, ...]
    revocation_statements: tuple[str, ...] = ()
    rollback_statements: tuple[str, ...] = ()
    renew_statements: tuple[str, ...] = ()
    default_ttl_s: int = 0
    max_ttl_s: int = 0

    def resolved(self) -> Definition:
        """Return the definition as it is written: with revocation statements that may run twice, and are checked."""
        return replace(self, revocation_statements=checked(self.revocation_statements))

    def payload(self) -> dict[str, Any]:
        """Return the body for Vault, with empty fields, so that a field removed from the spec is removed from Vault."""
        return {
            "db_name": self.db_name,
            "creation_statements": list(self.creation_statements),
            "revocation_statements": list(self.revocation_statements),
            "rollback_statements": list(self.rollback_statements),
            "renew_statements": list(self.renew_statements),
            "default_ttl": self.default_ttl_s,
            "max_ttl": self.max_ttl_s,
        }

    def is_in(self, shown: Mapping[str, Any]) -> bool:
        """Whether Vault shows the database role like this."""
        return all((shown.get(key) or type(value)()) == value for key, value in self.payload().items())

    def digest(self, *, mount: str, vault_role: str) -> str:
        """Return the digest that an approver approves: 64 hexadecimal digits of mount, name and definition."""
        content = {"mount": mount, "vault_role": vault_role, "definition": asdict(self)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cleanup_role(
    *, db_name: str, revocation_statements: tuple[str, ...], force_drop: bool, keep_owners: bool = False
) -> Definition:
    """Define a database role that locks the user of one attempt out, and whose lease, when revoked, drops it.

    Args:
        db_name: Name of the connection.
        revocation_statements: Those of the attempt's database role; empty for Vault's default.
        force_drop: Whether Leasegate's own statements drop it, as PostgreSQL refused those.
        keep_owners: With ``force_drop``: whether it is dropped only if it owns nothing.
    """
    own = DROP_UNOWNED if keep_owners else FORCE_DROP
    return Definition(
        db_name=db_name,
        creation_statements=tuple(LOCKOUT),
        revocation_statements=tuple(own) if force_drop else after_lockout(revocation_statements),
        default_ttl_s=CLEANUP_ROLE_TTL_S,
        max_ttl_s=CLEANUP_ROLE_TTL_S,
    )
