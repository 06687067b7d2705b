"""Taking a credential into use: step 7 of design, section 5. It names its attempt; earlier ones end after the overlap."""

from __future__ import annotations

from services.access import attempts as rules
from services.access import crash, lifetimes, overlap
from services.access.issuing import check_approved, owned
from services.access.ledger import attempts, requests
from services.access.ledger.database import Ledger, Tx
from services.access.records import Attempt, Origin, State
from services.access.renewal import next_look
from services.access.settings import Settings
from services.common.errors import Superseded


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
        mine = next((attempt for attempt in found if attempt.number == number), None)
        if mine and mine.state is State.ACTIVE:
            return
        check_approved(request, now=tx.now)
        if mine is None or not rules.takes(request, mine, now=tx.now):
            raise Superseded("that credential was replaced or has ended: claim another")
        for earlier in found:
            if earlier.state in (State.ACTIVE, State.SUPERSEDED):
                _retire(tx, earlier, settings=settings)
        request = requests.update(tx, request, due=False)  # before the next look is planned, as a replacement is to be replaced, too
        attempts.activate(tx, mine, work_at=next_look(mine, request=request, settings=settings))
        if request.origin is Origin.KUBERNETES:
            tx.changed.discard(uid)  # the answer tells the only one who would be told
    crash.point("ack.committed")


def _retire(tx: Tx, attempt: Attempt, *, settings: Settings) -> None:
    over = tx.now + lifetimes.overlap_s(settings.overlap_s, max_ttl_s=attempt.longest_s)
    attempts.retire(tx, attempt, overlap_ends_at=over, work_at=overlap.next_at(attempt, over=over, now=tx.now))
