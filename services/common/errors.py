"""The one hierarchy of errors, for services and their callers alike.

A class has a gRPC code, a reason (``leasegate.errors.v1.ErrorReason``) and the time after which a retry may help.
``services.common.rpc.status`` is the only place that turns it into a google.rpc.Status and back. Texts and metadata
never hold a password, a token or a whole lease id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request.

    Attributes:
        field: Path of the field as the caller knows it, such as ``spec.defaultTTL`` or ``postgres.database.url``.
        description: What is wrong and what would be right.
    """

    field: str
    description: str


class LeasegateError(Exception):
    """Base of all errors that may cross a process boundary.

    Attributes:
        code: gRPC status code.
        reason: Name in ``ErrorReason`` without its prefix.
        metadata: The dynamic parts of the message, for programs (https://google.aip.dev/193).
        retry_after_s: Seconds after which a retry may help; None where it cannot.
        changed_nothing: Whether the call is proven to have written nothing to Vault; False where that is not known. In
            the ErrorInfo it is the metadata ``effects: none``.
        vault_text: What Vault said, for ``services.common.vault.error_texts`` in this process alone. It may quote a
            statement with a password in it, so it is never shown, logged, stored or sent on.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    default_retry_after_s: ClassVar[float | None] = None

    def __init__(self, message: str, *, retry_after_s: float | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s
        self.changed_nothing = False
        self.vault_text = ""


class SpecInvalidError(LeasegateError):
    """A field is wrong; the caller corrects it."""

    code, reason = grpc.StatusCode.INVALID_ARGUMENT, "SPEC_INVALID"

    def __init__(self, message: str, *, violations: tuple[FieldViolation, ...] = (), **metadata: str) -> None:
        super().__init__(message, retry_after_s=None, **metadata)
        self.violations = violations

    @classmethod
    def of(cls, *violations: FieldViolation) -> SpecInvalidError:
        """Make the error of one or more wrong fields."""
        return cls("; ".join(f"{v.field}: {v.description}" for v in violations), violations=violations)


class PathNotOwnedError(LeasegateError):
    """The path is outside what this service may change."""

    code, reason = grpc.StatusCode.INVALID_ARGUMENT, "PATH_NOT_OWNED"


class ApprovalRequiredError(LeasegateError):
    """No decision approves what would be granted now."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REQUIRED"


class ApprovalDeniedError(LeasegateError):
    """The access request is denied, which is final."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_DENIED"


class AccessEndedError(LeasegateError):
    """Access has ended: released, withdrawn, expired, deleted or revoked."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "ACCESS_ENDED"


class DigestStaleError(LeasegateError):
    """A decision names another digest than the one that would be granted now."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "DIGEST_STALE"


class AlreadyDecidedError(LeasegateError):
    """The access request is decided already."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "ALREADY_DECIDED"


class NotAllowedFromError(LeasegateError):
    """It belongs to another namespace, whose owner does not share it with this one."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "NOT_ALLOWED_FROM"
    default_retry_after_s = 10.0


class DbRoleNotReadyError(LeasegateError):
    """The database role, its connection or its mount does not exist (yet), or another definition is approved."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "DB_ROLE_NOT_READY"
    default_retry_after_s = 2.0


class LeasesInUseError(LeasegateError):
    """Live leases or open attempts depend on what would change."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "LEASES_IN_USE"
    default_retry_after_s = 1.0


class ChangeDueError(LeasegateError):
    """A database role, or the connection that it uses, is about to change: access has to pause the role first."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "CHANGE_DUE"
    default_retry_after_s = 1.0


class SnapshotStaleError(LeasegateError):
    """The snapshot of a database role may be older than the newest pause of that role."""

    code, reason = grpc.StatusCode.ABORTED, "SNAPSHOT_STALE"
    default_retry_after_s = 0.2


class VaultPolicyMissingError(LeasegateError):
    """Vault answered 403 to a new session, too."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "VAULT_POLICY_MISSING"
    default_retry_after_s = 30.0


class VaultAuthMissingError(LeasegateError):
    """The service has no auth for this Vault server; access asks for one on its change feed."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "VAULT_AUTH_MISSING"
    default_retry_after_s = 1.0


class VaultAuthRefusedError(LeasegateError):
    """Vault refused to authenticate."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "VAULT_AUTH_REFUSED"
    default_retry_after_s = 10.0


class VaultNotAllowedError(LeasegateError):
    """No entry of the operator's file names this Vault; nothing is ever sent there."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "VAULT_NOT_ALLOWED"
    default_retry_after_s = 60.0

    def __init__(self, message: str, *, retry_after_s: float | None = None, **metadata: str) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **metadata)
        self.changed_nothing = True


