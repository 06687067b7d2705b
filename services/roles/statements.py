"""SQL of Leasegate's own that Vault runs beside or in place of a team's statements.

Vault replaces ``{{name}}``. It runs a statement in ``$$`` as it is, and splits any other one at its semicolons.
"""

from __future__ import annotations

from collections.abc import Sequence

SHORT: Sequence[str] = (
    "SET TRANSACTION READ WRITE;",
    "SET LOCAL SESSION AUTHORIZATION DEFAULT;",
    "SET LOCAL ROLE NONE;",
    "SET LOCAL lock_timeout = '2s';",
)
"""A default of the managing user, such as read-only transactions, stops no lockout, and a wait for a lock ends.

Vault keeps its session: as whom a team's SQL left it, such as by SET ROLE, does not count either.
"""

_OWN: Sequence[str] = (*SHORT, "SET LOCAL search_path = pg_catalog, pg_temp;")
"""Where Leasegate's own statements run alone: what a team's SQL left in Vault's session stands before no catalog."""

END_SESSIONS = (
    "DO $$ BEGIN IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN BEGIN"
    " EXECUTE 'GRANT \"{{name}}\" TO CURRENT_USER' || CASE WHEN current_setting('server_version_num')::int >= 160000"
    " THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;"
    " EXCEPTION WHEN insufficient_privilege OR invalid_grant_operation OR undefined_object THEN"
    " RAISE WARNING 'no membership: %', SQLERRM; END; END IF;"
    " BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';"
    " EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING 'sessions not ended: %', SQLERRM; END; END $$;"
)
"""Ends the sessions of the user, without waiting for any: one that does not end would undo the lockout.

A managing user that is no superuser has to be a member for that. EXECUTE, as PostgreSQL 15 has no WITH INHERIT. Two
handlers, as a refused signal must not undo the grant.
"""

PRESENT = (
    "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN"
    ' CREATE ROLE "{{name}}" NOLOGIN; END IF; END $$;'
)
"""Creates the user where it does not exist, so that any statements find one to drop.

Two leases can share one user name; the revocation of the second one then finds no user.
"""

LOCKOUT: Sequence[str] = (*_OWN, END_SESSIONS, PRESENT, 'ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL;')
"""Creation statements that lock the user out; Vault commits them before it answers the lease.

Sessions end first: one that holds ``ALTER ROLE CURRENT_USER`` open would block the lockout.
"""

_CAN_LOG_IN = 'ALTER ROLE "{{name}}" LOGIN;'
"""Makes the team's statements show that they end the access; ``CHECK_ENDED`` undoes it in the same transaction."""

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

The codes are Leasegate's own. access then locks the user out and drops it. A user that only ``REMEMBER`` made, and
that the statements leave, is dropped.
"""

_CHECK_ELSEWHERE = (
    "DO $$ DECLARE elsewhere text := (SELECT string_agg(encode(convert_to(datname, 'UTF8'), 'hex'), ' ') FROM"
    " (SELECT DISTINCT datname FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid"
    " JOIN pg_database ON pg_database.oid = dbid WHERE refclassid = 'pg_authid'::regclass AND rolname = '{{name}}'"
    " AND datname <> current_database() ORDER BY datname LIMIT 4) AS databases); BEGIN IF elsewhere IS NOT NULL THEN"
    " RAISE EXCEPTION 'leasegate:%:', elsewhere USING ERRCODE = 'LG004'; END IF; END $$;"
)
"""Names the other databases of the server in which the user owns objects or has rights, which cannot be dropped here.

In hexadecimal digits, as Vault replaces the managing user's password wherever a text has it.
"""

_DROP = ('DROP OWNED BY "{{name}}";', _CHECK_ELSEWHERE, 'DROP ROLE IF EXISTS "{{name}}";')

FORCE_DROP: Sequence[str] = (*_OWN, END_SESSIONS, PRESENT, 'REASSIGN OWNED BY "{{name}}" TO CURRENT_USER;', *_DROP)
"""Drops a user that PostgreSQL refused to drop, as it owns objects: they become the managing user's.

Sessions end once more: until the lockout is committed, a pool of clients connects again.
"""

_CHECK_UNOWNED = (
    "DO $$ BEGIN IF EXISTS (SELECT FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid"
    " WHERE refclassid = 'pg_authid'::regclass AND deptype = 'o' AND rolname = '{{name}}') THEN"
    " RAISE EXCEPTION 'the user owns objects' USING ERRCODE = 'LG003'; END IF; END $$;"
)

DROP_UNOWNED: Sequence[str] = (*_OWN, END_SESSIONS, PRESENT, _CHECK_UNOWNED, *_DROP)
"""Drops a user that owns nothing in any database of the server, whose team's statements fail; no owner changes."""


def checked(revocation: Sequence[str]) -> tuple[str, ...]:
    """Return revocation statements that also work where the user is dropped already, and that end its access.

    Vault runs them in one transaction. An empty list stays empty: Vault's default drops the user. Whatever a team
    wrote is checked, also where it begins as if it were checked already.
    """
    return (REMEMBER, *revocation, CHECK_ENDED) if revocation else ()


def after_lockout(revocation: Sequence[str]) -> tuple[str, ...]:
    """Return a team's revocation statements as they run on a user that is locked out.

    They have to end its access by themselves here, too: a user that they leave is dropped by ``FORCE_DROP``.
    """
    if not revocation:
        return ()
    return (*SHORT, END_SESSIONS, REMEMBER, _CAN_LOG_IN, *revocation, CHECK_ENDED)
