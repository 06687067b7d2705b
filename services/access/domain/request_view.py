"""What callers are shown of an access request, pure: where its access stands, and the conditions for its owner."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from services.access.domain.attempt_states import last
from services.access.domain.decide import NextStep, Pause, decide
from services.access.domain.grant import Grant, grant
from services.access.domain.models import (
    LONGEST_PAUSE_S,
    AccessRequest,
    Attempt,
    AttemptState,
    DbRole,
    Decision,
)
from services.access.domain.subjects import is_permitted, why_forbidden
from services.common.errors import LedgerMismatchError
from services.common.logs import bounded
from services.common.sharing import ALLOW_FROM

VERIFIED_BY = "leasegate.dev/verified-by"
_NAME_CHARS = 256
_REVOKING = (AttemptState.REVOKING, AttemptState.RECOVERING)


class AccessState(Enum):
    """Where access stands."""

    NONE = auto()
    ISSUING = auto()
    ACTIVE = auto()
    REVOKING = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that the owner should know."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AccessRequestView:
    """An access request with all that belongs to it, as of one moment.

    Attributes:
        request: The access request.
        attempts: Its attempts that are not closed.
        decisions: The decisions on it.
        db_role: Its db_role, deleted or not; None if the catalog never had it.
        engine_paused: Whether nothing is issued there, as its secret engine or connection is about to change.
        service_auth: Whether the service has its own auth at that Vault; True where the Vault is not known yet.
        now: The moment, seconds since 1970.
        known_ledger: Id of another ledger that a watcher knows, for which nothing is issued; empty if none.
        unknown_attempt: Sequence of an attempt that the Secret holds and the ledger does not know; 0 if none.
        verified_only: Whether nothing is issued while it is not known who is behind the access request.
    """

    request: AccessRequest
    attempts: tuple[Attempt, ...]
    decisions: tuple[Decision, ...]
    db_role: DbRole | None
    engine_paused: bool
    service_auth: bool
    now: float
    known_ledger: str = ""
    unknown_attempt: int = 0
    verified_only: bool = False

    def next_step(self, secret_attempt: int) -> NextStep:
        """What is due next, for a Secret (or a gRPC caller) that holds this attempt; 0 for none."""
        engine = Pause.SECRET_ENGINE if self.engine_paused else None
        paused = Pause.LEDGER if self.known_ledger else engine
        return decide(
            self.request,
            self.attempts,
            self.db_role,
            paused=paused,
            secret_attempt=secret_attempt,
            now=self.now,
            verified_only=self.verified_only,
        )

    @property
    def active(self) -> Attempt | None:
        """The attempt in use."""
        return None if self.request.ended else last(self.attempts, AttemptState.ACTIVE)

    @property
    def open_count(self) -> int:
        """How many database users are not known to be dropped."""
        return sum(attempt.may_have_database_user for attempt in self.attempts)

    @property
    def _is_foreign(self) -> bool:
        """Whether its db_role is of another namespace."""
        return self.request.namespace != self.request.role_namespace

    @property
    def digest(self) -> str:
        """Digest of what would be granted now; empty while the db_role is not in the catalog, or not permitted."""
        if self.db_role is None or self.db_role.deleted:
            return ""
        if not is_permitted(self.request, self.db_role, verified_only=self.verified_only):
            return ""
        return self.request.digest

    @property
    def grant(self) -> Grant | None:
        """What would be granted now, in words; None without a digest."""
        return grant(self.request, self.db_role) if self.db_role is not None and self.digest else None

    @property
    def access(self) -> AccessState:
        """Where access stands."""
        if self.request.ended:
            return AccessState.REVOKING if self.open_count else AccessState.CLOSED
        if self.active:
            return AccessState.ACTIVE
        issuing = last(self.attempts, AttemptState.ISSUING, AttemptState.ISSUED)
        return AccessState.ISSUING if issuing else AccessState.NONE

    def conditions(self) -> list[Condition]:
        """What the owner should know. A revocation is mentioned once it takes longer than one call to Vault."""
        slow = any(attempt.state is AttemptState.RECOVERING or attempt.error for attempt in self._revoking())
        found = [
            self._available(),
            self.revocation_pending() if slow else None,
            self._ledger_mismatch(),
            *self._approval(),
            *self._db_role(),
        ]
        return [condition for condition in found if condition]

    def _available(self) -> Condition | None:
        request = self.request
        if request.ended or not (request.approved or self.active):
            return None
        if request.error_reason:
            return Condition("Available", bool(self.active), "FailedToGetCredential", request.error_message)
        if self.active:
            return Condition(
                "Available", True, "SuccessfullyIssuedCredential", "The requested credentials successfully issued."
            )
        return Condition("Available", False, "IssuingCredential", "The credential is being issued.")

    def _revoking(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state in _REVOKING]

    def revocation_pending(self) -> Condition | None:
        """Why database users that have to be dropped are not; None if there are none."""
        left = self._revoking()
        if not left:
            return None
        error = next((attempt.error for attempt in left if attempt.error), "")
        why = error or "the revocation is in progress"
        if all(attempt.locked_out_at is not None for attempt in left):
            text = f"{len(left)} database user(s) locked out, not dropped yet, because {why}"
            return Condition("RevocationPending", True, "LockedOut" if error else "RevocationInProgress", text)
        reason = "RevocationFailing" if error else "RevocationInProgress"
        neither = any(a.state is AttemptState.RECOVERING and a.error and a.locked_out_at is None for a in left)
        text = f"{len(left)} database user(s) {'not locked out and ' if neither else ''}not dropped yet: {why}"
        return Condition("RevocationPending", True, reason, text)

    def _ledger_mismatch(self) -> Condition | None:
        if self.request.ended or not (self.known_ledger or self.unknown_attempt):
            return None
        reason, text = "LedgerMismatch", "The access service runs on another ledger than the watcher knows"
        if not self.known_ledger:
            reason = "AttemptUnknown"
            text = (
                f"The Secret holds attempt {self.unknown_attempt}, which the ledger does not know"
                " (if the annotation of the Secret is wrong, delete the Secret)"
            )
        return Condition("IssuancePaused", True, reason, f"{text}: {LedgerMismatchError.advice}.")

    def _approval(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        if request.outdated:
            text = (
                "The approval was given for something else than would be granted now: check the role and spec, and"
                " approve again."
            )
            yield Condition("ApprovalStale", True, "GrantChanged", text)
        if not request.requester_verified:
            yield self._unverified()
        if not self.service_auth:
            text = (
                "Leasegate has no auth of its own at this Vault, so anyone who can use the AppBinding's auth can take"
                " credentials without an approval. Configure --vault-config."
            )
            yield Condition("ApprovalNotEnforced", True, "ServiceAuthNotConfigured", text)

    def _unverified(self) -> Condition:
        request = self.request
        reason = "OnBehalfOfUnverified" if request.requester else "AdmissionPolicyMissing"
        if request.requester:
            who, behind = (bounded(name, _NAME_CHARS) for name in (request.requester, request.on_behalf_of))
            text = (
                f"{who} asks on behalf of {behind}, and nobody vouches for that: a portal that authenticates people"
                f" sets the annotation {VERIFIED_BY} to its own user name, with the right impersonate on"
                f" databaseaccessrequests in namespace {request.namespace} (ClusterRole leasegate-portal); or whoever"
                " asks creates the object again without the annotations."
            )
        else:
            text = (
                "The requester is not verified: the admission policy that records it (requester-stamp.yaml) is"
                " missing, or was applied after this object was created. Apply it and create the object again."
            )
        if self.verified_only:
            text += (
                " Until then nothing is issued, no approval counts, and the credential in use expires without being"
                " renewed (--require-verified-requester of the access service)."
            )
        return Condition("RequesterUnverified", True, reason, text)

    def _db_role(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        role = self.db_role
        if self._is_foreign and (role is None or not role.allows(request.namespace)):
            # One text for both, so that nobody finds out what another namespace has.
            text = (
                f"The PostgresRole {request.role_label} does not exist, or does not let access requests of namespace"
                f" {request.namespace} name it: the owner of namespace {request.role_namespace} annotates it with"
                f" {ALLOW_FROM}: {request.namespace}"
            )
            yield Condition("NotAllowedFrom", True, "ConsentMissing", f"{text}.")
        elif role is None:
            text = f"The PostgresRole {request.role_label} does not exist, or its phase is not Success yet."
            yield Condition("RoleNotReady", True, "RoleNotFound", text)
        elif role.not_allowed:
            text = f"Nothing is issued, and the credential in use expires without being renewed: {role.not_allowed}"
            yield Condition("NotAllowedFrom", True, "ConsentMissing", text)
        elif role.deleted:
            text = (
                f"The PostgresRole {request.role_label} is deleted: nothing is issued, and the credential in use"
                " expires without being renewed."
            )
            yield Condition("RoleDeleted", True, "PostgresRoleDeleted", text)
        if why := why_forbidden(request, role):
            text = f"Nothing is issued, and the credential in use expires without being renewed: {why}."
            yield Condition("SubjectsForbidden", True, "SubjectNotPermitted", text)
        if self.db_role is not None and (changing := role_changing(self.db_role, now=self.now)):
            yield changing
        if self.engine_paused:
            text = (
                "Nothing is issued now, because the secret engine or its connection is about to change or be deleted."
            )
            yield Condition("IssuancePaused", True, "SecretEngineUpdating", text)


def role_changing(db_role: DbRole, *, now: float) -> Condition | None:
    """Why nothing is issued for a db_role that is paused; None if it is not, or is deleted."""
    if db_role.outdated_at is None or db_role.deleted:
        return None
    what = f"{db_role.namespace}/{db_role.name}" if db_role.namespace else db_role.name
    if now < db_role.outdated_at:
        text = (
            f"The role {what} or its connection is about to change in Vault: nothing is issued and no lease is renewed"
            " until the access service knows the role as it is then."
        )
        return Condition("RoleChanging", True, "RolePaused", text)
    text = (
        f"The change of the role {what} or of its connection was begun and did not end within"
        f" {LONGEST_PAUSE_S / 60:.0f} minutes: what the access service knows of the role is outdated, and nothing is"
        " issued until the change succeeds. See the conditions of the PostgresRole and of its SecretEngine."
    )
    return Condition("RoleChanging", True, "RoleOutdated", text)
