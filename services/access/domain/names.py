"""Names and digests, pure: of attempts, database users, cleanup roles, leases for people, and of what is approved."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields

from services.access.domain.models import Attempt, DropBy, Subject
from services.common.names import CLEANUP_ROLE_PREFIX

DATABASE_USER_BYTES = 63
"""PostgreSQL cuts a longer name (NAMEDATALEN - 1)."""

_VAULTS_PREFIX = "token-"  # Vault puts it before the display name of a token made through a token role
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
ATTEMPT_ID_CHARS = 20
_SUBJECT = tuple(field.name for field in fields(Subject))


def new_attempt_id() -> str:
    """20 random characters of a-z and 0-9: 103 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ATTEMPT_ID_CHARS))


def display_name(attempt_id: str, *, namespace: str, role: str) -> str:
    """The display name of an attempt's tokens: ``{namespace}-{role}-{attempt id}``.

    The front is cut so that the name of the database user keeps the whole id. Characters other than letters, digits and
    dashes become dashes, as in Vault.
    """
    front = re.sub(r"[^a-zA-Z0-9-]", "-", f"{namespace}-{role}" if namespace else role)
    return f"{front[: DATABASE_USER_BYTES - len(_VAULTS_PREFIX) - 1 - len(attempt_id)]}-{attempt_id}"


def database_user_name(display: str) -> str:
    """The database user that Vault creates for a token of this display name, by the engine's username_template."""
    return _VAULTS_PREFIX + display


def display_name_of(attempt: Attempt) -> str:
    """The display name in an attempt's database user, for another token of the same name."""
    return attempt.database_user.removeprefix(_VAULTS_PREFIX)


def cleanup_role_name(*, mount: str, db_name: str, revocation_statements: Sequence[str], drop_by: DropBy) -> str:
    """The cleanup role that serves attempts of one connection with the same revocation statements."""
    return CLEANUP_ROLE_PREFIX + _sha256([mount, db_name, list(revocation_statements), drop_by])[:12]


def lease_handle(attempt_id: str) -> str:
    """Short name of an attempt's lease, for logs and people."""
    return hashlib.sha256(attempt_id.encode()).hexdigest()[:12]


DIGEST_VERSION = 2
"""Version of the formula of ``grant_digest``. Another formula gets another version beside it (ADR 66)."""


def grant_digest(
    *, role_digest: str, subjects: Sequence[Subject], ttl_s: float | None, reason: str, ticket: str, uid: str
) -> str:
    """Digest of what an approver approves: the db_role, the subjects, duration, reason and ticket, and whose it is.

    Returns:
        The version of the formula, a colon and 64 hexadecimal digits.
    """
    who = [{name: getattr(s, name) for name in _SUBJECT} for s in subjects]
    content = {"role": role_digest, "subjects": who, "ttl": ttl_s, "reason": reason, "ticket": ticket, "uid": uid}
    return f"{DIGEST_VERSION}:{_sha256(content)}"


def role_digest(
    *, vault: str, database: str, plugin: str, mount: str, vault_role: str, definition: Mapping[str, object]
) -> str:
    """Digest of a db_role: where it is, to which database it leads, and all that it does there.

    Args:
        vault: Digest of its VaultTarget.
        database: Identity of its database; empty where that is not known.
        plugin: Vault's plugin of its connection; empty where that is not known.
        mount: Path of the mount.
        vault_role: Its name in Vault.
        definition: All its statements, its TTLs and the name of its connection.
    """
    place = {"vault": vault, "database": database, "plugin": plugin, "mount": mount, "vault_role": vault_role}
    return _sha256({**place, "definition": dict(definition)})


def content_digest(*parts: object) -> str:
    """Digest that tells two uses of one request_id apart."""
    return _sha256(list(parts))


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
