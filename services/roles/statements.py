"""SQL of Leasegate's own that Vault runs beside or in place of a team's statements.

Vault replaces ``{{name}}``. It runs a statement in ``$$`` as it is, and splits any other one at its semicolons.
"""

from __future__ import annotations

from collections.abc import Sequence

CREATE_IF_ABSENT = (
    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN"
    ' CREATE ROLE "{{name}}" NOLOGIN; END IF; END $$;'
)
"""Creates the user where it does not exist, so that any statements find one to drop.

Two leases can share one user name; the revocation of the second one then finds no user.
"""

FORCE_DROP: Sequence[str] = (
    CREATE_IF_ABSENT,
    'ALTER ROLE "{{name}}" NOLOGIN;',
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{{name}}';",
    'GRANT "{{name}}" TO CURRENT_USER;',  # a user that is no superuser needs it for the next statements
    'REASSIGN OWNED BY "{{name}}" TO CURRENT_USER;',
    'DROP OWNED BY "{{name}}";',
    'DROP ROLE IF EXISTS "{{name}}";',
)
"""Drops a user that PostgreSQL refused to drop, as it owns objects."""


def tolerant(revocation: Sequence[str]) -> tuple[str, ...]:
    """Return revocation statements that also work where the user is dropped already.

    An empty list stays empty: Vault's default checks by itself.
    """
    if not revocation or revocation[0] == CREATE_IF_ABSENT:
        return tuple(revocation)
    return (CREATE_IF_ABSENT, *revocation)
