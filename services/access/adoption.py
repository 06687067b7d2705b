"""Undoing an attempt whose outcome is not known: its login, if there is one, is adopted and dropped (design, section 5).

A token of the attempt's display name reads an adopter role, which gives Vault a lease on that very user name; the end of that lease drops
the login. That happens twice, with Vault's ``default_max_request_duration`` between, after which no earlier read is still under way.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.access import crash, leases, tokens
from services.access.ledger import adoptions, attempts, catalog
from services.access.ledger.database import Ledger
from services.access.records import AdopterState, Adoption, Attempt, State, TargetRow
from services.access.tokens import Token
from services.access.vaults import Vaults
from services.common.errors import LeasegateError, VaultFailed, VaultPolicyMissing, VaultRefused
from services.common.logs import logger
from services.common.vault.answer import NotThere
from services.common.vault.client import Vault

ADOPTER_TOKEN_S = 600.0
_ASK_AGAIN_S = 30.0
_LOG = logger(__name__)
_WAITS = "waits for its adopter role"


@dataclass(frozen=True, slots=True)
class _Round:
    """One adoption that is committed: what was before it, and with which token it reads."""

    attempt: Attempt
    earlier: tuple[Adoption, ...]
    adoption: Adoption
    token: Token


class DropRefused(VaultRefused):
    """PostgreSQL refused to drop the login: our own statements have to finish it."""


class Undoing:
    """Takes an `undoing` attempt one round further."""

    def __init__(self, ledger: Ledger, vaults: Vaults) -> None:
        self._ledger, self._vaults = ledger, vaults

    def step(self, attempt: Attempt) -> None:
        """Do what is due: the first adoption, the wait, or the second one, which closes the attempt. For a worker.

        Raises:
            LeasegateError: The round failed; the next step begins with a first adoption again.
        """
        with self._ledger.read() as tx:
            target, history = catalog.target(tx, attempt.target), adoptions.of_attempt(tx, attempt.id)
        first = _first_done(attempt, history)
        if first and first.done_at is not None:
            over = first.done_at + self._vaults.max_request_duration_s(target)
            if self._ledger.clock() < over:
                return self._wait(attempt, until=over)
        with self._vaults.at(target) as vault:
            if attempt.accessor and not first:
                tokens.revoke(vault, attempt.accessor)
                crash.point("undo.accessor")
            if adopter := self._adopter(attempt):
                self._round(vault, attempt, target, adopter=adopter, first=first)
        return None

    def _wait(self, attempt: Attempt, *, until: float, error: str = "") -> None:
        with self._ledger.write() as tx:
            attempts.put_off(tx, attempt, until=until, error=error, failed=False)

    def _adopter(self, attempt: Attempt) -> str | None:
        """Name of the adopter if it is there; else it is asked for, and the attempt waits for the answer.

        What is asked for is released as the attempt is closed: if another process has closed it since, nothing may be asked for.
        """
        with self._ledger.write() as tx:
            known = adoptions.find(tx, adoptions.adopter_of(attempt, finish=attempt.finish), attempt.target)
            if known and known.state is AdopterState.READY:
                return known.name
            error = f"{_WAITS}: {known.error}" if known and known.error else _WAITS
            if attempts.put_off(tx, attempt, until=tx.now + _ASK_AGAIN_S, error=error, failed=False):
                adopter = adoptions.need(tx, attempt, finish=attempt.finish)
                if adopter.error:
                    adoptions.missing(tx, adopter)
        return None

    def _round(self, vault: Vault, attempt: Attempt, target: TargetRow, *, adopter: str, first: Adoption | None) -> None:
        token = tokens.make(vault, attempt, ttl_s=ADOPTER_TOKEN_S, now=self._ledger.clock())
        crash.point("undo.token")
        after = first.number if first else None
        with self._ledger.write() as tx:
            earlier = adoptions.of_attempt(tx, attempt.id)
            adoption = adoptions.commit(tx, attempt.id, adopter=adopter, accessor=token.accessor, after=after)
        crash.point("undo.adoption")
        if adoption is None:
            tokens.discard(vault, token.accessor)
            return
        made = _Round(attempt, tuple(earlier), adoption, token)
        self._adopt(vault, made)
        if first:
            self._close(vault, made)
        else:
            self._first_done(made, target)

    def _adopt(self, vault: Vault, made: _Round) -> None:
        """Revoke every earlier token, read the adopter's lease, and drop the login with it.

        The second time, the leases that are known are ended before: the adopter has made the role NOLOGIN if it was absent, so that even
        statements that fail on a missing role find it, and none of these leases is left in Vault.
        """
        for accessor in (made.attempt.accessor, *(each.accessor for each in made.earlier)):
            if accessor:
                tokens.revoke(vault, accessor)
        if made.earlier:
            with self._ledger.write() as tx:
                adoptions.outdated(tx, made.attempt.id, newest=made.adoption.number)
        crash.point("undo.outdated")
        lease_id = self._read(vault, made)
        crash.point("undo.read")
        with self._ledger.write() as tx:
            adoptions.commit_lease(tx, made.adoption.number, lease_id=lease_id)
        crash.point("undo.lease")
        if made.adoption.second:
            _drop_known(vault, made)
        _drop(vault, lease_id)
        crash.point("undo.dropped")

    def _read(self, vault: Vault, made: _Round) -> str:
        try:
            answer = vault.read(f"{made.attempt.mount}/creds/{made.adoption.adopter}", token=made.token.client_token)
        except (NotThere, VaultRefused, VaultPolicyMissing) as err:
            self._missing(made)
            raise VaultFailed(f"the adopter role is not there: {err}", path=made.attempt.mount) from err
        if answer.data.get("username") != made.attempt.login:
            leases.revoke(vault, answer.lease_id)
            raise VaultFailed("the connection in Vault names its logins otherwise than Leasegate needs", path=made.attempt.mount)
        return answer.lease_id

    def _missing(self, made: _Round) -> None:
        with self._ledger.write() as tx:
            if known := adoptions.find(tx, made.adoption.adopter, made.attempt.target):
                adoptions.missing(tx, known)

    def _first_done(self, made: _Round, target: TargetRow) -> None:
        with self._ledger.write() as tx:
            adoptions.dropped(tx, made.adoption.number)
            attempts.put_off(tx, made.attempt, until=tx.now + self._vaults.max_request_duration_s(target), failed=False)
        crash.point("undo.first")

    def _close(self, vault: Vault, made: _Round) -> None:
        """After the second adoption no login is left."""
        tokens.discard(vault, made.token.accessor)
        with self._ledger.write() as tx:
            adoptions.dropped(tx, made.adoption.number)
            if adoptions.newest(tx, made.attempt.id) == made.adoption.number and attempts.close(tx, made.attempt.id, State.UNDOING):
                adoptions.release(tx, made.attempt)
        crash.point("undo.closed")


def _first_done(attempt: Attempt, history: list[Adoption]) -> Adoption | None:
    """The newest adoption, if it is a first one that was done with the statements that are needed now."""
    newest = history[-1] if history else None
    usable = newest and not newest.second and newest.done_at is not None
    return newest if usable and newest and newest.adopter == adoptions.adopter_of(attempt, finish=attempt.finish) else None


def _drop_known(vault: Vault, made: _Round) -> None:
    if made.attempt.lease_id:
        try:
            leases.revoke(vault, made.attempt.lease_id)
        except LeasegateError as err:
            if not (made.attempt.finish and leases.drop_refused(err)):
                raise
            _LOG.warning("a lease whose own statements fail is left to Vault, its login is dropped by ours", request=made.attempt.request)
    for each in made.earlier:
        if each.lease_id and each.done_at is None:
            _drop(vault, each.lease_id)


def _drop(vault: Vault, lease_id: str) -> None:
    try:
        leases.revoke(vault, lease_id)
    except LeasegateError as err:
        if leases.drop_refused(err):
            raise DropRefused(err.message) from err
        raise
