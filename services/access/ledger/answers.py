"""Remembers which calls were answered, so that the same request_id acts once. A kept answer never has a credential."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from services.access.ledger.db.database import Tx
from services.access.ledger.db.query import Change, Query
from services.access.ledger.db.schema import answers
from services.common.errors import RequestIdReusedError


class _Earlier(NamedTuple):
    content: str
    subject: str


_a = answers.c
_EARLIER = Query(
    _Earlier,
    sa.select(_a.content, _a.subject).where(
        *(column == sa.bindparam(column.name) for column in (_a.caller, _a.method, _a.request_id))
    ),
)
_INSERT = Change(answers, answers.insert())


def find_earlier(tx: Tx, *, caller: str, method: str, request_id: str, content: str) -> str | None:
    """Return what an earlier call with this id was about; None if there was none.

    Args:
        tx: Transaction.
        caller: The caller; each has ids of its own.
        method: The method.
        request_id: As the caller chose it.
        content: Digest of everything else in the call.

    Raises:
        RequestIdReusedError: It was used for other content.
    """
    earlier = _EARLIER.first(tx, caller=caller, method=method, request_id=request_id)
    if earlier is None:
        return None
    if earlier.content != content:
        raise RequestIdReusedError("this request_id was used for other content", request_id=request_id)
    return earlier.subject


def remember(tx: Tx, *, caller: str, method: str, request_id: str, content: str, subject: str) -> None:
    """Remember that a call was carried out; ``subject`` is the id of the access request or lease that it was about."""
    call = {"caller": caller, "method": method, "request_id": request_id, "content": content}
    _INSERT.run(tx, {**call, "subject": subject, "answered_at": tx.now})
