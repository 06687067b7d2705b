"""The texts and SQLSTATEs of Vault that decide something, in one place.

Vault answers different situations with the same HTTP status, so that only the text tells them apart. Each function
names what it recognises and the servers on which the text was seen. ``tests/contract/test_vault_error_texts.py``
provokes each one on the server of the tests, so that a Vault that words it otherwise fails there and not in use.
"""

from __future__ import annotations

import re

_SQLSTATE = re.compile(r"SQLSTATE ([0-9A-Z]{2})[0-9A-Z]{3}")
_PASSING_SQLSTATES = frozenset({"08", "40", "53", "57", "58"})
"""Classes of SQLSTATE that are not about the statement: connection, rollback, resources, operator intervention, system
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


def is_no_route(text: str) -> bool:
    """Whether a 404 means that nothing is mounted at the path, or that the mount is being removed.

    ``no handler for route "x". route entry not found.`` Seen on OpenBao 2.7.2.
    """
    return "no handler for route" in text


def is_no_mount(text: str) -> bool:
    """Whether a 400 for ``sys/mounts/PATH`` means that nothing is mounted there.

    ``No secret engine mount at x/``. Seen on OpenBao 2.7.2.
    """
    return "No secret engine mount" in text


def is_mount_in_use(text: str, path: str) -> bool:
    """Whether a 400 for enabling a mount means that something is mounted at exactly this path.

    ``path is already in use at x/``. Another mount above or below the path is named by its own path. Seen on OpenBao
    2.7.2.
    """
    return f"in use at {path}/" in text


def is_connection_unverified(text: str) -> bool:
    """Whether a 400 for writing a connection means that Vault could not connect to the database as its user.

    ``error verifying connection: ... failed to connect to ...``. Seen on OpenBao 2.7.2.
    """
    return "verifying connection" in text or "failed to connect" in text


def is_unknown_db_role(text: str) -> bool:
    """Whether a 400 for reading a credential means that the database role does not exist, so that no user was created.

    ``unknown role: x``. Seen on OpenBao 2.7.2.
    """
    return ": unknown role: " in text


def is_lease_unknown(text: str) -> bool:
    """Whether a 400 for renewing a lease means that Vault has no such lease: it, or its token, was revoked.

    ``lease not found``. Seen on OpenBao 2.7.2.
    """
    return "lease not found" in text


def is_token_unknown(text: str) -> bool:
    """Whether a 400 for revoking an accessor means that its token does not exist, or is marked as being revoked.

    ``token not found``. Seen on OpenBao 2.7.2, of a token whose revocation a seal interrupted
    (tests/contract/test_attempt_vault.py).
    """
    return "token not found" in text


def is_denied_by_policy(text: str) -> bool:
    """Whether a 403 means that the token exists and its policies do not permit the call.

    ``1 error occurred: * permission denied``. Of a token that Vault does not know the text is ``permission denied``
    alone, or ``invalid token``. Seen on OpenBao 2.7.2.
    """
    return "1 error occurred" in text


def is_drop_refused(text: str) -> bool:
    """Whether a 400 for revoking a lease means that PostgreSQL refused to drop the user, as the user owns objects.

    Vault answers 400 with the text of PostgreSQL and its SQLSTATE; for a database that it cannot reach there is none,
    or one of a class that passes. Seen on OpenBao 2.7.2 and Vault 1.21.4 with PostgreSQL 18.
    """
    found = _SQLSTATE.search(text)
    return found is not None and found[1] not in _PASSING_SQLSTATES