class QuotaExceededError(LeasegateError):
    """A namespace has as much as the operator allows it; the object waits, and goes on when there is room."""

    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"
    default_retry_after_s = 15.0


class TeamLoginHasPoliciesError(LeasegateError):
    """The session of an AppBinding has rights in Vault, though it is to prove only that its namespace may use it."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "TEAM_LOGIN_HAS_POLICIES"
    default_retry_after_s = 30.0


class CallerNotAllowedError(LeasegateError):
    """The caller may not call this."""

    code, reason = grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED"


class AccessRequestNotFoundError(LeasegateError):
    """The access request does not exist, or is not the caller's."""

    code, reason = grpc.StatusCode.NOT_FOUND, "ACCESS_REQUEST_NOT_FOUND"


class DbRoleNotFoundError(LeasegateError):
    """The catalog has no such database role."""

    code, reason = grpc.StatusCode.NOT_FOUND, "DB_ROLE_NOT_FOUND"


class LeaseNotFoundError(LeasegateError):
    """The lease does not exist."""

    code, reason = grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND"


class MountConflictError(LeasegateError):
    """Something else is mounted at the path, or the mount belongs to another owner."""

    code, reason = grpc.StatusCode.ALREADY_EXISTS, "MOUNT_CONFLICT"


class RequestIdReusedError(LeasegateError):
    """An earlier call used the request_id for other content."""

    code, reason = grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"


class ConflictError(LeasegateError):
    """Another call replaced or revoked what this call works on."""

    code, reason = grpc.StatusCode.ABORTED, "CONFLICT"
    default_retry_after_s = 0.2


class VaultSealedError(LeasegateError):
    """Vault is sealed."""

    code, reason = grpc.StatusCode.UNAVAILABLE, "VAULT_SEALED"
    default_retry_after_s = 5.0


class VaultUnavailableError(LeasegateError):
    """Vault does not answer: whether it did what was asked is not known."""

    code, reason = grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE"
    default_retry_after_s = 2.0


class VaultThrottledError(LeasegateError):
    """Vault limits the rate of calls."""

    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, "VAULT_THROTTLED"
    default_retry_after_s = 2.0


class VaultRefusedError(LeasegateError):
    """Vault refused the content of the call (400)."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "VAULT_REFUSED"
    default_retry_after_s = 15.0


class VaultFailedError(LeasegateError):
    """Vault failed on its side (500), for instance because the database cannot be reached; what it did is not known."""

    code, reason = grpc.StatusCode.UNAVAILABLE, "VAULT_FAILED"
    default_retry_after_s = 5.0


class DeadlineTooShortError(LeasegateError):
    """Too little of the caller's deadline is left."""

    code, reason = grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT"
    default_retry_after_s = 1.0


class DeadlineExpiredError(LeasegateError):
    """The call took longer than its deadline; what it did is not known. Only callers raise it."""

    code, reason = grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXPIRED"
    default_retry_after_s = 1.0


class PeerUnavailableError(LeasegateError):
    """The service cannot be reached or stopped during the call; what it did is not known. Only callers raise it."""

    code, reason = grpc.StatusCode.UNAVAILABLE, "PEER_UNAVAILABLE"
    default_retry_after_s = 1.0


class OverloadedError(LeasegateError):
    """The service has too many calls under way."""

    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"
    default_retry_after_s = 1.0


class LedgerUnavailableError(LeasegateError):
    """The ledger cannot be written."""

    code, reason = grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE"
    default_retry_after_s = 5.0


class LedgerMismatchError(LeasegateError):
    """All issuance is paused because the watcher knows another ledger."""

    code, reason = grpc.StatusCode.FAILED_PRECONDITION, "LEDGER_MISMATCH"
    advice = "restore the ledger, or have an operator run `leasegate ledger accept-loss`"
    """What to do, for errors, conditions and logs alike."""


class InternalError(LeasegateError):
    """A defect; its text is in the log of the process that has it."""


_OUTAGES = (VaultSealedError, VaultUnavailableError, VaultThrottledError, VaultFailedError)


@contextmanager
def writes_nothing() -> Iterator[None]:
    """Mark the errors of a block that writes nothing to Vault with ``changed_nothing``.

    An outage of Vault is not marked: it passes, and what the caller has recorded for the call stays for the retry.
    """
    try:
        yield
    except LeasegateError as err:
        err.changed_nothing = not isinstance(err, _OUTAGES)
        raise
