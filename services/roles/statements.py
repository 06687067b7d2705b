"""SQL of our own that Vault runs beside or in place of a team's.

Vault replaces ``{{name}}``. A statement in ``$$`` is run as it is, any other one is split at its semicolons.
"""

from __future__ import annotations

from collections.abc import Sequence

CREATE_IF_ABSENT = "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN CREATE ROLE \"{{name}}\" NOLOGIN; END IF; END $$;"
"""Two leases can share one user name, and then the second one's revocation finds nothing: with it, any statements find
a role to drop.
"""

FINISH: Sequence[str] = (
    CREATE_IF_ABSENT,
    'ALTER ROLE "{{name}}" NOLOGIN;',
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{{name}}';",
    'GRANT "{{name}}" TO CURRENT_USER;',  # what a user who is no superuser needs to act on what the role owns
    'REASSIGN OWNED BY "{{name}}" TO CURRENT_USER;',
    'DROP OWNED BY "{{name}}";',
    'DROP ROLE IF EXISTS "{{name}}";',
)
"""Ends a login that PostgreSQL refused to drop because it owns something."""


def tolerant(revocation: Sequence[str]) -> tuple[str, ...]:
    """A team's revocation statements, made to work where the role is gone already; none stay none, for which Vault
    checks itself.
    """
    if not revocation or revocation[0] == CREATE_IF_ABSENT:
        return tuple(revocation)
    return (CREATE_IF_ABSENT, *revocation)
