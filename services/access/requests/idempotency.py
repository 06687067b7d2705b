"""Calls that do their work once, however often a client repeats them with the same ``request_id`` (AIP-155)."""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain import names
from services.access.ledger import answers
from services.access.ledger.db.database import Tx


@dataclass(frozen=True, slots=True)
class IdempotentCall:
    """A call that changes something.

    Attributes:
        caller: Identity of the caller; each has request ids of its own.
        method: Name of the method.
        request_id: As the caller chose it.
        content: Digest of everything else in the call.
    """

    caller: str
    method: str
    request_id: str
    content: str

    def find_earlier(self, tx: Tx) -> str | None:
        """Id of the access request or lease that the same call was about before; None at the first time.

        Raises:
            RequestIdReusedError: The request_id was used for other content.
        """
        return answers.find_earlier(
            tx, caller=self.caller, method=self.method, request_id=self.request_id, content=self.content
        )

    def remember_call(self, tx: Tx, subject: str) -> None:
        """Store that the call was carried out, on the access request or lease ``subject``."""
        answers.remember(
            tx,
            caller=self.caller,
            method=self.method,
            request_id=self.request_id,
            content=self.content,
            subject=subject,
        )


def content(*parts: object) -> str:
    """Digest of the content of a call."""
    return names.content_digest(*parts)
