"""Reads which database users a PostgreSQL server has. Nothing is written to it."""

from __future__ import annotations

from cli.leasegate.errors import CommandError
from services.common import logs

CONNECT_TIMEOUT_S = 10
_NAMED_BY_LEASEGATE = (
    "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname ~ '^token-.*-[a-z0-9]{20}$' ORDER BY rolname"
)


def database_users(url: str) -> list[str]:
    """The database users that are named as Leasegate names them.

    Args:
        url: Of any user that may connect, such as ``postgresql://user@host:5432/postgres``.

    Raises:
        CommandError: The server cannot be reached, or refused the query.
    """
    try:
        import psycopg
    except ImportError as err:
        raise CommandError(
            "--postgres needs psycopg, which is not installed: pip install 'leasegate-server[cli]'"
        ) from err
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S, application_name="leasegate") as connection:
            return [str(row[0]) for row in connection.execute(_NAMED_BY_LEASEGATE)]
    except psycopg.Error as err:
        text = logs.scrub(" ".join(str(err).split()))
        raise CommandError(f"PostgreSQL: {text}: check --postgres, and PGPASSWORD or its password file") from err
