"""Making a credential: the write-ahead order of design, section 5, steps 1 to 6, and what happens where it breaks off.

At every moment the ledger says at least as much as Vault has done. The hot path is one read of ``creds`` and two commits; the first may be
the one of the decision that it follows (``services.access.leases.ensure``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.access.domain import attempt_states as rules
from services.access.domain import durations
from services.access.domain.models import AccessRequest, Approval, Attempt, AttemptState, DbRole, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.ledger import attempts, catalog, pauses, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.ledger.guard import LedgerGuard
from services.access.vault import leases, tokens
from services.access.vault.clients import VaultClients
from services.access.vault.tokens import PreparedTokens, Token
from services.common import failpoints
from services.common.errors import (
    AccessEndedError,
    AccessRequestNotFoundError,
    ApprovalDeniedError,
    ApprovalRequiredError,
    ConflictError,
    DbRoleNotReadyError,
    DeadlineTooShortError,
    LeasegateError,
    PathNotOwnedError,
    VaultAuthMissingError,
    VaultAuthRefusedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    VaultThrottledError,
)
from services.common.logs import bounded, logger
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
"""What a read fails with before Vault asks the database for anything: not sent, or refused for its login, path or rate.
What fails later is 500 on a real bao, a name that exists, too. Of the other 4xx only an unknown role is known to come
so early: a proxy answers 408 late."""
_UNKNOWN_ROLE = ": unknown role: "
_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential, answered once.

    Attributes:
        attempt: With its lease.
        password: Stored nowhere.
    """

    attempt: Attempt
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Start:
    """What the ledger says at the beginning of a claim.

    Attributes:
        attempt: As it was read, or begun.
        target: Its Vault.
        life_s: How long the credential may be needed.
        token: That of the attempt, if `reading` is committed with it; None if one has to be made first.
    """

    attempt: Attempt
    target: VaultTargetRow
    life_s: float
    token: Token | None


