"""What callers are shown of a request: where its access stands, what its owner should know, and what the watcher has to do next. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from services.access import attempts as rules
from services.access.losses import WHAT_TO_DO
from services.access.records import Attempt, Decision, Origin, Request, Role, State

_LIVE = (State.ISSUED, State.ACTIVE, State.SUPERSEDED, State.OLD)
_ENDING = (State.END, State.UNDOING)
_LOOK_AGAIN_S = 30.0


class Access(Enum):
    """Where access stands."""

    NONE = auto()
    ISSUING = auto()
    ACTIVE = auto()
    ENDING = auto()
    ENDED = auto()


class Step(Enum):
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
class View:
    """A request with all that belongs to it, as of one moment.

    Attributes:
        request: The request.
        attempts: Its attempts that are not closed.
        decisions: The decisions on it.
        role: Its role, taken out of the catalogue or not; None if it never was there.
        quiesced: Whether nothing is issued there now.
        own_login: Whether the service has a login of its own at that Vault; True where the Vault is not known yet.
        now: The moment.
        known_ledger: Id of another ledger that is known, for which nothing is issued; empty if none.
        unknown: Number of an attempt that the Secret holds and the ledger does not know; 0 if none.
    """

    request: Request
    attempts: tuple[Attempt, ...]
    decisions: tuple[Decision, ...]
    role: Role | None
    quiesced: bool
    own_login: bool
    now: float
    known_ledger: str = ""
    unknown: int = 0

    @property
    def active(self) -> Attempt | None:
        """The attempt in use."""
        return None if self.request.ended else rules.last(self.attempts, State.ACTIVE)

    @property
    def open_count(self) -> int:
        """Logins that are not known to be gone."""
        return sum(attempt.may_have_login for attempt in self.attempts)

    @property
    def dropping(self) -> bool:
        """Whether there are logins left, and all that is left to do is a drop that has not failed yet."""
        left = [attempt for attempt in self.attempts if attempt.may_have_login]
        return bool(left) and all(attempt.state is State.END and attempt.lease_id and not attempt.tries for attempt in left)

    @property
    def digest(self) -> str:
        """What would be granted now; empty while the role is not known."""
        return self.request.digest if self.role_there else ""

    @property
    def role_there(self) -> bool:
        """Whether the role is in the catalogue."""
        return self.role is not None and not self.role.gone

    @property
    def access(self) -> Access:
        """Where access stands."""
        if self.request.ended:
            return Access.ENDING if self.open_count else Access.ENDED
        if self.active:
            return Access.ACTIVE
        return Access.ISSUING if rules.last(self.attempts, State.READING, State.ISSUED) else Access.NONE

    def next_step(self, held: int) -> tuple[Step, float | None]:
        """What the watcher has to do, and when to ask again at the latest if nothing changes before.

        Args:
            held: Number of the attempt that the Secret holds with its password unharmed; 0 for none.
        """
        request = self.request
        if request.ended:
            return Step.REMOVE, None
        issuable = request.approved and self.role_there and not self.quiesced
        current = rules.pending(self.attempts)
        if current and held == current.number and rules.takes(request, current, now=self.now):
            return Step.ACKNOWLEDGE, None
        if self.known_ledger or self.unknown:  # what the Secret holds may be alive in Vault: it is neither replaced nor removed
            return Step.NONE, _LOOK_AGAIN_S
        if issuable and (current or rules.due(request, self.attempts, held=held, role=self.role, now=self.now)):
            pause = (request.retry_at or 0.0) - self.now
            return (Step.NONE, pause) if pause > 0 else (Step.CLAIM, None)
        if held and not issuable and rules.last(self.attempts, *_LIVE) is None:
            return Step.REMOVE, None
        return Step.NONE, None

    def conditions(self) -> list[Condition]:
        """What the owner should know. A login that is being dropped is worth a word only if that does not go at once."""
        slow = any(attempt.state is State.UNDOING or attempt.error for attempt in self._ending())
        found = [self._available(), self.revoke_pending() if slow else None, self._ledger(), *self._approval(), *self._role()]
        return [condition for condition in found if condition]

    def _available(self) -> Condition | None:
        request = self.request
        if request.ended or not (request.approved or self.active):
            return None
        if request.error_reason:
            return Condition("Available", status=bool(self.active), reason="FailedToGetCredential", message=request.error_message)
        if self.active:
            return Condition("Available", True, "SuccessfullyIssuedCredential", "The requested credentials successfully issued.")
        return Condition("Available", False, "IssuingCredential", "The credential is being issued.")

    def _ending(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.state in _ENDING]

    def revoke_pending(self) -> Condition | None:
        """Why logins are not gone yet that should be; None if there are none."""
        stuck = self._ending()
        if not stuck:
            return None
        error = next((attempt.error for attempt in stuck if attempt.error), "")
        reason = "LoginNotDroppedYet" if error else "DroppingLogin"
        return Condition("RevokePending", True, reason, f"{len(stuck)} login(s) not known to be gone: {error or 'it is being dropped'}")

    def _ledger(self) -> Condition | None:
        if self.request.ended or not (self.known_ledger or self.unknown):
            return None
        what = "The ledger is not the one that is known"
        if not self.known_ledger:
            what = f"The ledger does not know attempt {self.unknown}, which the Secret holds (delete the Secret if that is an error)"
        return Condition("LedgerUnknown", True, "LedgerLost" if self.known_ledger else "AttemptUnknown", f"{what}: {WHAT_TO_DO}.")

    def _approval(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        if request.outdated:
            text = "It was approved, but not what would be granted now: look at the role and at spec, and approve anew."
            yield Condition("ApprovalOutdated", True, "DigestChanged", text)
        if request.origin is Origin.KUBERNETES and not request.requester:
            text = "Who asked is not proven: the cluster has no admission policy that says so, or the object is older than it."
            yield Condition("RequesterUnproven", True, "NoStamp", text)
        if not self.own_login:
            text = "Leasegate has no login of its own at this Vault, so whoever has the AppBinding's can take credentials unapproved."
            yield Condition("ApprovalCanBeBypassed", True, "NoOwnLogin", text)

    def _role(self) -> Iterable[Condition | None]:
        request = self.request
        if request.ended:
            return
        if self.role is not None and self.role.gone:
            text = f"The role {request.role_label} is gone: nothing is issued, and what is in use runs to its end without being renewed."
            yield Condition("RoleGone", True, "RoleDeleted", text)
        elif self.role is None:
            yield Condition("RoleNotReady", True, "RoleNotFound", f"The role {request.role_label} is not there, or not in Success yet.")
        if self.quiesced:
            text = "Nothing is issued there now, as its engine or connection is about to change or to go."
            yield Condition("Quiesced", True, "EngineChanging", text)
