"""Taking a credential into use: step 7 of design, section 5. It names its attempt; earlier ones end after the overlap."""

from __future__ import annotations

from services.access.domain import attempt_states as rules
from services.access.domain import durations
from services.access.domain.models import Attempt, AttemptState, Origin
from services.access.domain.settings import Settings
from services.access.leases import overlap
from services.access.leases.issue import check_approved, owned
from services.access.leases.renew import next_look
from services.access.ledger import attempts, requests
from services.access.ledger.db.database import Ledger, Tx
from services.common import failpoints
from services.common.errors import ConflictError


def acknowledge(ledger: Ledger, uid: str, *, owner: str, number: int, settings: Settings) -> None:
    """The caller keeps the credential of the attempt ``number``; a repeated call changes nothing.

    Raises:
        RequestNotFound: No such request of the caller.
        ApprovalRequired, ApprovalDenied, AccessEnded: Access is not granted (any longer).
        Superseded: The attempt was ended, replaced or is past its end: claim anew.
    """
    with ledger.write() as tx:
        request = owned(tx, uid, owner)
        found = attempts.open_of(tx, uid)
        mine = next((attempt for attempt in found if attempt.sequence == number), None)
        if mine and mine.state is AttemptState.ACTIVE:
            return
        check_approved(request, now=tx.now)
        if mine is None or not rules.takes(request, mine, now=tx.now):
            raise ConflictError("that credential was replaced or has ended: claim another")
        for earlier in found:
            if earlier.state in (AttemptState.ACTIVE, AttemptState.REPLACED):
                _retire(tx, earlier, settings=settings)
        request = requests.update(
            tx, request, rotation_due=False
        )  # before the next look is planned, as a replacement is to be replaced, too
        attempts.activate(tx, mine, due_at=next_look(mine, request=request, settings=settings))
        if request.origin is Origin.KUBERNETES:
            tx.changed.discard(uid)  # the answer tells the only one who would be told
    failpoints.point("ack.committed")


def _retire(tx: Tx, attempt: Attempt, *, settings: Settings) -> None:
    over = tx.now + durations.overlap_s(settings.overlap_s, max_ttl_s=attempt.longest_s)
    attempts.retire(tx, attempt, overlap_ends_at=over, due_at=overlap.next_at(attempt, over=over, now=tx.now))
