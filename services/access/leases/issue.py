"""Issuing a credential: the write-ahead protocol of docs/safety.md, and what happens where it breaks off.

At every moment the ledger says at least as much as Vault has done. A claim is one read of ``creds`` and two commits;
the first may be the commit of the decision that it follows (``services.access.leases.ensure``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.access.domain import attempt_states as rules
from services.access.domain import durations
from services.access.domain.decide import Claim, Pause, decide
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, VaultTargetRow
from services.access.domain.quotas import ISSUES_WITHIN_S, no_room
from services.access.domain.settings import Settings
from services.access.ledger import attempts, catalog, pauses, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.ledger.quotas import take_room
from services.access.requests import reassess
from services.access.requests.guards import check_claim, owned
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.access.vault.tokens import PreparedTokens, Token
from services.common import failpoints
from services.common.errors import (
    AccessRequestNotFoundError,
    ConflictError,
    DbRoleNotReadyError,
    DeadlineTooShortError,
    LeasegateError,
    PathNotOwnedError,
    QuotaExceededError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultThrottledError,
)
from services.common.logs import bound, bounded, logger
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.response import Answer, VaultNotFoundError
from services.common.vault.transport import VaultUnreachedError

_LOG = logger(__name__)
_NOTHING_MADE = (
    DeadlineTooShortError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    PathNotOwnedError,
    DbRoleNotReadyError,
    VaultPolicyMissingError,
    VaultThrottledError,
    VaultUnreachedError,
)
"""Errors of a read that Vault answers before it asks the database: not sent, or refused for its auth, path or rate.

Everything later is a 500 on a real OpenBao, an existing name included. Of the other 4xx only an unknown role is known
to come so early: a proxy answers 408 late.
"""
_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential, answered once.

    Attributes:
        attempt: The attempt, with its lease.
        password: The password; stored nowhere.
    """

    attempt: Attempt
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClaimStart:
    """A claim whose beginning is written, as ``complete_claim`` needs it.

    Attributes:
        attempt: As it was before, or just begun.
        target: Its Vault.
        life_s: How long the credential may be needed, in seconds.
        token: The token of the attempt, if ISSUING is committed with it; None if one has to be made first.
        label: The access request, for the log.
    """

    attempt: Attempt
    target: VaultTargetRow
    life_s: float
    token: Token | None
    label: str


