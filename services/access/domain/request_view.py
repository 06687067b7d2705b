"""What callers are shown of a request: where its access stands, what its owner should know, and what the watcher has to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from services.access.domain import attempt_states as rules
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, Decision, Origin
from services.access.ledger.guard import WHAT_TO_DO

_LIVE = (AttemptState.ISSUED, AttemptState.ACTIVE, AttemptState.REPLACED, AttemptState.RETIRING)
_ENDING = (AttemptState.REVOKING, AttemptState.RECOVERING)
_LOOK_AGAIN_S = 30.0


class AccessState(Enum):
    """Where access stands."""

    NONE = auto()
    ISSUING = auto()
    ACTIVE = auto()
    ENDING = auto()
    ENDED = auto()


class NextStep(Enum):
    """What the watcher has to do next."""

    NONE = auto()
    CLAIM = auto()
    ACKNOWLEDGE = auto()
    REMOVE = auto()


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that the owner should know."""

    type: str
    status: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AccessRequestView:
    """A request with all that belongs to it, as of one moment.

    Attributes:
        request: The request.
        attempts: Its attempts that are not closed.
        decisions: The decisions on it.
        role: Its role, taken out of the catalogue or not; None if it never was there.
        quiesced: Whether nothing is issued there now.
        service_auth: Whether the service has a login of its own at that Vault; True where the Vault is not known yet.
        now: The moment.
        known_ledger: Id of another ledger that is known, for which nothing is issued; empty if none.
        unknown: Number of an attempt that the Secret holds and the ledger does not know; 0 if none.
    """

    request: AccessRequest
    attempts: tuple[Attempt, ...]
    decisions: tuple[Decision, ...]
    role: DbRole | None
    quiesced: bool
    service_auth: bool
    now: float
    known_ledger: str = ""
    unknown: int = 0

    @property
    def active(self) -> Attempt | None:
        """The attempt in use."""
        return None if self.request.ended else rules.last(self.attempts, AttemptState.ACTIVE)

    @property
    def open_count(self) -> int:
        """Logins that are not known to be gone."""
        return sum(attempt.may_have_database_user for attempt in self.attempts)

    @property
    def dropping(self) -> bool:
        """Whether there are logins left, and all that is left to do is a drop that has not failed yet."""
        left = [attempt for attempt in self.attempts if attempt.may_have_database_user]
        return bool(left) and all(
            attempt.state is AttemptState.REVOKING and attempt.lease_id and not attempt.failures for attempt in left
        )

    @property
    def digest(self) -> str:
        """What would be granted now; empty while the role is not known."""
        return self.request.digest if self.role_there else ""

    @property
    def role_there(self) -> bool:
        """Whether the role is in the catalogue."""
        return self.role is not None and not self.role.deleted

    @property
    def access(self) -> AccessState:
        """Where access stands."""
        if self.request.ended:
            return AccessState.ENDING if self.open_count else AccessState.ENDED
        if self.active:
            return AccessState.ACTIVE
        return (
            AccessState.ISSUING
            if rules.last(self.attempts, AttemptState.ISSUING, AttemptState.ISSUED)
            else AccessState.NONE
        )

    def next_step(self, secret_attempt: int) -> tuple[NextStep, float | None]:
        """What the watcher has to do, and when to ask again at the latest if nothing changes before.

        Args:
            secret_attempt: Number of the attempt that the Secret holds with its password unharmed; 0 for none.
        """
        request = self.request
        if request.ended:
            return NextStep.REMOVE, None
        issuable = request.approved and self.role_there and not self.quiesced
        current = rules.pending(self.attempts)
        if current and secret_attempt == current.sequence and rules.takes(request, current, now=self.now):
            return NextStep.ACKNOWLEDGE, None
        if (
            self.known_ledger or self.unknown
        ):  # what the Secret holds may be alive in Vault: it is neither replaced nor removed
            return NextStep.NONE, _LOOK_AGAIN_S
        if issuable and (
            current or rules.due(request, self.attempts, secret_attempt=secret_attempt, role=self.role, now=self.now)
        ):
            pause = (request.retry_at or 0.0) - self.now
            return (NextStep.NONE, pause) if pause > 0 else (NextStep.CLAIM, None)
        if secret_attempt and not issuable and rules.last(self.attempts, *_LIVE) is None:
            return NextStep.REMOVE, None
        return NextStep.NONE, None

    def conditions(self) -> list[Condition]:
        """What the owner should know. A login that is being dropped is worth a word only if that does not go at once."""
        slow = any(attempt.state is AttemptState.RECOVERING or attempt.error for attempt in self._ending())
        found = [
            self._available(),
            self.revoke_pending() if slow else None,
            self._ledger(),
            *self._approval(),
            *self._role(),
        ]
        return [condition for condition in found if condition]

    def _available(self) -> Condition | None:
        request = self.request
        if request.ended or not (request.approved or self.active):
            return None
        if request.error_reason:
            return Condition(
                "Available", status=bool(self.active), reason="FailedToGetCredential", message=request.error_message
            )
        if self.active:
            return Condition(
                "Available", True, "SuccessfullyIssuedCredential", "The requested credentials successfully issued."
            )
        return Condition("Available", False, "IssuingCredential", "The credential is being issued.")

    def _ending(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state in _ENDING]

    def revoke_pending(self) -> Condition | None:
        """Why logins are not gone yet that should be; None if there are none."""
        stuck = self._ending()
        if not stuck:
            return None
        error = next((attempt.error for attempt in stuck if attempt.error), "")
        reason = "RevocationFailing" if error else "RevocationInProgress"
        return Condition(
            "RevocationPending",
            True,
            reason,
            f"{len(stuck)} login(s) not known to be gone: {error or 'it is being dropped'}",
        )

    def _ledger(self) -> Condition | None:
        if self.request.ended or not (self.known_ledger or self.unknown):
            return None
        what = "The ledger is not the one that is known"
        if not self.known_ledger:
            what = f"The ledger does not know attempt {self.unknown}, which the Secret holds (delete the Secret if that is an error)"
        return Condition(
            "IssuancePaused",
            True,
            "LedgerMismatch" if self.known_ledger else "AttemptUnknown",
            f"{what}: {WHAT_TO_DO}.",
        )

    def _approval(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        if request.outdated:
            text = "It was approved, but not what would be granted now: look at the role and at spec, and approve anew."
            yield Condition("ApprovalStale", True, "GrantChanged", text)
        if request.origin is Origin.KUBERNETES and not request.requester:
            text = "Who asked is not proven: the cluster has no admission policy that says so, or the object is older than it."
            yield Condition("RequesterUnverified", True, "AdmissionPolicyMissing", text)
        if not self.service_auth:
            text = "Leasegate has no login of its own at this Vault, so whoever has the AppBinding's can take credentials unapproved."
            yield Condition("ApprovalNotEnforced", True, "ServiceAuthNotConfigured", text)

    def _role(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        if self.role is not None and self.role.deleted:
            text = f"The role {request.role_label} is gone: nothing is issued, and what is in use runs to its end without being renewed."
            yield Condition("RoleDeleted", True, "PostgresRoleDeleted", text)
        elif self.role is None:
            yield Condition(
                "RoleNotReady",
                True,
                "RoleNotFound",
                f"The role {request.role_label} is not there, or not in Success yet.",
            )
        if self.quiesced:
            text = "Nothing is issued there now, as its engine or connection is about to change or to go."
            yield Condition("IssuancePaused", True, "SecretEngineUpdating", text)
