"""What an approval grants, in words for an approver, pure. The digest covers it in full; the words are bounded.

The words of a db_role are made once, when it comes into the catalog, and stored there: each access request adds only
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.access.domain.models import AccessRequest, DbRole, RoleWords, Subject
from services.common.texts import escaped

TEXT_CHARS = 1024
"""Longest text that is no statement."""
CREATION_CHARS, STATEMENT_CHARS = 16_384, 4_096
"""Most characters of all creation statements, and of each other list of statements."""
_CUT = "…"


@dataclass(frozen=True, slots=True)
class Grant:
    """What an approval grants.

    Attributes:
        db_role: The db_role, with its own words.
        subjects: Who may read the credential.
        ttl_s: Longest access; None for no limit.
        reason: Why access is needed.
        ticket: The ticket that the access request belongs to.
        omitted: Number of characters that are cut, those of the db_role included.
    """

    db_role: DbRole
    subjects: tuple[str, ...]
    ttl_s: float | None
    reason: str
    ticket: str
    omitted: int


def role_words(
    *,
    vault: str,
    database: str,
    plugin: str,
    creation: Sequence[str],
    revocation: Sequence[str] = (),
    rollback: Sequence[str] = (),
    renew: Sequence[str] = (),
) -> RoleWords:
    """The words of a db_role, within their bounds."""
    made = _Cutter()
    return RoleWords(
        vault=made.text(vault),
        database=made.text(database),
        plugin=made.text(plugin),
        creation=made.statements(creation, most=CREATION_CHARS),
        revocation=made.statements(revocation, most=STATEMENT_CHARS),
        rollback=made.statements(rollback, most=STATEMENT_CHARS),
        renew=made.statements(renew, most=STATEMENT_CHARS),
        omitted=made.omitted,
    )


def grant(request: AccessRequest, db_role: DbRole) -> Grant:
    """What an approval of this access request grants."""
    made = _Cutter()
    return Grant(
        db_role=db_role,
        subjects=tuple(made.text(_named(subject)) for subject in request.subjects),
        ttl_s=request.ttl_s,
        reason=made.text(request.reason),
        ticket=made.text(request.ticket),
        omitted=made.omitted + db_role.words.omitted,
    )


def _named(subject: Subject) -> str:
    name = f"{subject.namespace}/{subject.name}" if subject.namespace else subject.name
    return f"{subject.kind} {name}"


class _Cutter:
    """Escapes texts and cuts them; counts the characters that it leaves out."""

    def __init__(self) -> None:
        self.omitted = 0

    def text(self, text: str, *, most: int = TEXT_CHARS, keep: str = "") -> str:
        shown = escaped(text, keep=keep)
        if len(shown) <= most:
            return shown
        self.omitted += len(shown) - most
        return shown[:most] + _CUT

    def statements(self, statements: Sequence[str], *, most: int) -> tuple[str, ...]:
        found = list[str]()
        for statement in statements:
            found.append(self.text(statement, most=most, keep="\n\t"))
            most -= min(most, len(found[-1]))
        return tuple(found)
