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

REMEMBER = (
    "DO $$ DECLARE found text := (SELECT oid::text FROM pg_catalog.pg_roles WHERE rolname = '{{name}}'); BEGIN"
    ' IF found IS NULL THEN CREATE ROLE "{{name}}" NOLOGIN; END IF;'
    " PERFORM set_config('leasegate.made', (found IS NULL)::text, true);"
    " PERFORM set_config('leasegate.oid', (SELECT oid::text FROM pg_catalog.pg_roles WHERE rolname = '{{name}}'),"
    " true); END $$;"
)
"""Creates the user where it does not exist, and remembers it for this transaction.

By oid, as a team's statements may rename it, which keeps its password.
"""

CHECK_ENDED = (
    "DO $$ DECLARE left_over pg_catalog.pg_roles%ROWTYPE; BEGIN"
    # A team's statements may have put objects of the same names, such as temporary tables, before PostgreSQL's own.
    " PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);"
    " SELECT * INTO left_over FROM pg_roles WHERE oid = current_setting('leasegate.oid')::oid;"
    " IF left_over.oid IS NOT NULL AND current_setting('leasegate.made')::bool THEN"
    " EXECUTE format('DROP ROLE %I', left_over.rolname);"
    " ELSIF left_over.rolcanlogin OR left_over.rolname <> '{{name}}'"
    # They may have changed what was remembered, too.
    " OR left_over.oid IS NULL AND EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN"
    " RAISE EXCEPTION 'the revocation statements of the role leave a database user that can log in, or rename it:"
    " they have to drop it' USING ERRCODE = 'LG001';"
    " ELSIF EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = current_setting('leasegate.oid')::oid) THEN"
    " RAISE EXCEPTION 'the revocation statements of the role leave open sessions of the database user:"
    " they have to end them' USING ERRCODE = 'LG002'; END IF; END $$;"
)
"""Refuses a revocation after which the user can still log in or has another name, or a session of it is open.

The codes are Leasegate's own. access then drops the user with ``FORCE_DROP``. A user that only ``REMEMBER`` made, and
that the statements leave, is dropped.
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


def checked(revocation: Sequence[str]) -> tuple[str, ...]:
    """Return revocation statements that also work where the user is dropped already, and that end its access.

    Vault runs them in one transaction. An empty list stays empty: Vault's default drops the user. Whatever a team
    wrote is checked, also where it begins as if it were checked already.
    """
    return (REMEMBER, *revocation, CHECK_ENDED) if revocation else ()
