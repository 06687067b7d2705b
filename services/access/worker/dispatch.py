"""What a worker does with an attempt that is due, by its state.

A database user counts as dropped only when Vault has revoked its lease synchronously.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import assert_never

from services.access.domain import durations
from services.access.domain.models import Attempt, AttemptState, DropBy
from services.access.leases.issue import LeaseIssuer
from services.access.leases.recover import DropRefusedError, IssuanceRecovery
from services.access.leases.renew import LeaseRenewal
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import LeasegateError, LedgerUnavailableError, VaultAuthMissingError
from services.common.logs import bound, bounded, logger
from services.common.vault.client import Vault
from services.common.vault.error_texts import Drop

_LOG = logger(__name__)
_ERROR_CHARS = 300
LOCKOUT_AFTER_S = 30.0
"""How long the revocation of a lease may fail in ways that pass by themselves; then the database user is locked out."""


class AttemptDispatcher:
    """Takes attempts one step further."""

    def __init__(
        self,
        ledger: Ledger,
        vaults: VaultClients,
        *,
        issuer: LeaseIssuer,
        renewal: LeaseRenewal,
        recovery: IssuanceRecovery,
        jitter: durations.Jitter,
    ) -> None:
        self._ledger, self._vaults, self._jitter = ledger, vaults, jitter
        self._issuer, self._renewal, self._recovery = issuer, renewal, recovery

    def process_attempt(self, attempt_id: str) -> None:
        """Take an attempt one step further; a failure is stored and retried later.

        Raises:
            LedgerUnavailableError: Not even the failure could be stored.
        """
        with self._ledger.read() as tx:
            attempt = attempts.get(tx, attempt_id)
            request = requests.find(tx, attempt.access_request_id)
        if attempt.due_at is None or attempt.due_at > tx.now:
            return  # it went on since the queue was read
        try:
            with bound(object=request.label if request else attempt.access_request_id):
                self._dispatch(attempt)
        except LedgerUnavailableError:
            raise
        except LeasegateError as err:
            self._schedule_retry(attempt, err)

    def _dispatch(self, attempt: Attempt) -> None:
        match attempt.state:
            case AttemptState.PENDING:
                self._issuer.prepare_token(attempt)
            case AttemptState.ACTIVE:
                self._renewal.renew_active(attempt)
            case AttemptState.ISSUED | AttemptState.REPLACED:
                self._begin_revocation(attempt, end_reason="nobody acknowledged it in time")
            case AttemptState.RETIRING:
                if self._renewal.renew_retiring(attempt):
                    self._begin_revocation(attempt, end_reason="another credential replaced it")
            case AttemptState.REVOKING_TOKEN:
                self._revoke_token(attempt)
            case AttemptState.REVOKING if attempt.lease_id:
                self._revoke_lease(attempt)
            case AttemptState.ISSUING | AttemptState.REVOKING:
                self._begin_recovery(attempt, drop_by=DropBy.TEAM)
            case AttemptState.RECOVERING:
                self._recovery.recover_attempt(attempt)
            case AttemptState.TOKEN_READY | AttemptState.CLOSED:
                pass  # nothing is due: a claim or nothing goes on from here
            case _:
                assert_never(attempt.state)

    def _begin_revocation(self, attempt: Attempt, *, end_reason: str) -> None:
        with self._ledger.write() as tx:
            if attempts.get(tx, attempt.id).state is attempt.state:
                attempts.revoke(tx, attempt, to=AttemptState.REVOKING, end_reason=end_reason)
                tx.changed.add(attempt.access_request_id)

    def _revoke_token(self, attempt: Attempt) -> None:
        if attempt.accessor:
            with self._vault_of(attempt) as vault:
                tokens.revoke(vault, attempt.accessor)
        self._issuer.forget_token(attempt)
        failpoints.point("revoke_token.revoked")
        with self._ledger.write() as tx:
            attempts.close(tx, attempt.id, AttemptState.REVOKING_TOKEN)

    def _revoke_lease(self, attempt: Attempt) -> None:
        with self._vault_of(attempt) as vault:
            try:
                leases.revoke(vault, attempt.lease_id)
            except LeasegateError as err:
                if drop_by := self._drop_by(attempt, leases.drop_failure(err)):
                    return self._begin_recovery(attempt, drop_by=drop_by, error=err.message)
                raise
            failpoints.point("revoke.revoked")
        with self._ledger.write() as tx:
            attempts.commit_revoked(tx, attempt)
        failpoints.point("revoke.closed")
        return None

    def _drop_by(self, attempt: Attempt, failure: Drop) -> DropBy | None:
        """Whose statements drop the database user, as it is locked out now; None if its lease is revoked again later.

        The team's are tried once more, with the sessions ended. Vault's default is no team's decision on who owns
        what such a user made.
        """
        due_since = self._ledger.clock() if attempt.revocation_due_at is None else attempt.revocation_due_at
        patient = self._ledger.clock() < due_since + LOCKOUT_AFTER_S
        if failure is Drop.UNREACHED or (failure is Drop.PASSING and patient):
            return None
        return DropBy.TEAM if attempt.revocation_statements else DropBy.FORCE

    def _begin_recovery(self, attempt: Attempt, *, drop_by: DropBy, error: str = "") -> None:
        with self._ledger.write() as tx:
            if attempts.begin_recovery(tx, attempt, drop_by=drop_by):
                recovering = attempts.get(tx, attempt.id)
                attempts.postpone(tx, recovering, until=tx.now, error=bounded(error, _ERROR_CHARS), failed=bool(error))
        failpoints.point("recover.begun")

    @contextmanager
    def _vault_of(self, attempt: Attempt) -> Iterator[Vault]:
        with self._ledger.read() as tx:
            target = catalog.target(tx, attempt.target)
        with self._vaults.at(target) as vault:
            yield vault

    def _schedule_retry(self, attempt: Attempt, err: LeasegateError) -> None:
        tries = attempt.failures + 1
        pause = durations.backoff_s(tries, spread=self._jitter(), most_s=_longest_pause_s(attempt, err))
        log = _LOG.warning if tries.bit_count() == 1 else _LOG.debug  # each time that the tries have doubled
        log(
            "requeueing attempt",
            access_request=attempt.access_request_id,
            attempt=attempt.sequence,
            state=attempt.state,
            reason=err.reason,
            tries=tries,
        )
        with self._ledger.write() as tx:
            error = bounded(err.message, _ERROR_CHARS)
            drop_by = err.next_drop_by(attempt) if isinstance(err, DropRefusedError) else None
            if attempt.drop_by is DropBy.UNOWNED and drop_by:
                error = attempt.error or error  # why the team's statements fail, which somebody can change
            attempts.postpone(tx, attempt, until=tx.now + pause, error=error, drop_by=drop_by)
            if attempt.failures == 0 and requests.find(tx, attempt.access_request_id):
                tx.changed.add(attempt.access_request_id)


def _longest_pause_s(attempt: Attempt, err: LeasegateError) -> float:
    if attempt.state is AttemptState.PENDING or isinstance(err, VaultAuthMissingError):
        return durations.LONGEST_PAUSE_UNURGENT_S
    return durations.LONGEST_PAUSE_REFUSED_S if isinstance(err, DropRefusedError) else durations.LONGEST_PAUSE_S
