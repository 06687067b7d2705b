"""Ending attempts: what the durable queue does with each. A login is gone only when Vault has said so for its lease, synchronously."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.access.domain import durations
from services.access.domain.models import Attempt, AttemptState
from services.access.leases.issue import LeaseIssuer
from services.access.leases.overlap import OverlapRenewal
from services.access.leases.recover import DropRefusedError, IssuanceRecovery
from services.access.leases.renew import LeaseRenewal
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import LeasegateError, LedgerUnavailableError, VaultAuthMissingError
from services.common.logs import bounded, logger
from services.common.vault.client import Vault

_LOG = logger(__name__)
_ERROR_CHARS = 300


class AttemptDispatcher:
    """What a worker does with an attempt that is due, by its state."""

    def __init__(
        self,
        ledger: Ledger,
        vaults: VaultClients,
        *,
        issuing: LeaseIssuer,
        renewal: LeaseRenewal,
        undoing: IssuanceRecovery,
        jitter: durations.Jitter,
    ) -> None:
        self._ledger, self._vaults, self._jitter = ledger, vaults, jitter
        self._issuing, self._renewal, self._undoing = issuing, renewal, undoing
        self._overlap = OverlapRenewal(ledger, vaults, jitter=jitter)

    def do(self, attempt_id: str) -> None:
        """Take an attempt one step further; a failure is written down and tried again later.

        Raises:
            LedgerUnavailableError: Not even that could be written.
        """
        with self._ledger.read() as tx:
            attempt = attempts.get(tx, attempt_id)
        if attempt.due_at is None or attempt.due_at > tx.now:
            return  # it went on since the queue was read
        try:
            self._step(attempt)
        except LedgerUnavailableError:
            raise
        except LeasegateError as err:
            self._put_off(attempt, err)

    def _step(self, attempt: Attempt) -> None:
        if attempt.state is AttemptState.PENDING:
            self._issuing.prepare(attempt)
        elif attempt.state is AttemptState.ACTIVE:
            self._renewal.look(attempt)
        elif attempt.state in (AttemptState.ISSUED, AttemptState.REPLACED) or (
            attempt.state is AttemptState.RETIRING and self._overlap.over(attempt)
        ):
            self._begin_end(attempt)
        elif attempt.state is AttemptState.REVOKING_TOKEN:
            self._end_token(attempt)
        elif attempt.state is AttemptState.REVOKING and attempt.lease_id:
            self._end_lease(attempt)
        elif attempt.state in (AttemptState.ISSUING, AttemptState.REVOKING):
            self._begin_undo(attempt, finish=False)
        elif attempt.state is AttemptState.RECOVERING:
            self._undoing.step(attempt)

    def _begin_end(self, attempt: Attempt) -> None:
        """The overlap is over, or nobody acknowledged in time."""
        why = (
            "another credential replaced it"
            if attempt.state is AttemptState.RETIRING
            else "nobody acknowledged it in time"
        )
        with self._ledger.write() as tx:
            if attempts.get(tx, attempt.id).state is attempt.state:
                attempts.revoke(tx, attempt, to=AttemptState.REVOKING, end_reason=why)
                tx.changed.add(attempt.access_request_id)

    def _end_token(self, attempt: Attempt) -> None:
        if attempt.accessor:
            with self._at(attempt) as vault:
                tokens.revoke(vault, attempt.accessor)
        self._issuing.forget(attempt)
        failpoints.point("endt.revoked")
        with self._ledger.write() as tx:
            attempts.close(tx, attempt.id, AttemptState.REVOKING_TOKEN)

    def _end_lease(self, attempt: Attempt) -> None:
        with self._at(attempt) as vault:
            try:
                leases.revoke(vault, attempt.lease_id)
            except LeasegateError as err:
                if leases.drop_refused(err):
                    return self._begin_undo(attempt, finish=True, error=err.message)
                raise
            failpoints.point("end.revoked")
        with self._ledger.write() as tx:
            attempts.commit_revoked(tx, attempt)
        failpoints.point("end.closed")
        return None

    def _begin_undo(self, attempt: Attempt, *, finish: bool, error: str = "") -> None:
        with self._ledger.write() as tx:
            if attempts.begin_recovery(tx, attempt, force_drop=finish):
                undoing = attempts.get(tx, attempt.id)
                attempts.postpone(tx, undoing, until=tx.now, error=bounded(error, _ERROR_CHARS), failed=bool(error))
        failpoints.point("undo.begun")

    @contextmanager
    def _at(self, attempt: Attempt) -> Iterator[Vault]:
        with self._ledger.read() as tx:
            target = catalog.target(tx, attempt.target)
        with self._vaults.at(target) as vault:
            yield vault

    def _put_off(self, attempt: Attempt, err: LeasegateError) -> None:
        tries = attempt.failures + 1
        pause = durations.backoff_s(tries, spread=self._jitter(), most_s=_longest_pause_s(attempt, err))
        say = (
            _LOG.warning if tries.bit_count() == 1 else _LOG.debug
        )  # each time that they have doubled: thousands may fail for hours
        say(
            "work on an attempt failed",
            request=attempt.access_request_id,
            attempt=attempt.sequence,
            state=attempt.state,
            reason=err.reason,
            tries=tries,
        )
        with self._ledger.write() as tx:
            error = bounded(err.message, _ERROR_CHARS)
            attempts.postpone(
                tx, attempt, until=tx.now + pause, error=error, force_drop=isinstance(err, DropRefusedError)
            )
            if attempt.failures == 0 and requests.find(tx, attempt.access_request_id):
                tx.changed.add(attempt.access_request_id)


def _longest_pause_s(attempt: Attempt, err: LeasegateError) -> float:
    if attempt.state is AttemptState.PENDING or isinstance(err, VaultAuthMissingError):
        return durations.LONGEST_PAUSE_UNURGENT_S
    return durations.LONGEST_PAUSE_REFUSED_S if isinstance(err, DropRefusedError) else durations.LONGEST_PAUSE_S
