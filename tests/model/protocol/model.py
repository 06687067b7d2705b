"""The transitions of the protocol: claims, workers, watchers, Vault by itself, faults and users."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, NamedTuple

from services.access.domain.attempt_states import ENDING, PENDING
from services.access.domain.models import AttemptState
from tests.model.protocol.scenarios import Rule, Scenario
from tests.model.protocol.state import (
    CLEANING,
    LEASE_REVOKING,
    MOST_CLEANUP_LEASES,
    NO_LEASE,
    NONE,
    READING,
    RECOVERING,
    UNOWNED_LEASE,
    WORKING,
    Attempt,
    DatabaseUser,
    Event,
    Job,
    Orphan,
    Outdated,
    Phase,
    Replica,
    Request,
    State,
    Step,
    Violation,
    Watcher,
    put,
)

WATCHERS = ("watcher", "former leader")
NOT_READ = (AttemptState.PENDING, AttemptState.TOKEN_READY)


class Transition(NamedTuple):
    """One step from a state to another.

    Attributes:
        by_itself: Whether a process takes the step by itself, rather than a user or a fault.
        label: What happens, for a trace.
        state: The state after it.
        breaks: The promise that the step itself breaks.
    """

    by_itself: bool
    label: str
    state: State
    breaks: Violation | None


class Claim(Enum):
    """What a claim does."""

    NOTHING = auto()
    GO_ON = auto()
    BEGIN = auto()


class Decision(NamedTuple):
    """A claim's decision.

    Attributes:
        claim: What it does.
        attempt: Index of the attempt that it goes on with, or that the new one replaces.
        becomes: The state of the replaced attempt.
    """

    claim: Claim
    attempt: int = NONE
    becomes: AttemptState | None = None


class Model:
    """The protocol with a set of rules, within the bounds of a scenario."""

    def __init__(self, rules: Iterable[Rule], scenario: Scenario) -> None:
        self.rules, self.most, self.strict = frozenset(rules), scenario.attempts, scenario.strict
        self.start = State(
            replicas=(Replica(),) * scenario.replicas, left=tuple(scenario.events.get(event, 0) for event in Event)
        )
        if scenario.active:
            first = Attempt(
                state=AttemptState.ACTIVE,
                accessor=0,
                tokens=(True,),
                lease_known=True,
                user=DatabaseUser.LOGIN,
                lease=0,
            )
            self.start = self.start._replace(request=Request.APPROVED, secret=1, attempts=(first,))
        self._found: list[Transition] = []

    def transitions(self, state: State) -> list[Transition]:
        """Every step that is possible in a state."""
        self._found = []
        for index, watcher in enumerate(state.watchers):
            self._watcher(state, index, watcher)
        for index, replica in enumerate(state.replicas):
            if replica.job:
                self._step(state, index, replica.job[0])
            else:
                self._take(state, index)
        for index, attempt in enumerate(state.attempts):
            self._vault(state, index, attempt)
        self._users(state)
        self._faults(state)
        return self._found

    def canonical(self, state: State) -> State:
        """One state for all that are the same: replicas have no names, and a closed, clean attempt has no details."""
        attempts = state.attempts
        for index, attempt in enumerate(attempts):
            clean = attempt.user is DatabaseUser.ABSENT and attempt.lease == NO_LEASE and not attempt.orphans
            if attempt.state is AttemptState.CLOSED and attempt.tokens and clean and not attempt.cleanup_leases:
                worked_on = any(
                    (each.job and each.job[0].attempt == index) or each.prepared[:1] == (index,)
                    for each in state.replicas
                )
                if not worked_on:
                    closed = Attempt(attempt.uid, AttemptState.CLOSED, expired=attempt.expired)
                    attempts = put(attempts, index, closed)
        return state._replace(replicas=tuple(sorted(state.replicas)), attempts=attempts)

    def broken(self, state: State, *, at_rest: bool) -> tuple[Violation, str] | None:
        """The promise that a state breaks, and how."""
        approved = state.request is Request.APPROVED
        secret_kept = state.left[Event.DELETE_SECRET] == self.start.left[Event.DELETE_SECRET]
        for index, attempt in enumerate(state.attempts):
            number = index + 1
            usable = approved and attempt.uid == state.uid and not attempt.expired
            dead = usable and attempt.user is not DatabaseUser.LOGIN
            if dead and attempt.state in (AttemptState.ACTIVE, AttemptState.RETIRING):
                return Violation.I2, f"{number} is acknowledged and its overlap is not over, but its user is dropped"
            if dead and state.secret == number and secret_kept:
                return Violation.I2_PLUS, f"the Secret holds {number}, whose user is dropped"
            in_use = attempt.state is AttemptState.ACTIVE and approved
            if at_rest and attempt.user is not DatabaseUser.ABSENT and not in_use:
                return (
                    Violation.I1,
                    f"the {attempt.user.name} user of {number} ({attempt.state}) is left, lease: {attempt.lease}",
                )
            if at_rest and (attempt.lease != NO_LEASE or attempt.cleanup_leases) and not self._drop(attempt):
                return Violation.I7, f"a lease of {number} is left that can never be revoked"
        active = self.newest(state, AttemptState.ACTIVE)
        if at_rest and approved:
            works = active != NONE and state.attempts[active].user is DatabaseUser.LOGIN
            if not works or state.secret != active + 1:
                return Violation.I5, f"active is {active + 1 or 'none'}, the Secret holds {state.secret or 'none'}"
        if sum(attempt.state is AttemptState.ACTIVE for attempt in state.attempts) > 1:
            return Violation.I4, "two attempts are active"
        return None

    # Decisions: the code's are those of services.access.domain.attempt_states.

    def newest(self, state: State, *states: AttemptState) -> int:
        """Index of the newest attempt of the present request in one of these states, or NONE."""
        for index in range(len(state.attempts) - 1, -1, -1):
            attempt = state.attempts[index]
            if attempt.uid == state.uid and attempt.state in states:
                return index
        return NONE

    def pending(self, state: State) -> int:
        """The newest attempt that is neither acknowledged nor ended."""
        return self.newest(state, *PENDING)

    def due(self, state: State, secret_attempt: int) -> bool:
        """Whether a new attempt is due when none is pending."""
        active = self.newest(state, AttemptState.ACTIVE)
        return (
            active == NONE
            or state.rotation_due
            or (Rule.SECRET_IS_DUE in self.rules and secret_attempt != active + 1)
            or (Rule.EXPIRED_IS_DUE in self.rules and state.attempts[active].expired)
            or (Rule.REPLACED_IS_DUE in self.rules and self.newest(state, AttemptState.REPLACED) != NONE)
        )

    def acknowledgeable(self, state: State, index: int) -> bool:
        """Whether an acknowledge of the attempt would be accepted."""
        if state.request is not Request.APPROVED or index == NONE:
            return False
        attempt = state.attempts[index]
        return attempt.state is AttemptState.ISSUED and not (Rule.EXPIRED_IS_DUE in self.rules and attempt.expired)

    def decide_claim(self, state: State, secret_attempt: int) -> Decision:
        """What a claim does whose caller's Secret holds an attempt, or 0 for none."""
        current = self.pending(state)
        if state.request is not Request.APPROVED or (current == NONE and not self.due(state, secret_attempt)):
            return Decision(Claim.NOTHING)
        if secret_attempt == current + 1 and self.acknowledgeable(state, current):
            return Decision(Claim.NOTHING)
        if current == NONE:
            return Decision(Claim.BEGIN)
        former = state.attempts[current].state
        if former in NOT_READ:
            return Decision(Claim.GO_ON, current)
        at_once = Rule.RETIRE_AFTER_ACK in self.rules and former is AttemptState.ISSUING
        return Decision(Claim.BEGIN, current, AttemptState.REVOKING if at_once else AttemptState.REPLACED)

    # Watchers

    def _watcher(self, state: State, index: int, watcher: Watcher) -> None:
        who, attempt = WATCHERS[index], watcher.attempt
        if watcher.phase is Phase.IDLE:
            self._look(state, index)
        elif watcher.phase is Phase.ANSWERED:
            rising = state.secret <= attempt + 1 or Rule.RISING_NUMBERS not in self.rules
            if state.attempts[attempt].uid == state.uid and rising:
                written = self._at(state, index, Watcher(Phase.WRITTEN, attempt))._replace(secret=attempt + 1)
                self._add(f"{who} writes {attempt + 1} into the Secret", written)
            else:
                self._add(f"{who} drops {attempt + 1}, the Secret is newer", self._at(state, index))
        elif watcher.phase is Phase.WRITTEN and self.acknowledgeable(state, attempt):
            self._add(f"{who} acknowledges {attempt + 1}", self._acknowledged(self._at(state, index), attempt))
        elif watcher.phase is Phase.WRITTEN:
            self._add(f"{who} drops {attempt + 1}, its acknowledge is refused", self._at(state, index))

    def _look(self, state: State, index: int) -> None:
        """An idle watcher removes the Secret, acknowledges what it holds, or claims."""
        if state.request is Request.ENDED and state.secret:
            self._add("watcher removes the Secret", state._replace(secret=0))
        elif state.secret == self.pending(state) + 1 and self.acknowledgeable(state, state.secret - 1):
            found = self._at(state, index, Watcher(Phase.WRITTEN, state.secret - 1))
            self._add(f"watcher finds {state.secret} in the Secret", found)
        elif state.request is Request.APPROVED and (self.pending(state) != NONE or self.due(state, state.secret)):
            self._claim(state, index)

    def _acknowledged(self, state: State, acknowledged: int) -> State:
        replaced = AttemptState.RETIRING if Rule.RETIRE_AFTER_ACK in self.rules else AttemptState.REVOKING
        becomes = {AttemptState.ACTIVE: AttemptState.RETIRING, AttemptState.REPLACED: replaced}
        attempts = tuple(
            each._replace(state=becomes.get(each.state, each.state)) if each.uid == state.uid else each
            for each in state.attempts
        )
        active = attempts[acknowledged]._replace(state=AttemptState.ACTIVE)
        return state._replace(rotation_due=False, attempts=put(attempts, acknowledged, active))

    def _claim(self, state: State, watcher: int, event: Event | None = None) -> None:
        for index, replica in enumerate(state.replicas):
            if not replica.job:
                job = Job(Step.CLAIM, caller=watcher, secret_attempt=state.secret, uid=state.uid)
                waiting = self._at(state, watcher, Watcher(Phase.WAITING))
                self._add(f"{WATCHERS[watcher]} claims", self._on(waiting, index, job), event)

    # Claims and workers

    def _decide(self, state: State, replica: int, job: Job) -> None:
        """The first commit of a claim."""
        claim, current, becomes = self.decide_claim(state, job.secret_attempt)
        if job.uid != state.uid or claim is Claim.NOTHING:
            self._add("claim refused", self._finished(state, replica))
        elif claim is Claim.GO_ON:
            attempt = state.attempts[current]
            prepared = (current, attempt.accessor)
            if attempt.state is AttemptState.TOKEN_READY and state.replicas[replica].prepared == prepared:
                goes_on = job._replace(step=Step.COMMIT_ISSUING, attempt=current, token=attempt.accessor)
                self._add(f"{current + 1}: claim goes on with its token", self._on(state, replica, goes_on, ()))
            else:
                goes_on = job._replace(step=Step.MAKE_TOKEN, attempt=current)
                self._add(f"{current + 1}: claim goes on with it", self._on(state, replica, goes_on))
        elif len(state.attempts) < self.most:
            number = len(state.attempts) + 1
            if becomes:
                state = self._change(state, current, state=becomes)
            state = state._replace(attempts=(*state.attempts, Attempt(uid=state.uid)))
            begun = job._replace(step=Step.MAKE_TOKEN, attempt=number - 1)
            self._add(f"{number}: claim begins it", self._on(state, replica, begun))

    def _take(self, state: State, replica: int) -> None:
        """An idle replica takes an attempt that is to be revoked; SUSPECT: although a living process works on it."""
        for index, attempt in enumerate(state.attempts):
            reading = attempt.state is AttemptState.ISSUING
            if not reading and attempt.state not in (
                AttemptState.REVOKING_TOKEN,
                AttemptState.REVOKING,
                AttemptState.RECOVERING,
            ):
                continue
            busy = any(
                each.job
                and each.job[0].attempt == index
                and (each.job[0].step in WORKING or (reading and _issues(each.job[0])))
                for each in state.replicas
            )
            if busy and not state.left[Event.SUSPECT]:
                continue
            step = Step.REVOKE_ACCESSOR
            if attempt.state is AttemptState.REVOKING_TOKEN:
                step = Step.REVOKE_TOKEN
            elif attempt.state is AttemptState.REVOKING and attempt.lease_known:
                step = Step.REVOKE_LEASE
            after = state
            if step is Step.REVOKE_ACCESSOR and Rule.RECOVERING_FIRST in self.rules:
                after = self._change(state, index, state=AttemptState.RECOVERING)
            label = f"{index + 1}: a worker takes it ({attempt.state})" + busy * ", suspects its owner dead"
            self._add(label, self._on(after, replica, Job(step, index)), Event.SUSPECT if busy else None)

    def _step(self, state: State, replica: int, job: Job) -> None:
        """The next step of a job."""
        if job.step is Step.CLAIM:
            self._decide(state, replica, job)
        elif job.step in WORKING:
            self._work(state, replica, job, state.attempts[job.attempt])
        else:
            self._issue(state, replica, job, state.attempts[job.attempt])

    def _issue(self, state: State, replica: int, job: Job, attempt: Attempt) -> None:
        """A step of a claim that has its attempt."""
        index, token, step = job.attempt, job.token, job.step
        not_read = attempt.state in NOT_READ
        conditional = Rule.CONDITIONAL_COMMITS in self.rules

        def to(label: str, then: Step, **changes: Any) -> None:
            self._add(
                f"{index + 1}: {label}",
                self._on(self._change(state, index, **changes), replica, job._replace(step=then)),
            )

        def end(label: str, **changes: Any) -> None:
            self._add(f"{index + 1}: {label}", self._finished(self._change(state, index, **changes), replica))

        if step in (Step.MAKE_TOKEN, Step.PREPARE_TOKEN):
            then = Step.COMMIT_TOKEN if step is Step.MAKE_TOKEN else Step.COMMIT_PREPARED
            made = self._change(state, index, tokens=(*attempt.tokens, True))
            self._add(
                f"{index + 1}: token made", self._on(made, replica, job._replace(step=then, token=len(attempt.tokens)))
            )
        elif step in (Step.COMMIT_TOKEN, Step.COMMIT_PREPARED) and conditional and not not_read:
            end("accessor refused")
        elif step is Step.COMMIT_TOKEN:
            to(
                "accessor committed",
                Step.COMMIT_ISSUING,
                accessor=token,
                state=_if(not_read, AttemptState.TOKEN_READY, attempt),
            )
        elif step is Step.COMMIT_PREPARED:
            changed = self._change(state, index, accessor=token, state=_if(not_read, AttemptState.TOKEN_READY, attempt))
            self._add(f"{index + 1}: accessor committed", self._on(changed, replica, None, (index, token)))
        elif step is Step.COMMIT_ISSUING:
            other = Rule.SAME_TOKEN in self.rules and attempt.accessor != token
            if (conditional and not not_read) or other:
                end("issuing refused")
            else:
                to("issuing committed", Step.BEGIN_READ, state=_if(not_read, AttemptState.ISSUING, attempt))
        elif step is Step.BEGIN_READ:
            if attempt.tokens[token]:
                to("read begins", Step.READ_BEGUN)
            else:
                to("read answers 403", Step.OUTCOME_UNKNOWN)
        elif step is Step.READ_BEGUN:
            if attempt.user:
                to("read fails, the name exists", Step.OUTCOME_UNKNOWN)
            else:
                to("read creates the user", Step.READ_CREATED, user=DatabaseUser.LOGIN)
        elif step is Step.READ_CREATED:
            to("read answers 200", Step.COMMIT_LEASE, lease=token if attempt.tokens[token] else UNOWNED_LEASE)
        elif step is Step.COMMIT_LEASE:
            self._commit_lease(state, replica, job, attempt)
        elif step is Step.ANSWER:
            answered = self._finished(state, replica, index)
            self._add(f"{index + 1}: password answered" + (job.caller == NONE) * " to nobody", answered)
        elif step is Step.REVOKE_REFUSED:
            if dropped := self._revoked(attempt):
                to("revoked by lease id", Step.ABORT, **dropped._asdict())
            else:
                end("revoke by lease id fails")
        elif step is Step.ABORT:
            closes = (
                attempt.state in (AttemptState.REVOKING, AttemptState.REPLACED)
                or Rule.NEWEST_RECOVERY not in self.rules
            )
            end("claim answers ABORTED", state=_if(closes, AttemptState.CLOSED, attempt))
        else:
            end("outcome unknown", state=_if(attempt.state is AttemptState.ISSUING, AttemptState.REVOKING, attempt))

    def _commit_lease(self, state: State, replica: int, job: Job, attempt: Attempt) -> None:
        index = job.attempt
        current = attempt.uid == state.uid and state.request is Request.APPROVED
        if Rule.COMMIT_CURRENT in self.rules and not (current and attempt.state is AttemptState.ISSUING):
            refused = self._on(state, replica, job._replace(step=Step.REVOKE_REFUSED))
            self._add(f"{index + 1}: lease refused, not current", refused)
            return
        if Rule.RETIRE_AFTER_ACK not in self.rules:
            replaced = AttemptState.REPLACED
            attempts = (
                each._replace(state=AttemptState.REVOKING) if each.state is replaced else each
                for each in state.attempts
            )
            state = state._replace(attempts=tuple(attempts))
        state = self._change(state, index, state=AttemptState.ISSUED, lease_known=True)
        committed = self._on(state, replica, job._replace(step=Step.ANSWER))
        self._add(f"{index + 1}: lease committed", committed, breaks=None if current else Violation.I3)

    def _work(self, state: State, replica: int, job: Job, attempt: Attempt) -> None:
        """A step of a worker that revokes or recovers an attempt."""
        index, step = job.attempt, job.step
        newest_closes = Rule.NEWEST_RECOVERY in self.rules

        def to(label: str, then: Step, base: State = state, *, second: bool = job.second, **changes: Any) -> None:
            goes_on = job._replace(step=then, second=second)
            self._add(f"{index + 1}: {label}", self._on(self._change(base, index, **changes), replica, goes_on))

        def end(label: str, **changes: Any) -> None:
            self._add(f"{index + 1}: {label}", self._finished(self._change(state, index, **changes), replica))

        if step is Step.REVOKE_LEASE:
            if dropped := self._revoked(attempt):
                to("revoked by lease id", Step.CLOSE, **dropped._asdict())
            else:
                end("revoke by lease id fails")
        elif step in (Step.REVOKE_TOKEN, Step.REVOKE_ACCESSOR):
            recovers = step is Step.REVOKE_ACCESSOR and Rule.RECOVER in self.rules
            changes: dict[str, Any] = {}
            if attempt.accessor != NONE:
                lease = LEASE_REVOKING if attempt.lease == attempt.accessor else attempt.lease
                changes = {"tokens": put(attempt.tokens, attempt.accessor, False), "lease": lease}
            to("accessor revoked", Step.COMMIT_RECOVERY if recovers else Step.CLOSE, **changes)
        elif step is Step.COMMIT_RECOVERY:
            if newest_closes and attempt.state is AttemptState.CLOSED:
                end("recovery refused, closed")
            elif not job.second or self._earlier_reads_over(state, replica, index):
                outdated = self._outdate(state, replica, index, Outdated.COMMITTED) if newest_closes else state
                to("recovery committed" + job.second * " once more", Step.BEGIN_CLEANUP, outdated)
        elif step is Step.BEGIN_CLEANUP:
            if job.outdated is Outdated.REVOKED:
                end("cleanup read answers 403")
            else:
                revokes = Rule.CLEANUP_TOKEN in self.rules
                outdated = self._outdate(state, replica, index, Outdated.REVOKED) if revokes else state
                to("cleanup read begins", Step.CLEANUP_BEGUN, outdated)
        elif step is Step.CLEANUP_BEGUN:
            user = attempt.user or DatabaseUser.NOLOGIN
            to("cleanup read finds or creates the user", Step.CLEANUP_CREATED, user=user)
        elif step is Step.CLEANUP_CREATED:
            to("cleanup read answers 200", Step.REVOKE_CLEANUP)
        elif step is Step.REVOKE_CLEANUP:
            if not self._drop(attempt):
                leases = min(MOST_CLEANUP_LEASES, attempt.cleanup_leases + 1)
                to("revoke of the cleanup lease fails", Step.COMMIT_RECOVERY, cleanup_leases=leases)
            elif not job.second and Rule.SECOND_RECOVERY in self.rules:
                to("cleanup lease revoked", Step.COMMIT_RECOVERY, second=True, user=DatabaseUser.ABSENT)
            else:
                to("cleanup lease revoked", Step.CLOSE, second=False, user=DatabaseUser.ABSENT)
        elif job.outdated:
            end("close refused")
        else:
            end("closed", state=AttemptState.CLOSED)

    def _earlier_reads_over(self, state: State, replica: int, index: int) -> bool:
        """Whether the wait of the second recovery is over: no read that began before it is in flight."""
        reads, cleanups = READING, CLEANING if Rule.NEWEST_RECOVERY in self.rules else ()
        for number, each in enumerate(state.replicas):
            if each.job and each.job[0].attempt == index:
                step = each.job[0].step
                if step in reads or (step in cleanups and number != replica):
                    return False
        return not any(not orphan.cleanup or cleanups for orphan in state.attempts[index].orphans)

    def _outdate(self, state: State, replica: int, index: int, how: Outdated) -> State:
        replicas = list(state.replicas)
        for number, each in enumerate(replicas):
            if number != replica and each.job and each.job[0].attempt == index and each.job[0].step in RECOVERING:
                job = each.job[0]
                if how is Outdated.COMMITTED or job.outdated:
                    replicas[number] = each._replace(job=(job._replace(outdated=max(how, job.outdated)),))
        return state._replace(replicas=tuple(replicas))

    def _drop(self, attempt: Attempt) -> bool:
        """Whether Vault's revocation statements succeed on the user of an attempt."""
        return bool(attempt.user) or not self.strict or Rule.ABSENT_USER in self.rules

    def _revoked(self, attempt: Attempt) -> Attempt | None:
        """The attempt after a revocation by lease id; None if that fails."""
        if attempt.lease == NO_LEASE:
            return attempt
        return attempt._replace(user=DatabaseUser.ABSENT, lease=NO_LEASE) if self._drop(attempt) else None

    # Vault by itself

    def _vault(self, state: State, index: int, attempt: Attempt) -> None:
        """What goes on without a client: overlaps, revocations in the background and orphaned reads."""

        def add(label: str, **changes: Any) -> None:
            self._add(f"{index + 1}: {label}", self._change(state, index, **changes))

        if attempt.state is AttemptState.RETIRING:
            add("overlap is over", state=AttemptState.REVOKING)
        if attempt.lease == LEASE_REVOKING and self._drop(attempt):
            add("Vault drops the user", user=DatabaseUser.ABSENT, lease=NO_LEASE)
        if attempt.cleanup_leases and self._drop(attempt):
            add("a cleanup lease expires", user=DatabaseUser.ABSENT, cleanup_leases=attempt.cleanup_leases - 1)
        for number, orphan in enumerate(attempt.orphans):
            rest = attempt.orphans[:number] + attempt.orphans[number + 1 :]
            kind = "cleanup read" if orphan.cleanup else "read"
            add(f"orphaned {kind} breaks off", orphans=rest)
            if not orphan.created:
                if orphan.cleanup or not attempt.user:
                    created = DatabaseUser.NOLOGIN if orphan.cleanup else DatabaseUser.LOGIN
                    going = tuple(sorted((*rest, orphan._replace(created=True))))
                    add(f"orphaned {kind} creates the user", orphans=going, user=attempt.user or created)
            elif orphan.cleanup:
                leases = min(MOST_CLEANUP_LEASES, attempt.cleanup_leases + 1)
                add(f"orphaned {kind} gets its lease", orphans=rest, cleanup_leases=leases)
            else:
                lease = orphan.token if attempt.tokens[orphan.token] else UNOWNED_LEASE
                add(f"orphaned {kind} gets its lease", orphans=rest, lease=lease)

    # Users and faults

    def _users(self, state: State) -> None:
        if state.request is Request.PENDING:
            approved = self.canonical(state._replace(request=Request.APPROVED))
            self._found.append(Transition(False, "approved", approved, None))
        if state.request is not Request.ENDED and state.left[Event.END]:
            ended = tuple(each._replace(state=ENDING.get(each.state, each.state)) for each in state.attempts)
            changed = state._replace(request=Request.ENDED, rotation_due=False, attempts=ended)
            self._add("denied or deleted", changed, Event.END)
        if state.request is Request.ENDED and state.left[Event.RECREATE]:
            again = state._replace(request=Request.PENDING, uid=state.uid + 1, secret=0)
            self._add("created again with another uid", again, Event.RECREATE)
        steady = self.newest(state, AttemptState.ACTIVE) != NONE and self.pending(state) == NONE
        if state.request is Request.APPROVED and state.left[Event.ROTATE] and not state.rotation_due and steady:
            self._add("rotation is due", state._replace(rotation_due=True), Event.ROTATE)
        if state.secret and state.left[Event.DELETE_SECRET]:
            self._add("a user deletes the Secret", state._replace(secret=0), Event.DELETE_SECRET)

    def _faults(self, state: State) -> None:
        paused = state.watchers[1].phase is Phase.PAUSED
        if state.request is Request.APPROVED and state.left[Event.FORMER_LEADER] and paused:
            self._claim(state, 1, Event.FORMER_LEADER)
        for index, watcher in enumerate(state.watchers):
            busy = watcher.phase in (Phase.WAITING, Phase.ANSWERED, Phase.WRITTEN)
            if busy and (state.left[Event.KILL_WATCHER] or state.left[Event.CUT]):
                without = self._at(_without_caller(state, index), index)
                if state.left[Event.KILL_WATCHER]:
                    self._add(f"{WATCHERS[index]} killed", without, Event.KILL_WATCHER)
                if state.left[Event.CUT] and watcher.phase is Phase.WAITING:
                    self._add(f"{WATCHERS[index]} stops waiting", without, Event.CUT)
        for index, replica in enumerate(state.replicas):
            self._replica_faults(state, index, replica, replica.job[0] if replica.job else None)
        if state.left[Event.VAULT_CRASH]:
            crashed = _crashed(state)
            if crashed != state:
                self._add("Vault crashes", crashed, Event.VAULT_CRASH)
        if state.left[Event.TOKEN_TTL]:
            for index, attempt in enumerate(state.attempts):
                if any(attempt.tokens) and not attempt.expired:
                    dropped = {"user": DatabaseUser.ABSENT, "lease": NO_LEASE} if attempt.lease >= 0 else {}
                    dead = (False,) * len(attempt.tokens)
                    expired = self._change(state, index, tokens=dead, expired=True, **dropped)
                    self._add(f"{index + 1}: token reaches its TTL", expired, Event.TOKEN_TTL)

    def _replica_faults(self, state: State, index: int, replica: Replica, job: Job | None) -> None:
        prepares = state.left[Event.PREPARE] and state.request is Request.PENDING and self.pending(state) == NONE
        if prepares and not job and len(state.attempts) < self.most:
            begun = state._replace(attempts=(*state.attempts, Attempt(uid=state.uid)))
            prepare = Job(Step.PREPARE_TOKEN, len(state.attempts))
            self._add(f"{len(begun.attempts)}: begun while pending", self._on(begun, index, prepare), Event.PREPARE)
        if state.left[Event.KILL] and (job or replica.prepared):
            killed = _orphaned(state, job)
            what = f"{job.step} of {job.attempt + 1}" if job else "idle"
            killed = self._on(self._finished(killed, index) if job else killed, index, None, ())
            self._add(f"replica killed ({what})", killed, Event.KILL)
        if state.left[Event.CUT] and job and job.step in (*READING, Step.COMMIT_LEASE):
            cut = self._on(_orphaned(state, job), index, job._replace(step=Step.OUTCOME_UNKNOWN))
            self._add(f"{job.attempt + 1}: connection of the read cut", cut, Event.CUT)

    # Making states

    def _add(self, label: str, state: State, event: Event | None = None, breaks: Violation | None = None) -> None:
        if event is not None:
            state = state._replace(left=put(state.left, event, state.left[event] - 1))
        self._found.append(Transition(event is None, label, self.canonical(state), breaks))

    def _change(self, state: State, index: int, /, **changes: Any) -> State:
        if not changes:
            return state
        return state._replace(attempts=put(state.attempts, index, state.attempts[index]._replace(**changes)))

    def _on(self, state: State, replica: int, job: Job | None, prepared: tuple[int, ...] | None = None) -> State:
        kept = state.replicas[replica].prepared if prepared is None else prepared
        return state._replace(replicas=put(state.replicas, replica, Replica(kept, (job,) if job else ())))

    def _at(self, state: State, watcher: int, now: Watcher | None = None) -> State:
        """The state with a watcher elsewhere; without ``now`` the leader is idle and the former leader gone."""
        done = Watcher(Phase.GONE if watcher else Phase.IDLE)
        return state._replace(watchers=put(state.watchers, watcher, now or done))

    def _finished(self, state: State, replica: int, answered: int = NONE) -> State:
        """The state with a job done; its caller, if it still waits, gets the password of ``answered`` or an error."""
        caller = state.replicas[replica].job[0].caller
        state = self._on(state, replica, None)
        if caller == NONE or state.watchers[caller].phase is not Phase.WAITING:
            return state
        return self._at(state, caller, Watcher(Phase.ANSWERED, answered) if answered != NONE else None)


