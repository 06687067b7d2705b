"""Which calls were answered already: the same request_id does the same thing once. No credential is ever in an answer that is kept."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from services.access.ledger.db.database import Tx
from services.access.ledger.db.prepared import Query, Statement, given
from services.access.ledger.db.schema import answers
from services.common.errors import RequestIdReusedError


class _Earlier(NamedTuple):
    content: str
    subject: str


_a = answers.c
_EARLIER = Query(
    sa.select(_a.content, _a.subject).where(
        *(column == given(column) for column in (_a.caller, _a.method, _a.request_id))
    ),
    _Earlier,
)
_KEEP = Statement(answers.insert().values({column.name: given(column) for column in answers.columns}))


def earlier(tx: Tx, *, caller: str, method: str, request_id: str, content: str) -> str | None:
    """What an earlier call with this id was about, or None if there was none.

    Args:
        tx: Transaction.
        caller: Who calls; each has ids of its own.
        method: What is called.
        request_id: As the caller chose it.
        content: Digest of everything else in the call.

    Raises:
        RequestIdReusedError: It was used for other content.
    """
    row = _EARLIER.first(tx, caller_=caller, method_=method, request_id_=request_id)
    if row is None:
        return None
    if row.content != content:
        raise RequestIdReusedError("this request_id was used for other content", request_id=request_id)
    return str(row.subject)


def keep(tx: Tx, *, caller: str, method: str, request_id: str, content: str, subject: str) -> None:
    """Remember that a call was carried out; ``subject`` is the id of the request or lease that it was about."""
    call = {"caller_": caller, "method_": method, "request_id_": request_id, "content_": content}
    _KEEP.run(tx, **call, subject_=subject, answered_at_=tx.now)
