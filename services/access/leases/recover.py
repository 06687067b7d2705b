"""Undoing an attempt whose outcome is not known: its login, if there is one, is adopted and dropped (design, section 5).

A token of the attempt's display name reads a cleanup role, which gives Vault a lease on that very user name; the end of that lease drops
the login. That happens twice, with Vault's ``default_max_request_duration`` between, after which no earlier read is still under way.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.models import Attempt, AttemptState, CleanupRoleState, Recovery, VaultTargetRow
from services.access.ledger import attempts, catalog, recoveries
from services.access.ledger.db.database import Ledger
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.access.vault.tokens import Token
from services.common import failpoints
from services.common.errors import LeasegateError, VaultFailedError, VaultPolicyMissingError, VaultRefusedError
from services.common.logs import logger
from services.common.vault.client import Vault
from services.common.vault.response import VaultNotFoundError

RECOVERY_TOKEN_S = 600.0
_ASK_AGAIN_S = 30.0
_LOG = logger(__name__)
_WAITS = "waits for its cleanup role"


@dataclass(frozen=True, slots=True)
class _Round:
    """One recovery that is committed: what was before it, and with which token it reads."""

    attempt: Attempt
    earlier: tuple[Recovery, ...]
    recovery: Recovery
    token: Token


class DropRefusedError(VaultRefusedError):
    """PostgreSQL refused to drop the login: our own statements have to finish it."""


class IssuanceRecovery:
    """Takes an `undoing` attempt one round further."""

    def __init__(self, ledger: Ledger, vaults: VaultClients) -> None:
        self._ledger, self._vaults = ledger, vaults

    def step(self, attempt: Attempt) -> None:
        """Do what is due: the first recovery, the wait, or the second one, which closes the attempt. For a worker.

        Raises:
            LeasegateError: The round failed; the next step begins with a first recovery again.
        """
        with self._ledger.read() as tx:
            target, history = catalog.target(tx, attempt.target), recoveries.of_attempt(tx, attempt.id)
        first = _first_done(attempt, history)
        if first and first.done_at is not None:
            over = first.done_at + self._vaults.max_request_duration_s(target)
            if self._ledger.clock() < over:
                return self._wait(attempt, until=over)
        with self._vaults.at(target) as vault:
            if attempt.accessor and not first:
                tokens.revoke(vault, attempt.accessor)
                failpoints.point("undo.accessor")
            if cleanup_role := self._cleanup_role(attempt):
                self._round(vault, attempt, target, cleanup_role=cleanup_role, first=first)
        return None

    def _wait(self, attempt: Attempt, *, until: float, error: str = "") -> None:
        with self._ledger.write() as tx:
            attempts.postpone(tx, attempt, until=until, error=error, failed=False)

    def _cleanup_role(self, attempt: Attempt) -> str | None:
        """Name of the cleanup role if it is there; else it is asked for, and the attempt waits for the answer.

        What is asked for is released as the attempt is closed: if another process has closed it since, nothing may be
        asked for.
        """
        with self._ledger.write() as tx:
            known = recoveries.find_cleanup_role(
                tx, recoveries.cleanup_role_of(attempt, force_drop=attempt.force_drop), attempt.target
            )
            if known and known.state is CleanupRoleState.READY:
                return known.name
            error = f"{_WAITS}: {known.error}" if known and known.error else _WAITS
            if attempts.postpone(tx, attempt, until=tx.now + _ASK_AGAIN_S, error=error, failed=False):
                cleanup_role = recoveries.require(tx, attempt, force_drop=attempt.force_drop)
                if cleanup_role.error:
                    recoveries.mark_missing(tx, cleanup_role)
        return None

    def _round(
        self, vault: Vault, attempt: Attempt, target: VaultTargetRow, *, cleanup_role: str, first: Recovery | None
    ) -> None:
        token = tokens.make(vault, attempt, ttl_s=RECOVERY_TOKEN_S, now=self._ledger.clock())
        failpoints.point("undo.token")
        after = first.sequence if first else None
        with self._ledger.write() as tx:
            earlier = recoveries.of_attempt(tx, attempt.id)
            recovery = recoveries.commit(
                tx, attempt.id, cleanup_role=cleanup_role, accessor=token.accessor, after=after
            )
        failpoints.point("undo.recovery")
        if recovery is None:
            tokens.discard(vault, token.accessor)
            return
        made = _Round(attempt, tuple(earlier), recovery, token)
        self._adopt(vault, made)
        if first:
            self._close(vault, made)
        else:
            self._first_done(made, target)

    def _adopt(self, vault: Vault, made: _Round) -> None:
        """Revoke every earlier token, read the cleanup role's lease, and drop the login with it.

        The second time, the leases that are known are ended before: the cleanup role has made the role NOLOGIN if it was
        absent, so that even statements that fail on a missing role find it, and none of these leases is left in Vault.
        """
        for accessor in (made.attempt.accessor, *(each.accessor for each in made.earlier)):
            if accessor:
                tokens.revoke(vault, accessor)
        if made.earlier:
            with self._ledger.write() as tx:
                recoveries.discard_earlier(tx, made.attempt.id, newest=made.recovery.sequence)
        failpoints.point("undo.outdated")
        lease_id = self._read(vault, made)
        failpoints.point("undo.read")
        with self._ledger.write() as tx:
            recoveries.commit_lease(tx, made.recovery.sequence, lease_id=lease_id)
        failpoints.point("undo.lease")
        if made.recovery.second:
            _drop_known(vault, made)
        _drop(vault, lease_id)
        failpoints.point("undo.dropped")

    def _read(self, vault: Vault, made: _Round) -> str:
        try:
            answer = vault.read(
                f"{made.attempt.mount}/creds/{made.recovery.cleanup_role}", token=made.token.client_token
            )
        except (VaultNotFoundError, VaultRefusedError, VaultPolicyMissingError) as err:
            self._missing(made)
            raise VaultFailedError(f"the cleanup role is not there: {err}", path=made.attempt.mount) from err
        if answer.data.get("username") != made.attempt.database_user:
            leases.revoke(vault, answer.lease_id)
            raise VaultFailedError(
                "the connection in Vault names its logins otherwise than Leasegate needs", path=made.attempt.mount
            )
        return answer.lease_id

    def _missing(self, made: _Round) -> None:
        with self._ledger.write() as tx:
            if known := recoveries.find_cleanup_role(tx, made.recovery.cleanup_role, made.attempt.target):
                recoveries.mark_missing(tx, known)

    def _first_done(self, made: _Round, target: VaultTargetRow) -> None:
        with self._ledger.write() as tx:
            recoveries.commit_dropped(tx, made.recovery.sequence)
            attempts.postpone(
                tx, made.attempt, until=tx.now + self._vaults.max_request_duration_s(target), failed=False
            )
        failpoints.point("undo.first")

    def _close(self, vault: Vault, made: _Round) -> None:
        """After the second recovery no login is left."""
        tokens.discard(vault, made.token.accessor)
        with self._ledger.write() as tx:
            recoveries.commit_dropped(tx, made.recovery.sequence)
            if recoveries.newest(tx, made.attempt.id) == made.recovery.sequence and attempts.close(
                tx, made.attempt.id, AttemptState.RECOVERING
            ):
                recoveries.release(tx, made.attempt)
        failpoints.point("undo.closed")


def _first_done(attempt: Attempt, history: list[Recovery]) -> Recovery | None:
    """The newest recovery, if it is a first one that was done with the statements that are needed now."""
    newest = history[-1] if history else None
    usable = newest and not newest.second and newest.done_at is not None
    return (
        newest
        if usable
        and newest
        and newest.cleanup_role == recoveries.cleanup_role_of(attempt, force_drop=attempt.force_drop)
        else None
    )


def _drop_known(vault: Vault, made: _Round) -> None:
    if made.attempt.lease_id:
        try:
            leases.revoke(vault, made.attempt.lease_id)
        except LeasegateError as err:
            if not (made.attempt.force_drop and leases.drop_refused(err)):
                raise
            _LOG.warning(
                "a lease whose own statements fail is left to Vault, its login is dropped by ours",
                request=made.attempt.access_request_id,
            )
    for each in made.earlier:
        if each.lease_id and each.done_at is None:
            _drop(vault, each.lease_id)


def _drop(vault: Vault, lease_id: str) -> None:
    try:
        leases.revoke(vault, lease_id)
    except LeasegateError as err:
        if leases.drop_refused(err):
            raise DropRefusedError(err.message) from err
        raise