def _if(condition: bool, then: AttemptState, attempt: Attempt) -> AttemptState:
    return then if condition else attempt.state


def _issues(job: Job) -> bool:
    """Whether a job is a claim that is at work on its attempt; PREPARE does not count, as it never reads."""
    return job.step not in (*WORKING, Step.CLAIM, Step.PREPARE_TOKEN, Step.COMMIT_PREPARED)


def _orphaned(state: State, job: Job | None) -> State:
    """The client of a job's read is gone; what Vault has begun goes on without it."""
    if not job or job.step not in (*READING, *CLEANING, Step.REVOKE_CLEANUP):
        return state
    attempt = state.attempts[job.attempt]
    if job.step is Step.REVOKE_CLEANUP:
        changed = attempt._replace(cleanup_leases=min(MOST_CLEANUP_LEASES, attempt.cleanup_leases + 1))
    else:
        cleanup = job.step in CLEANING
        created = job.step in (Step.READ_CREATED, Step.CLEANUP_CREATED)
        orphan = Orphan(cleanup, created, NONE if cleanup else job.token)
        changed = attempt._replace(orphans=tuple(sorted((*attempt.orphans, orphan))))
    return state._replace(attempts=put(state.attempts, job.attempt, changed))


def _without_caller(state: State, watcher: int) -> State:
    """Jobs that answer to a watcher that no longer waits."""
    replicas = tuple(
        each._replace(job=(each.job[0]._replace(caller=NONE),)) if each.job and each.job[0].caller == watcher else each
        for each in state.replicas
    )
    return state._replace(replicas=replicas)


def _crashed(state: State) -> State:
    """Vault after a crash: every read is broken off."""
    replicas = list(state.replicas)
    for index, replica in enumerate(replicas):
        if replica.job and replica.job[0].step in (*READING, *CLEANING):
            job = replica.job[0]
            then = Step.OUTCOME_UNKNOWN if job.step in READING else Step.COMMIT_RECOVERY
            replicas[index] = replica._replace(job=(job._replace(step=then),))
    attempts = tuple(each._replace(orphans=()) for each in state.attempts)
    return state._replace(replicas=tuple(replicas), attempts=attempts)
