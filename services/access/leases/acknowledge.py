"""Acknowledging a credential: the caller has stored it, so it becomes active, and earlier ones retire."""

from __future__ import annotations

from services.access.domain import renewal
from services.access.domain.decide import Acknowledge, decide
from services.access.domain.models import Attempt, AttemptState, Origin
from services.access.domain.settings import Settings
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.guards import check_approved, owned
from services.common import failpoints
from services.common.errors import ConflictError


def acknowledge(ledger: Ledger, uid: str, *, owner: str, number: int, settings: Settings) -> None:
    """Make the credential of an attempt the active one; a repeated call changes nothing.

    Args:
        ledger: The ledger.
        uid: The access request.
        owner: The caller, whose access request it has to be.
        number: Sequence of the attempt.
        settings: For the overlap.

    Raises:
        AccessRequestNotFoundError: The caller has no such access request.
        ApprovalRequiredError, ApprovalDeniedError, AccessEndedError: Access is not granted.
        ConflictError: The attempt was ended or replaced, or its lease has ended: claim another.
    """
    with ledger.write() as tx:
        request = owned(tx, uid, owner)
        opened = attempts.open_of(tx, uid)
        if any(each.sequence == number and each.state is AttemptState.ACTIVE for each in opened):
            return
        request = reassess.current(tx, request)
        check_approved(request, now=tx.now)
        db_role = catalog.role_of(tx, request)
        step = decide(request, opened, db_role, paused=None, secret_attempt=number, now=tx.now)
        if not isinstance(step, Acknowledge):
            raise ConflictError("that credential was replaced or has ended: claim another")
        for earlier in opened:
            if earlier.state in (AttemptState.ACTIVE, AttemptState.REPLACED):
                _retire(tx, earlier, settings=settings)
        request = requests.update(tx, request, rotation_due=False)  # first, as it decides when the next rotation is due
        due_at = renewal.next_due_at(step.attempt, request=request, overlap_s=settings.overlap_s)
        attempts.activate(tx, step.attempt, due_at=due_at)
        if request.origin is Origin.KUBERNETES:
            tx.answer_change(uid)
    failpoints.point("ack.committed")


def _retire(tx: Tx, attempt: Attempt, *, settings: Settings) -> None:
    overlap_ends_at = tx.now + renewal.fitting_overlap_s(settings.overlap_s, max_ttl_s=attempt.longest_s)
    due_at = renewal.next_retiring_at(attempt, overlap_ends_at=overlap_ends_at, now=tx.now)
    attempts.retire(tx, attempt, overlap_ends_at=overlap_ends_at, due_at=due_at)
