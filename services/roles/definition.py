"""What a role says: decoded, as Vault is given it, and as an approver sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from services.roles.statements import CREATE_IF_ABSENT, FINISH, tolerant

CLEANUP_ROLE_TTL_S = 60
"""A cleanup role's lease ends by itself soon, also when nobody is left to revoke it."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A role of a database engine.

    Attributes:
        db_name: Name of the connection.
        creation_statements: SQL that makes the login.
        revocation_statements: SQL that drops it; empty for Vault's own.
        rollback_statements: SQL that cleans up after a failed creation; empty for Vault's own.
        renew_statements: SQL that prolongs it; empty for Vault's own.
        default_ttl_s: First TTL of a lease; 0 for the mount's default.
        max_ttl_s: Longest life of a lease; 0 for the mount's longest.
    """

    db_name: str
    creation_statements: tuple[str, ...]
    revocation_statements: tuple[str, ...] = ()
    rollback_statements: tuple[str, ...] = ()
    renew_statements: tuple[str, ...] = ()
    default_ttl_s: int = 0
    max_ttl_s: int = 0

    def resolved(self) -> Definition:
        """The role as it is written: a team's revocation statements made to work twice."""
        return replace(self, revocation_statements=tolerant(self.revocation_statements))

    def payload(self) -> dict[str, Any]:
        """What Vault is given: everything, so that what was taken out of the spec goes out of Vault."""
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
        """Whether this is what Vault shows of the role."""
        return all((shown.get(key) or type(value)()) == value for key, value in self.payload().items())

    def digest(self, *, mount: str, vault_role: str) -> str:
        """What an approver approves of a role: 64 hexadecimal digits of mount, name and definition."""
        content = {"mount": mount, "vault_role": vault_role, "definition": asdict(self)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def cleanup_role(*, db_name: str, revocation_statements: tuple[str, ...], finish: bool) -> Definition:
    """A role that makes no usable login, and whose lease's end drops the login of one attempt.

    Args:
        db_name: Name of the connection.
        revocation_statements: Those of the attempt's role; empty for Vault's own.
        finish: Whether a drop that PostgreSQL refused is to be finished by statements of our own instead.
    """
    return Definition(
        db_name=db_name,
        creation_statements=(CREATE_IF_ABSENT,),
        revocation_statements=tuple(FINISH) if finish else tolerant(revocation_statements),
        default_ttl_s=CLEANUP_ROLE_TTL_S,
        max_ttl_s=CLEANUP_ROLE_TTL_S,
    )