class LeaseIssuer:
    """Claims, and tokens made beforehand."""

    def __init__(
        self, ledger: Ledger, vaults: VaultClients, *, settings: Settings, losses: LedgerGuard | None = None
    ) -> None:
        self._ledger, self._vaults, self._settings = ledger, vaults, settings
        self._losses = losses or LedgerGuard(ledger)
        self._tokens = PreparedTokens()

    def prepare(self, attempt: Attempt) -> None:
        """Make the token of an attempt whose request is pending; for a worker.

        Raises:
            LeasegateError: It could not be made; the attempt stays as it is.
        """
        with self._ledger.read() as tx:
            request, target = _request(tx, attempt.access_request_id), catalog.target(tx, attempt.target)
        failpoints.point("pre.begun")
        with self._vaults.at(target) as vault:
            token = self._make(
                vault, attempt, life_s=self._life_s(request, attempt.max_ttl_s, now=self._ledger.clock())
            )
            failpoints.point("pre.token")
            with self._ledger.write() as tx:
                taken = attempts.commit_accessor(tx, attempt.id, accessor=token.accessor, token_ends_at=token.ends_at)
            failpoints.point("pre.accessor")
            if taken:
                self._tokens.keep(attempt.id, token)
            else:
                tokens.discard(vault, token.accessor)

    def forget(self, attempt: Attempt) -> None:
        """An attempt needs its token no longer."""
        self._tokens.drop(attempt.id)

    def claim(self, uid: str, *, owner: str, secret_attempt: int) -> Issued:
        """Issue a credential for an approved request.

        Args:
            uid: The request.
            owner: The caller, whose request it has to be.
            secret_attempt: Number of the attempt that the caller holds; 0 for none.

        Raises:
            AccessRequestNotFoundError: No such request of the caller.
            ApprovalRequiredError: Not approved.
            ApprovalDeniedError: Denied.
            AccessEndedError: Over.
            DbRoleNotReadyError: The role is not in the catalogue, or nothing may be issued there.
            LedgerMismatchError: The ledger is not the one that is known, or does not know the attempt that is held.
            Superseded: The caller needs none, or the attempt was ended meanwhile.
            LeasegateError: Vault or the ledger failed.
        """
        with self._ledger.write() as tx:
            request, role = self._claimable(tx, uid, owner=owner)
            start = self.begin(tx, request, role=role, opened=attempts.open_of(tx, uid), secret_attempt=secret_attempt)
        return self.finish(start)

    def finish(self, start: Start) -> Issued:
        """Read the credential of a claim whose beginning is committed; a failure is noted in its request.

        Raises:
            Superseded: The attempt was ended meanwhile.
            LeasegateError: Vault or the ledger failed.
        """
        attempt = start.attempt
        try:
            with self._vaults.at(start.target) as vault:
                token = start.token or self._with_own_token(vault, attempt, start.life_s)
                self._tokens.drop(attempt.id)
                failpoints.point("claim.reading")
                return self._read(vault, attempt, token)
        except LeasegateError as err:
            self._failed(attempt.access_request_id, err)
            raise

    def begin(
        self, tx: Tx, request: AccessRequest, *, role: DbRole, opened: Sequence[Attempt], secret_attempt: int
    ) -> Start:
        """Begin a claim within a transaction of the caller's, which has to be committed before ``finish``.

        Args:
            tx: Transaction; where this raises, nothing was written in it.
            request: The request, which is approved, as it is in this transaction.
            role: Its role, for which something may be issued.
            opened: Its open attempts.
            secret_attempt: Number of the attempt that the caller holds; 0 for none.

        Raises:
            LedgerMismatchError: The ledger is not the one that is known, or does not know the attempt that is held.
            Superseded: The caller needs none, or the attempt was ended meanwhile.
        """
        self._losses.check_issuance(request, secret_attempt=secret_attempt)
        plan = rules.plan(request, opened, secret_attempt=secret_attempt, role=role, now=tx.now)
        if isinstance(plan, rules.Nothing):
            raise ConflictError(plan.why, retry_after_s=1.0)
        life_s = self._life_s(request, role.max_ttl_s, now=tx.now)
        target = catalog.target(tx, role.target)
        if isinstance(plan, rules.GoOn):
            token = self._tokens.find(plan.attempt, life_s=life_s, now=tx.now)
            if token and not attempts.commit_issuing(tx, plan.attempt.id, accessor=token.accessor):
                raise ConflictError("the attempt was ended meanwhile")
            return Start(plan.attempt, target, life_s, token)
        for former, state in plan.replaced:
            attempts.replace(tx, former) if state is AttemptState.REPLACED else attempts.revoke(
                tx, former, to=state, end_reason="another was begun"
            )
        number = max(request.last_sequence, secret_attempt) + 1
        begun = attempts.begin(tx, request=request, role=role, sequence=number, due_at=None)
        requests.update_silently(tx, request.uid, last_sequence=number)
        return Start(begun, target, life_s, None)

    def _claimable(self, tx: Tx, uid: str, *, owner: str) -> tuple[AccessRequest, DbRole]:
        request = owned(tx, uid, owner)
        check_approved(request, now=tx.now)
        role = catalog.role_of(tx, request)
        if role is None or role.deleted:
            raise DbRoleNotReadyError(
                f"the role {request.role_name} is not in the catalogue", db_role=request.role_name
            )
        if pauses.covers(tx, role):
            raise DbRoleNotReadyError(
                f"nothing is issued on {role.mount} now, as its engine or connection is about to change",
                db_role=request.role_name,
            )
        return request, role

    def _life_s(self, request: AccessRequest, role_max_s: float | None, *, now: float) -> float:
        left = request.ends_at - now if request.ends_at is not None else self._access_s(request)
        return durations.wanted_life_s(role_max_s=role_max_s, access_left_s=left)

    def _access_s(self, request: AccessRequest) -> float | None:
        return min((s for s in (request.ttl_s, self._settings.max_access_s) if s is not None), default=None)

    def _make(self, vault: Vault, attempt: Attempt, *, life_s: float) -> Token:
        return tokens.make(vault, attempt, ttl_s=durations.token_ttl_s(life_s), now=self._ledger.clock())

    def _with_own_token(self, vault: Vault, attempt: Attempt, life_s: float) -> Token:
        """Make a token where none was made beforehand, and commit its accessor and `reading` together.

        A former token goes only after that commit: until then, somebody else may commit `reading` with it.
        """
        failpoints.point("claim.begun")
        token = self._make(vault, attempt, life_s=life_s)
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
        """Have an attempt ended whose read failed: by its token alone if nothing was made, else undone."""
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
        except BaseException:  # not even a commit failed half-way may leave the login behind
            self._give_back(vault, attempt, token, answer.lease_id)
            raise
        if issued is None:
            failpoints.point("claim.refused")
            self._give_back(vault, attempt, token, answer.lease_id)
            raise _not_current(fits=fits)
        failpoints.point("claim.lease")
        return issued

    def _note_issued(self, tx: Tx, request: AccessRequest, *, at: float) -> None:
        """Count access from the issue of the first credential, as its lease is counted, and forget earlier failures."""
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
        """Revoke what was just made, by lease id. That ends the attempt unless an undo has begun; where it fails, the
        worker goes on.
        """
        try:
            leases.revoke(vault, lease_id)
            failpoints.point("claim.revoked")
            tokens.revoke(vault, token.accessor)
            with self._ledger.write() as tx:
                current = attempts.get(tx, attempt.id)
                if current.state is AttemptState.ISSUING:
                    attempts.revoke(
                        tx, current, to=AttemptState.REVOKING, end_reason="it was not current any more when it was read"
                    )
                attempts.close(tx, attempt.id, AttemptState.REVOKING)
        except LeasegateError as err:
            _LOG.warning("a credential that was not answered is undone later", attempt=attempt.id, reason=err.reason)

    def _failed(self, uid: str, err: LeasegateError) -> None:
        """Say in the request why there is no credential, and when to try again."""
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


