"""Ending attempts: what the durable queue does with each. A login is gone only when Vault has said so for its lease, synchronously."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.access import crash, leases, lifetimes, tokens
from services.access.adoption import DropRefused, Undoing
from services.access.issuing import Issuing
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.database import Ledger
from services.access.overlap import Overlap
from services.access.records import Attempt, State
from services.access.renewal import Renewal
from services.access.vaults import Vaults
from services.common.errors import LeasegateError, LedgerUnavailable, LoginMissing
from services.common.logs import bounded, logger
from services.common.vault.client import Vault

_LOG = logger(__name__)
_ERROR_CHARS = 300


class Work:
    """What a worker does with an attempt that is due, by its state."""

    def __init__(
        self, ledger: Ledger, vaults: Vaults, *, issuing: Issuing, renewal: Renewal, undoing: Undoing, jitter: lifetimes.Jitter
    ) -> None:
        self._ledger, self._vaults, self._jitter = ledger, vaults, jitter
        self._issuing, self._renewal, self._undoing = issuing, renewal, undoing
        self._overlap = Overlap(ledger, vaults, jitter=jitter)

    def do(self, attempt_id: str) -> None:
        """Take an attempt one step further; a failure is written down and tried again later.

        Raises:
            LedgerUnavailable: Not even that could be written.
        """
        with self._ledger.read() as tx:
            attempt = attempts.get(tx, attempt_id)
        if attempt.work_at is None or attempt.work_at > tx.now:
            return  # it went on since the queue was read
        try:
            self._step(attempt)
        except LedgerUnavailable:
            raise
        except LeasegateError as err:
            self._put_off(attempt, err)

    def _step(self, attempt: Attempt) -> None:
        if attempt.state is State.NEW:
            self._issuing.prepare(attempt)
        elif attempt.state is State.ACTIVE:
            self._renewal.look(attempt)
        elif attempt.state in (State.ISSUED, State.SUPERSEDED) or (attempt.state is State.OLD and self._overlap.over(attempt)):
            self._begin_end(attempt)
        elif attempt.state is State.END_TOKEN:
            self._end_token(attempt)
        elif attempt.state is State.END and attempt.lease_id:
            self._end_lease(attempt)
        elif attempt.state in (State.READING, State.END):
            self._begin_undo(attempt, finish=False)
        elif attempt.state is State.UNDOING:
            self._undoing.step(attempt)

    def _begin_end(self, attempt: Attempt) -> None:
        """The overlap is over, or nobody acknowledged in time."""
        why = "another credential replaced it" if attempt.state is State.OLD else "nobody acknowledged it in time"
        with self._ledger.write() as tx:
            if attempts.get(tx, attempt.id).state is attempt.state:
                attempts.end(tx, attempt, to=State.END, why=why)
                tx.changed.add(attempt.request)

    def _end_token(self, attempt: Attempt) -> None:
        if attempt.accessor:
            with self._at(attempt) as vault:
                tokens.revoke(vault, attempt.accessor)
        self._issuing.forget(attempt)
        crash.point("endt.revoked")
        with self._ledger.write() as tx:
            attempts.close(tx, attempt.id, State.END_TOKEN)

    def _end_lease(self, attempt: Attempt) -> None:
        with self._at(attempt) as vault:
            try:
                leases.revoke(vault, attempt.lease_id)
            except LeasegateError as err:
                if leases.drop_refused(err):
                    return self._begin_undo(attempt, finish=True, error=err.message)
                raise
            crash.point("end.revoked")
        with self._ledger.write() as tx:
            attempts.dropped(tx, attempt)
        crash.point("end.closed")
        return None

    def _begin_undo(self, attempt: Attempt, *, finish: bool, error: str = "") -> None:
        with self._ledger.write() as tx:
            if attempts.begin_undo(tx, attempt, finish=finish):
                undoing = attempts.get(tx, attempt.id)
                attempts.put_off(tx, undoing, until=tx.now, error=bounded(error, _ERROR_CHARS), failed=bool(error))
        crash.point("undo.begun")

    @contextmanager
    def _at(self, attempt: Attempt) -> Iterator[Vault]:
        with self._ledger.read() as tx:
            target = catalog.target(tx, attempt.target)
        with self._vaults.at(target) as vault:
            yield vault

    def _put_off(self, attempt: Attempt, err: LeasegateError) -> None:
        tries = attempt.tries + 1
        pause = lifetimes.backoff_s(tries, spread=self._jitter(), most_s=_longest_pause_s(attempt, err))
        say = _LOG.warning if tries.bit_count() == 1 else _LOG.debug  # each time that they have doubled: thousands may fail for hours
        say(
            "work on an attempt failed",
            request=attempt.request,
            attempt=attempt.number,
            state=attempt.state,
            reason=err.reason,
            tries=tries,
        )
        with self._ledger.write() as tx:
            error = bounded(err.message, _ERROR_CHARS)
            attempts.put_off(tx, attempt, until=tx.now + pause, error=error, finish=isinstance(err, DropRefused))
            if attempt.tries == 0 and requests.find(tx, attempt.request):
                tx.changed.add(attempt.request)


def _longest_pause_s(attempt: Attempt, err: LeasegateError) -> float:
    if attempt.state is State.NEW or isinstance(err, LoginMissing):
        return lifetimes.LONGEST_PAUSE_UNURGENT_S
    return lifetimes.LONGEST_PAUSE_REFUSED_S if isinstance(err, DropRefused) else lifetimes.LONGEST_PAUSE_S
