"""Recovery of an attempt whose outcome is not known, or whose drop is refused: its user is locked out, then dropped.

A token with the attempt's display name reads a cleanup role. Its creation statements lock out the database user of that
very name, and are committed whatever happens later; revoking its lease drops the user. That happens twice, with Vault's
``default_max_request_duration`` between, after which no earlier read of the attempt can still be in progress.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.models import Attempt, AttemptState, CleanupRoleState, DropBy, Recovery, VaultTargetRow
from services.access.ledger import attempts, catalog, recoveries
from services.access.ledger.db.database import Ledger
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.access.vault.tokens import Token
from services.common import failpoints
from services.common.errors import LeasegateError, VaultFailedError, VaultPolicyMissingError, VaultRefusedError
from services.common.logs import logger
from services.common.vault.client import Vault
from services.common.vault.error_texts import Drop
from services.common.vault.response import VaultNotFoundError

RECOVERY_TOKEN_S = 600.0
_RETRY_S = 30.0
_LOG = logger(__name__)
_WAITING = "waiting for its cleanup role"


@dataclass(frozen=True, slots=True)
class _Round:
    """A recovery that is committed, with those before it.

    Attributes:
        token: What it reads its cleanup role with; None if it has the lease of an earlier one.
    """

    attempt: Attempt
    earlier: tuple[Recovery, ...]
    recovery: Recovery
    token: Token | None


class DropRefusedError(VaultRefusedError):
    """PostgreSQL refused to drop the database user, which is locked out.

    Attributes:
        owns: Whether the statements cannot do it at all: the user owns objects, or they end nothing.
    """

    owns = False

    def next_drop_by(self, attempt: Attempt) -> DropBy:
        """Whose statements are tried next: no owner changes unless the team's cannot do it at all."""
        if attempt.drop_by is DropBy.FORCE or not attempt.revocation_statements:
            return DropBy.FORCE
        if attempt.drop_by is DropBy.UNOWNED:
            return DropBy.TEAM
        return DropBy.FORCE if self.owns else DropBy.UNOWNED