def owned(tx: Tx, uid: str, owner: str) -> AccessRequest:
    """A request of this caller.

    Raises:
        AccessRequestNotFoundError: There is none; somebody else's is not told apart.
    """
    request = requests.find(tx, uid)
    if request is None or request.owner != owner:
        raise AccessRequestNotFoundError("no such request", request=bounded(uid, 128))
    return request


def check_approved(request: AccessRequest, *, now: float) -> None:
    """Refuse unless access is granted.

    Raises:
        ApprovalRequiredError: Not approved.
        ApprovalDeniedError: Denied.
        AccessEndedError: Over.
    """
    if request.approval is Approval.DENIED:
        raise ApprovalDeniedError("the request was denied", request=request.uid)
    if request.ended or (request.ends_at is not None and now >= request.ends_at):
        raise AccessEndedError("access has ended", request=request.uid)
    if not request.approved:
        raise ApprovalRequiredError("nobody has approved what would be granted now", request=request.uid)


def read_credential(vault: Vault, attempt: Attempt, token: Token) -> Answer:
    """The one read of an attempt.

    Raises:
        DbRoleNotReadyError: Nothing is mounted there.
        LeasegateError: Any other failure.
    """
    try:
        return vault.read(f"{attempt.mount}/creds/{attempt.vault_role}", token=token.client_token)
    except VaultNotFoundError as err:
        raise DbRoleNotReadyError(f"Vault has nothing at {err.path}", db_role=attempt.vault_role) from err


def _nothing_made(err: Exception) -> bool:
    return isinstance(err, _NOTHING_MADE) or (isinstance(err, VaultRefusedError) and _UNKNOWN_ROLE in err.message)


def _request(tx: Tx, uid: str) -> AccessRequest:
    request = requests.find(tx, uid)
    if request is None:
        raise AccessRequestNotFoundError("no such request", request=uid)
    return request


def _lease(attempt: Attempt, token: Token, answer: Answer, *, asked_at: float) -> dict[str, Any]:
    """Columns of the lease. Counted from before the read, so that our end is never later than Vault's."""
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
        "the connection in Vault names its logins otherwise than Leasegate needs: let the engine service write it"
    )