class LeaseIssuer:
    """Issues credentials, and makes tokens for access requests that are not approved yet."""

    def __init__(
        self, ledger: Ledger, vaults: VaultClients, *, settings: Settings, guard: LedgerGuard | None = None
    ) -> None:
        self._ledger, self._vaults, self._settings = ledger, vaults, settings
        self._guard = guard or LedgerGuard(ledger)
        self._tokens = PreparedTokens()

    def prepare_token(self, attempt: Attempt) -> None:
        """Make the token of an attempt whose access request is pending; for a worker.

        Raises:
            LeasegateError: It could not be made; the attempt stays as it is.
        """
        with self._ledger.read() as tx:
            request, target = _request(tx, attempt.access_request_id), catalog.target(tx, attempt.target)
        failpoints.point("pre.begun")
        with self._vaults.at(target) as vault:
            token = self._make_token(
                vault, attempt, life_s=self._life_s(request, attempt.max_ttl_s, now=self._ledger.clock())
            )
            failpoints.point("pre.token")
            with self._ledger.write() as tx:
                committed = attempts.commit_accessor(
                    tx, attempt.id, accessor=token.accessor, token_ends_at=token.ends_at
                )
            failpoints.point("pre.accessor")
            if committed:
                self._tokens.keep_token(attempt.id, token)
            else:
                tokens.discard(vault, token.accessor)

    def forget_token(self, attempt: Attempt) -> None:
        """Drop the token of an attempt from memory."""
        self._tokens.drop_token(attempt.id)

    def claim_credential(self, uid: str, *, owner: str, secret_attempt: int) -> Issued:
        """Issue a credential for an approved access request, whatever pause an earlier failure asks for.

        Args:
            uid: The access request.
            owner: The caller, whose access request it has to be.
            secret_attempt: Sequence of the attempt that the caller holds; 0 for none.

        Raises:
            AccessRequestNotFoundError: The caller has no such access request.
            ApprovalRequiredError, ApprovalDeniedError, AccessEndedError: Access is not granted.
            DbRoleNotReadyError: The db_role is not in the catalog, or nothing may be issued there.
            LedgerMismatchError: The ledger does not match what the cluster or the caller knows.
            ConflictError: The caller needs none, or the attempt was ended meanwhile.
            QuotaExceededError: Its tenant has as many database users as it may, or it had too many credentials.
            LeasegateError: Vault or the ledger failed.
        """
        with self._ledger.write() as tx:
            request = owned(tx, uid, owner)
            db_role = catalog.role_of(tx, request)
            request = reassess.reassess(tx, request, db_role, prepares=False)
            step = decide(
                replace(request, retry_at=None),
                attempts.open_of(tx, uid),
                db_role,
                paused=self._paused(tx, request, db_role),
                secret_attempt=secret_attempt,
                now=tx.now,
                verified_only=tx.verified_only,
            )
            claim = check_claim(step, request, guard=self._guard, secret_attempt=secret_attempt, now=tx.now)
            if db_role is None:
                raise DbRoleNotReadyError(
                    f"the role {request.role_name} is not in the catalog", db_role=request.role_name
                )
            check_room(tx, request, attempts.open_of(tx, uid))
            start = self.begin_claim(tx, request, claim, db_role=db_role, secret_attempt=secret_attempt)
        return self.complete_claim(start)

    def _paused(self, tx: Tx, request: AccessRequest, db_role: DbRole | None) -> Pause | None:
        if self._guard.known_id_of(request.cluster_uid):
            return Pause.LEDGER
        return Pause.SECRET_ENGINE if db_role and pauses.covers(tx, db_role) else None

    def begin_claim(
        self, tx: Tx, request: AccessRequest, claim: Claim, *, db_role: DbRole, secret_attempt: int
    ) -> ClaimStart:
        """Write the beginning of a claim within a transaction of the caller, who commits it before ``complete_claim``.

        Args:
            tx: Transaction.
            request: The access request, as it is in this transaction.
            claim: What ``decide`` says of it.
            db_role: Its db_role.
            secret_attempt: Sequence of the attempt that the caller holds; 0 for none.
        """
        life_s = self._life_s(request, db_role.max_ttl_s, now=tx.now)
        target = catalog.target(tx, db_role.target)
        if prepared := claim.prepared:
            token = self._tokens.find_token(prepared, life_s=life_s, now=tx.now)
            committed = token and attempts.commit_issuing(tx, prepared.id, accessor=token.accessor)
            return ClaimStart(prepared, target, life_s, token if committed else None, request.label)
        if former := claim.replaced:
            to = rules.REPLACING[former.state]
            if to is AttemptState.REPLACED:
                attempts.replace(tx, former)
            else:
                attempts.revoke(tx, former, to=to, end_reason="another attempt was begun")
        sequence = max(request.last_sequence, secret_attempt) + 1
        begun = attempts.begin(tx, request=request, role=db_role, sequence=sequence, due_at=None)
        requests.update_silently(tx, request.uid, last_sequence=sequence)
        return ClaimStart(begun, target, life_s, None, request.label)

    def complete_claim(self, start: ClaimStart) -> Issued:
        """Read the credential of a claim whose beginning is committed; a failure is noted in its access request.

        Raises:
            ConflictError: The attempt was ended meanwhile.
            LeasegateError: Vault or the ledger failed.
        """
        attempt = start.attempt
        try:
            with bound(object=start.label), self._vaults.at(start.target) as vault:
                token = start.token or self._commit_new_token(vault, attempt, start.life_s)
                self._tokens.drop_token(attempt.id)
                failpoints.point("claim.issuing")
                return self._read(vault, attempt, token)
        except LeasegateError as err:
            self._note_failure(attempt.access_request_id, err)
            raise

    def _life_s(self, request: AccessRequest, role_max_s: float | None, *, now: float) -> float:
        left = request.ends_at - now if request.ends_at is not None else self._access_s(request)
        return durations.wanted_life_s(role_max_s=role_max_s, access_left_s=left)

    def _access_s(self, request: AccessRequest) -> float | None:
        return min((s for s in (request.ttl_s, self._settings.max_access_s) if s is not None), default=None)

    def _make_token(self, vault: Vault, attempt: Attempt, *, life_s: float) -> Token:
        return tokens.make(vault, attempt, ttl_s=durations.token_ttl_s(life_s), now=self._ledger.clock())

    def _commit_new_token(self, vault: Vault, attempt: Attempt, life_s: float) -> Token:
        """Make a token where none was prepared, and commit its accessor and ISSUING together.

        A former token is revoked only after that commit: until then, another claim may commit ISSUING with it.
        """
        failpoints.point("claim.begun")
        token = self._make_token(vault, attempt, life_s=life_s)
        failpoints.point("claim.token")
        with self._ledger.write() as tx:
            ends_at = token.ends_at
            committed = attempts.commit_issuing(
                tx, attempt.id, accessor=token.accessor, replacing=True, token_ends_at=ends_at
            )
        if needless := attempt.accessor if committed else token.accessor:
            tokens.discard(vault, needless)
        if not committed:
            raise ConflictError("the attempt was ended meanwhile")
        return token

    def _read(self, vault: Vault, attempt: Attempt, token: Token) -> Issued:
        asked_at = self._ledger.clock()
        try:
            answer = read_credential(vault, attempt, token)
        except Exception as err:
            self._give_up(attempt, AttemptState.REVOKING_TOKEN if _nothing_made(err) else AttemptState.REVOKING, err)
            raise
        failpoints.point("claim.read")
        return self._commit(vault, attempt, token, answer=answer, asked_at=asked_at)

    def _give_up(self, attempt: Attempt, to: AttemptState, err: Exception) -> None:
        """Have an attempt ended whose read failed: its token is revoked if nothing was made, else it is recovered."""
        text = bounded(err.message if isinstance(err, LeasegateError) else type(err).__name__, _ERROR_CHARS)
        with self._ledger.write() as tx:
            current = attempts.get(tx, attempt.id)
            if current.state is AttemptState.ISSUING:
                attempts.revoke(tx, current, to=to, end_reason="its credential could not be read", error=text)

    def _commit(self, vault: Vault, attempt: Attempt, token: Token, *, answer: Answer, asked_at: float) -> Issued:
        lease = _lease(attempt, token, answer, asked_at=asked_at)
        fits, issued = bool(answer.lease_id) and answer.data.get("username") == attempt.database_user, None
        try:
            with self._ledger.write() as tx:
                request = _request(tx, attempt.access_request_id)
                if fits and request.approved and attempts.commit_lease(tx, attempt.id, **lease):
                    self._note_issued(tx, request, at=asked_at)
                    issued = Issued(attempts.get(tx, attempt.id), password=str(answer.data["password"]))
        except BaseException:  # not even a commit that failed half-way may leave the database user behind
            self._give_back(vault, attempt, token, answer.lease_id)
            raise
        if issued is None:
            failpoints.point("claim.refused")
            self._give_back(vault, attempt, token, answer.lease_id)
            raise _not_current(fits=fits)
        failpoints.point("claim.lease")
        return issued

    def _note_issued(self, tx: Tx, request: AccessRequest, *, at: float) -> None:
        """Count access from the issue of the first credential, as its lease is counted, and clear earlier failures."""
        changes: dict[str, Any] = {}
        if request.first_issued_at is None:
            access_s = self._access_s(request)
            ends_at = None if access_s is None else at + access_s
            changes = {"first_issued_at": at, "ends_at": ends_at, "due_at": ends_at}
        if request.failures or request.error_reason:
            changes |= {"error_reason": "", "error_message": "", "failures": 0, "retry_at": None}
        if changes:
            requests.update_silently(tx, request.uid, **changes)
            tx.wake(changes.get("due_at"))

    def _give_back(self, vault: Vault, attempt: Attempt, token: Token, lease_id: str) -> None:
        """Revoke the lease that was just made, which ends the attempt unless its recovery has begun.

        If that fails, a worker revokes it.
        """
        try:
            leases.revoke(vault, lease_id)
            failpoints.point("claim.revoked")
            tokens.revoke(vault, token.accessor)
            with self._ledger.write() as tx:
                current = attempts.get(tx, attempt.id)
                if current.state is AttemptState.ISSUING:
                    attempts.revoke(
                        tx, current, to=AttemptState.REVOKING, end_reason="it was ended while its credential was made"
                    )
                attempts.close(tx, attempt.id, AttemptState.REVOKING)
        except LeasegateError as err:
            _LOG.warning("unanswered credential not revoked: a worker retries", attempt=attempt.id, reason=err.reason)

    def _note_failure(self, uid: str, err: LeasegateError) -> None:
        """Store in the access request why there is no credential, and when the next claim is due."""
        if isinstance(err, ConflictError):
            return
        with self._ledger.write() as tx:
            request = _request(tx, uid)
            pause = min(self._settings.claim_backoff_s, max(err.retry_after_s or 1.0, 2.0 ** min(request.failures, 10)))
            text = bounded(err.message, _ERROR_CHARS)
            requests.update(
                tx,
                request,
                error_reason=err.reason,
                error_message=text,
                failures=request.failures + 1,
                retry_at=tx.now + pause,
            )