class IssuanceRecovery:
    """Takes an attempt in RECOVERING one round further."""

    def __init__(self, ledger: Ledger, vaults: VaultClients) -> None:
        self._ledger, self._vaults = ledger, vaults

    def recover_attempt(self, attempt: Attempt) -> None:
        """Do what is due: the first recovery, the wait, or the second recovery, which closes the attempt; for a worker.

        Raises:
            LeasegateError: The round failed; the next one is a first recovery again.
        """
        with self._ledger.read() as tx:
            target, history = catalog.target(tx, attempt.target), recoveries.of_attempt(tx, attempt.id)
        first = _completed_first(attempt, history)
        if first and first.done_at is not None:
            second_at = first.done_at + self._vaults.max_request_duration_s(target)
            if self._ledger.clock() < second_at:
                return self._schedule(attempt, until=second_at)
        with self._vaults.at(target) as vault:
            if attempt.accessor and not first:
                tokens.revoke(vault, attempt.accessor)
                failpoints.point("recover.accessor")
            if cleanup_role := self._cleanup_role(attempt):
                self._round(vault, attempt, target, cleanup_role=cleanup_role, first=first)
        return None

    def _schedule(self, attempt: Attempt, *, until: float) -> None:
        with self._ledger.write() as tx:
            attempts.postpone(tx, attempt, until=until, failed=False)

    def _cleanup_role(self, attempt: Attempt) -> str | None:
        """Name of the cleanup role if it exists; else it is requested, and the attempt waits for it.

        A request is released when the attempt closes: if another process has closed it since, none may be made.
        """
        with self._ledger.write() as tx:
            known = recoveries.find_cleanup_role(
                tx, recoveries.cleanup_role_of(attempt, drop_by=attempt.drop_by), attempt.target
            )
            if known and known.state is CleanupRoleState.READY:
                return known.name
            error = attempt.error or _WAITING  # what PostgreSQL refused says more
            if known and known.error:
                error = f"{_WAITING}: {known.error}"
            if attempts.postpone(tx, attempt, until=tx.now + _RETRY_S, error=error, failed=False):
                cleanup_role = recoveries.require(tx, attempt, drop_by=attempt.drop_by)
                if cleanup_role.error:
                    recoveries.mark_missing(tx, cleanup_role)
        return None

    def _round(
        self, vault: Vault, attempt: Attempt, target: VaultTargetRow, *, cleanup_role: str, first: Recovery | None
    ) -> None:
        kept, token = self._kept_lease(attempt, cleanup_role), None
        if not kept:
            token = tokens.make(vault, attempt, ttl_s=RECOVERY_TOKEN_S, now=self._ledger.clock())
            failpoints.point("recover.token")
        accessor = token.accessor if token else ""
        after = first.sequence if first else None
        with self._ledger.write() as tx:
            earlier = recoveries.of_attempt(tx, attempt.id)
            recovery = recoveries.commit(
                tx, attempt.id, cleanup_role=cleanup_role, accessor=accessor, after=after, lease_id=kept
            )
        failpoints.point("recover.recovery")
        if recovery is None:
            if token:
                tokens.discard(vault, token.accessor)
            return
        made = _Round(attempt, tuple(earlier), recovery, token)
        self._drop_database_user(vault, made)
        if first:
            self._close(vault, made)
        else:
            self._complete_first(made, target)

    def _kept_lease(self, attempt: Attempt, cleanup_role: str) -> str:
        """The lease of the cleanup role that an earlier recovery got and could not revoke; empty if there is none.

        Each read would leave another lease that cannot be revoked until PostgreSQL carries the statements out.
        """
        with self._ledger.read() as tx:
            history = recoveries.of_attempt(tx, attempt.id)
        kept = (each.lease_id for each in history if each.cleanup_role == cleanup_role and each.done_at is None)
        return next((lease_id for lease_id in kept if lease_id), "")

    def _drop_database_user(self, vault: Vault, made: _Round) -> None:
        """Revoke every earlier token, read the cleanup role, which locks the database user out, and drop it.

        The second time, the known leases are revoked first: the cleanup role has created the user as NOLOGIN if it was
        absent, so that even statements that fail on a missing user succeed, and none of these leases is left in Vault.
        """
        for accessor in (made.attempt.accessor, *(each.accessor for each in made.earlier)):
            if accessor:
                tokens.revoke(vault, accessor)
        if made.earlier:
            with self._ledger.write() as tx:
                recoveries.discard_earlier(tx, made.attempt.id, newest=made.recovery.sequence)
        failpoints.point("recover.outdated")
        lease_id = made.recovery.lease_id
        if made.token:
            lease_id = self._read(vault, made, made.token)
            failpoints.point("recover.read")
            with self._ledger.write() as tx:
                recoveries.commit_lease(tx, made.recovery, lease_id=lease_id)
            failpoints.point("recover.lease")
        left = _revoke_known_leases(vault, made, but=lease_id) if made.recovery.second else []
        _drop(vault, lease_id)
        failpoints.point("recover.dropped")
        for each in left:
            leases.forget(vault, each)
            _LOG.warning(
                "a lease was removed by force, as its revocation statements fail: its database user is dropped",
                access_request=made.attempt.access_request_id,
            )

    def _read(self, vault: Vault, made: _Round, token: Token) -> str:
        try:
            answer = vault.read(f"{made.attempt.mount}/creds/{made.recovery.cleanup_role}", token=token.client_token)
        except (VaultNotFoundError, VaultRefusedError, VaultPolicyMissingError) as err:
            self._request_again(made)
            raise VaultFailedError(f"the cleanup role does not exist: {err}", path=made.attempt.mount) from err
        if answer.data.get("username") != made.attempt.database_user:
            leases.revoke(vault, answer.lease_id)
            raise VaultFailedError(
                "the connection in Vault has another username_template than Leasegate needs", path=made.attempt.mount
            )
        return answer.lease_id

    def _request_again(self, made: _Round) -> None:
        with self._ledger.write() as tx:
            if known := recoveries.find_cleanup_role(tx, made.recovery.cleanup_role, made.attempt.target):
                recoveries.mark_missing(tx, known)

    def _complete_first(self, made: _Round, target: VaultTargetRow) -> None:
        with self._ledger.write() as tx:
            recoveries.commit_dropped(tx, made.recovery.sequence)
            attempts.postpone(
                tx, made.attempt, until=tx.now + self._vaults.max_request_duration_s(target), failed=False
            )
        failpoints.point("recover.first")

    def _close(self, vault: Vault, made: _Round) -> None:
        """Close the attempt: after the second recovery its database user is dropped for good."""
        if made.token:
            tokens.discard(vault, made.token.accessor)
        with self._ledger.write() as tx:
            recoveries.commit_dropped(tx, made.recovery.sequence)
            if recoveries.newest(tx, made.attempt.id) == made.recovery.sequence and attempts.close(
                tx, made.attempt.id, AttemptState.RECOVERING
            ):
                recoveries.release(tx, made.attempt)
        failpoints.point("recover.closed")


def _completed_first(attempt: Attempt, history: list[Recovery]) -> Recovery | None:
    """The newest recovery, if it is a completed first one with the cleanup role that is needed now."""
    if not history or history[-1].second or history[-1].done_at is None:
        return None
    needed = recoveries.cleanup_role_of(attempt, drop_by=attempt.drop_by)
    return history[-1] if history[-1].cleanup_role == needed else None


def _revoke_known_leases(vault: Vault, made: _Round, *, but: str) -> list[str]:
    """Revoke the attempt's own lease and those of earlier cleanup roles, except ``but``, which drops the user.

    Returns:
        Those whose statements PostgreSQL refused, where Leasegate's own statements drop the user: none is left to
        Vault, which would run the statements that the role has at their TTL.
    """
    left = list[str]()
    earlier = [each.lease_id for each in made.earlier if each.done_at is None]
    for lease_id in filter(None, (made.attempt.lease_id, *earlier)):
        if lease_id == but:
            continue
        try:
            _drop(vault, lease_id)
        except DropRefusedError:
            if made.attempt.drop_by is DropBy.TEAM:
                raise
            left.append(lease_id)
    return left


def _drop(vault: Vault, lease_id: str) -> None:
    try:
        leases.revoke(vault, lease_id)
    except LeasegateError as err:
        failure = leases.drop_failure(err)
        if failure in (Drop.REFUSED, Drop.OWNS):
            refused = DropRefusedError(err.message)
            refused.owns = failure is Drop.OWNS
            raise refused from err
        raise
