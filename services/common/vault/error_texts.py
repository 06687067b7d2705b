"""The texts and SQLSTATEs of Vault that decide something, in one place.

Vault answers different situations with the same HTTP status, so that only the text tells them apart. Each function
takes ``LeasegateError.vault_text``, and names what it recognises and the servers on which the text was seen.
``tests/contract/test_vault_error_texts.py`` provokes each one on the server of the tests, so that a Vault that words it
otherwise fails there and not in use.

A text may hold what a team's statements say: a check that such a statement could satisfy compares the whole text.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from services.common.texts import escaped

_SQLSTATE = re.compile(r"\(SQLSTATE ([0-9A-Z]{5})\)")
_PASSING_SQLSTATES = (
    *("08", "28000", "28P01", "3D000", "53", "57", "58"),
    *("0A000", "25006", "26000", "40", "42P05", "54", "XX000"),
)
"""SQLSTATEs and their classes that may pass by themselves: connection, authorization, resources, operator intervention,
system; and a standby, read-only, prepared statements behind a pool, rollback, program limits, internal errors
(https://www.postgresql.org/docs/current/errcodes-appendix.html). A team's statements can raise each of them."""
_OWNS_SQLSTATES = ("2BP01", "LG001")
"""Those after which only other statements can drop the user: it owns objects, or the statements end nothing."""
_MEANINGS = {
    "0A000": "a feature is not supported",
    "22P02": "a value has the wrong form",
    "25006": "the server is read-only",
    "28000": "the managing user may not connect",
    "28P01": "the password of the managing user is wrong",
    "2BP01": "the user owns objects",
    "3D000": "the database does not exist",
    "42501": "the managing user lacks a right",
    "42601": "a syntax error",
    "42703": "a column does not exist",
    "42704": "a role or object does not exist",
    "42710": "a role or object exists already",
    "42883": "a function does not exist",
    "42P01": "a table does not exist",
    "3F000": "a schema does not exist",
    "53300": "too many connections",
    "55P03": "a lock was not to be had in time",
    "57014": "a statement took too long",
    "LG001": "the role's revocationStatements leave a user that can log in, or rename it: they have to drop it",
    "LG002": "the role's revocationStatements leave open sessions of the database user: they have to end them",
    "LG003": "the user owns objects",
    "LG004": "the user owns objects, or has rights, in databases to which this connection does not lead",
    "P0001": "a statement raised an exception",
}
_UNREACHED = ("failed to connect", "connection refused", "dial tcp", "i/o timeout", "no such host", "connection reset")
_STATEMENTS = re.compile(r".+/(?:static-)?creds/|.+/rotate-role/|sys/leases/(?:renew|revoke)/")


def is_no_route(text: str) -> bool:
    """Whether a 404 means that nothing is mounted at the path, or that the mount is being removed.

    ``no handler for route "x". route entry not found.`` Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return "no handler for route" in text


def is_no_mount(text: str) -> bool:
    """Whether a 400 for ``sys/mounts/PATH`` means that nothing is mounted there.

    ``No secret engine mount at x/``. Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return "No secret engine mount" in text


def is_mount_in_use(text: str, path: str) -> bool:
    """Whether a 400 for enabling a mount means that something is mounted at exactly this path.

    ``path is already in use at x/``. Another mount above or below the path is named by its own path. Seen on OpenBao
    2.7.2 and Vault 1.14.8.
    """
    return f"in use at {path}/" in text


def is_connection_unverified(text: str) -> bool:
    """Whether a 400 for writing a connection means that Vault could not connect to the database as its user.

    ``error verifying connection: ... failed to connect to ...``. Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return "verifying connection" in text or "failed to connect" in text


def is_unknown_db_role(text: str) -> bool:
    """Whether a 400 for reading a credential means that the database role does not exist, so that no user was created.

    ``unknown role: x``. Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return text.startswith("unknown role: ")


def is_unknown_token_role(text: str, token_role: str) -> bool:
    """Whether a 400 for making a token means that the token role does not exist, so that no token was made.

    ``unknown role x``, without the colon of a database role. Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return text == f"unknown role {token_role}"


def is_lease_unknown(text: str) -> bool:
    """Whether a 400 for renewing a lease means that Vault has no such lease: it, or its token, was revoked.

    ``lease not found``, and nothing else: a renewal statement of a team may raise a text that holds these words. Seen
    on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return text == "lease not found"


def is_token_unknown(text: str) -> bool:
    """Whether a 400 for revoking an accessor means that its token does not exist, or is marked as being revoked.

    ``token not found``. Seen on OpenBao 2.7.2, of a token whose revocation a seal interrupted
    (tests/contract/test_attempt_vault.py). Vault 1.14.8 has the text, and completes what is under way before it seals.
    """
    return "token not found" in text


def is_denied_by_policy(text: str) -> bool:
    """Whether a 403 means that the token exists and its policies do not permit the call.

    ``1 error occurred: * permission denied``. Of a token that Vault does not know the text is ``permission denied``
    alone, or ``invalid token``. Seen on OpenBao 2.7.2 and Vault 1.14.8.
    """
    return "1 error occurred" in text


class Drop(Enum):
    """What a failed revocation says about the drop of its database user."""

    UNREACHED = auto()
    """Vault or PostgreSQL cannot be asked now, and gave no SQLSTATE; no other statements could do more."""
    PASSING = auto()
    """PostgreSQL may carry the statements out later; others may work now, and are tried if this lasts."""
    REFUSED = auto()
    """PostgreSQL refuses the statements."""
    OWNS = auto()
    """PostgreSQL refuses them as the user owns objects, or they end nothing (LG001): other statements are needed."""


def drop_failure(text: str) -> Drop:
    """What a 400 for revoking a lease says about the drop of its database user.

    Vault answers 400 with the text of PostgreSQL and its SQLSTATE; for a database that it cannot reach there is none.
    Those of ``services.roles.statements.CHECK_ENDED`` count, too. Seen on OpenBao 2.7.2, Vault 1.14.8 and 1.21.4
    with PostgreSQL 18.
    """
    code = sqlstate(text)
    if not code:
        return Drop.UNREACHED
    if code.startswith(_PASSING_SQLSTATES):
        return Drop.PASSING
    return Drop.OWNS if code in _OWNS_SQLSTATES else Drop.REFUSED


def sqlstate(text: str) -> str:
    """The SQLSTATE of a text, empty without one: the last one, as a message may hold others that a statement wrote."""
    return found[-1] if (found := _SQLSTATE.findall(text)) else ""


def quotes_statements(path: str, text: str) -> bool:
    """Whether a text may quote what statements of a team say, with a password in it or as a guess at one.

    Vault runs them for ``creds`` and leases, and where a mount with leases is disabled. It replaces the managing user's
    password wherever it occurs, so that a text that is shown tells whether a guess was right. A connection's own texts
    (``config/NAME``) come from no statement.
    """
    return _STATEMENTS.match(path) is not None or (path.startswith("sys/mounts/") and bool(sqlstate(text)))


def in_own_words(text: str) -> str:
    """What such a text is about, without a word of it: the SQLSTATE, or what Vault's own texts say."""
    if code := sqlstate(text):
        about = f": {_MEANINGS[code]}" if code in _MEANINGS else ""
        return f"PostgreSQL refused with SQLSTATE {code}{about}{_databases(text) if code == 'LG004' else ''}"
    if is_unknown_db_role(text):
        return "unknown role"
    if is_lease_unknown(text):
        return "lease not found"
    if text.endswith(" is not an allowed role"):
        return "the role is not among allowed_roles of the connection"
    if any(words in text for words in _UNREACHED):
        return "Vault cannot reach the database"
    if text.endswith("permission denied"):
        return "permission denied"
    return "the reason is in the logs of Vault and PostgreSQL" if text else ""


def _databases(text: str) -> str:
    """The databases that a text of LG004 names, as Leasegate's own statement encodes them."""
    found = re.search(r"leasegate:((?:[0-9a-f]{2,126} ?){1,4}):", text)
    if found is None:
        return ""
    names = (bytes.fromhex(name).decode(errors="replace") for name in found[1].split() if len(name) % 2 == 0)
    return f" ({', '.join(escaped(name) for name in names)})"