def read_credential(vault: Vault, attempt: Attempt, token: Token) -> Answer:
    """Read the credential of an attempt; an attempt reads once.

    Raises:
        DbRoleNotReadyError: Vault has nothing at that path.
        LeasegateError: Any other failure.
    """
    try:
        return vault.read(f"{attempt.mount}/creds/{attempt.vault_role}", token=token.client_token)
    except VaultNotFoundError as err:
        raise DbRoleNotReadyError(f"Vault has nothing at {err.path}", db_role=attempt.vault_role) from err


def _nothing_made(err: Exception) -> bool:
    return isinstance(err, _NOTHING_MADE) or (
        isinstance(err, VaultRefusedError) and error_texts.is_unknown_db_role(err.vault_text)
    )


_USERS = (*rules.LIVE, AttemptState.ISSUING, AttemptState.REVOKING, AttemptState.RECOVERING)


def _check_users(tx: Tx, request: AccessRequest) -> None:
    most = tx.quotas.database_users
    count = take_room(
        tx,
        "database users",
        request.tenant,
        most=most,
        count=lambda: attempts.count_of_tenant(tx, request.tenant, _USERS, most=most),
    )
    if count is not None:
        raise no_room(
            count,
            most,
            what="database users that are not dropped",
            namespace=request.namespace,
            do="delete access requests that are not needed",
            option="--max-database-users-per-namespace",
        )


def check_room(tx: Tx, request: AccessRequest, opened: Sequence[Attempt]) -> None:
    """Refuse a new credential of a tenant that has as many database users as it may, and one too many of a request.

    An access request that has a credential gets the next one whatever its tenant has: else access would end.

    Args:
        tx: Transaction.
        request: The access request.
        opened: Its attempts that are not closed.

    Raises:
        QuotaExceededError: There is no room now.
    """
    often = tx.quotas.issues_per_minute
    if rules.last(opened, *rules.LIVE) is None:
        _check_users(tx, request)
    begun = attempts.begun_since(tx, request.uid, tx.now - ISSUES_WITHIN_S) if often else []
    if 0 < often <= len(begun):
        again_s = begun[-often] + ISSUES_WITHIN_S - tx.now
        raise QuotaExceededError(
            f"{len(begun)} credentials of this access request were begun within a minute, and {often} may be: find out"
            " what edits or deletes its Secret, or have the operator raise --max-issues-per-minute. It goes on by"
            f" itself in {again_s:.0f} s",
            retry_after_s=max(again_s, 1.0),
            limit=str(often),
            namespace=request.namespace,
        )


def _request(tx: Tx, uid: str) -> AccessRequest:
    request = reassess.find_current(tx, uid)
    if request is None:
        raise AccessRequestNotFoundError("no such access request", access_request=uid)
    return request


def _lease(attempt: Attempt, token: Token, answer: Answer, *, asked_at: float) -> dict[str, Any]:
    """Columns of the lease. Times count from before the read, so that the ledger's end is never later than Vault's."""
    ttl_s = float(answer.lease_duration_s)
    max_ends_at = token.ends_at if attempt.max_ttl_s is None else min(asked_at + attempt.max_ttl_s, token.ends_at)
    return {
        "lease_id": answer.lease_id,
        "ttl_s": ttl_s,
        "renewable": answer.renewable,
        "ends_at": min(asked_at + ttl_s, token.ends_at),
        "max_ends_at": max_ends_at,
        "issued_at": asked_at,
    }


def _not_current(*, fits: bool) -> LeasegateError:
    if fits:
        return ConflictError("the attempt was ended while its credential was made")
    return DbRoleNotReadyError(
        "the connection in Vault has another username_template than Leasegate needs: let the engine service write it"
    )
