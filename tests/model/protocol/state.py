"""The values that a state of the protocol consists of: immutable, hashable and small, as there are millions."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import NamedTuple, TypeAlias, TypeVar

from services.access.domain.models import AttemptState

NONE = -1
"""No index: of an attempt, a token or a caller."""

NO_LEASE, UNOWNED_LEASE, LEASE_REVOKING = -1, -2, -3
"""What ``Attempt.lease`` holds beside the index of the token that the lease belongs to.

There is none; its token was revoked during the read, so that nothing revokes it; Vault revokes it in the background.
"""

MOST_CLEANUP_LEASES = 2


class Request(StrEnum):
    """Where the access request stands; a denial, a withdrawal and a deletion are one."""

    PENDING = "pending"
    APPROVED = "approved"
    ENDED = "ended"


class DatabaseUser(IntEnum):
    """The one name of an attempt in PostgreSQL."""

    ABSENT = 0
    LOGIN = 1
    NOLOGIN = 2  # created by a cleanup role


class Event(IntEnum):
    """Faults and users' events; a scenario bounds how often each happens."""

    KILL = 0  # a replica
    KILL_WATCHER = 1
    VAULT_CRASH = 2
    CUT = 3  # a connection, or a caller's patience
    SUSPECT = 4  # a worker takes what a living process works on
    ROTATE = 5
    TOKEN_TTL = 6
    DELETE_SECRET = 7
    END = 8
    RECREATE = 9
    PREPARE = 10  # a token is made while the request is pending
    FORMER_LEADER = 11


class Step(StrEnum):
    """What a replica's job does next."""

    CLAIM = "claim"
    MAKE_TOKEN = "make token"
    COMMIT_TOKEN = "commit token"
    PREPARE_TOKEN = "prepare token"
    COMMIT_PREPARED = "commit prepared token"
    COMMIT_ISSUING = "commit issuing"
    BEGIN_READ = "begin read"
    READ_BEGUN = "read begun"
    READ_CREATED = "read created"
    COMMIT_LEASE = "commit lease"
    ANSWER = "answer"
    REVOKE_REFUSED = "revoke refused"
    ABORT = "abort"
    OUTCOME_UNKNOWN = "outcome unknown"
    REVOKE_TOKEN = "revoke token"
    REVOKE_LEASE = "revoke lease"
    REVOKE_ACCESSOR = "revoke accessor"
    COMMIT_RECOVERY = "commit recovery"
    BEGIN_CLEANUP = "begin cleanup"
    CLEANUP_BEGUN = "cleanup begun"
    CLEANUP_CREATED = "cleanup created"
    REVOKE_CLEANUP = "revoke cleanup"
    CLOSE = "close"


READING = (Step.READ_BEGUN, Step.READ_CREATED)
CLEANING = (Step.CLEANUP_BEGUN, Step.CLEANUP_CREATED)
RECOVERING = (
    Step.REVOKE_ACCESSOR,
    Step.COMMIT_RECOVERY,
    Step.BEGIN_CLEANUP,
    *CLEANING,
    Step.REVOKE_CLEANUP,
    Step.CLOSE,
)
WORKING = (Step.REVOKE_TOKEN, Step.REVOKE_LEASE, *RECOVERING)


class Orphan(NamedTuple):
    """A read whose client is gone and which goes on in Vault.

    Attributes:
        cleanup: Whether it reads the cleanup role.
        created: Whether CREATE ROLE has run.
        token: Index of the token that it reads with; NONE for a cleanup role's.
    """

    cleanup: bool
    created: bool
    token: int = NONE


class Attempt(NamedTuple):
    """One attempt: its row in the ledger, and what belongs to it in Vault and PostgreSQL.

    Attributes:
        uid: Of the access request that it was begun for, counted from 0.
        state: As committed.
        accessor: Index of the token whose accessor is committed.
        tokens: Whether each token that was made for it lives.
        lease_known: Whether the lease id is committed.
        user: Its database user.
        lease: Index of the token that its lease belongs to, or one of the constants above.
        orphans: Reads whose client is gone.
        cleanup_leases: Leases of cleanup roles that are left to their TTL.
        expired: Whether its token has reached its TTL.
    """

    uid: int = 0
    state: AttemptState = AttemptState.PENDING
    accessor: int = NONE
    tokens: tuple[bool, ...] = ()
    lease_known: bool = False
    user: DatabaseUser = DatabaseUser.ABSENT
    lease: int = NO_LEASE
    orphans: tuple[Orphan, ...] = ()
    cleanup_leases: int = 0
    expired: bool = False


class Outdated(IntEnum):
    """Whether another process has committed a newer recovery of the attempt that a job recovers."""

    NO = 0
    COMMITTED = 1
    REVOKED = 2  # and has revoked this one's token


class Job(NamedTuple):
    """What a replica works on.

    Attributes:
        step: Its next step.
        attempt: Index of the attempt.
        token: Index of the token that it made or reads with.
        caller: Index of the watcher that waits for its answer.
        secret_attempt: Number that the caller's Secret held when it claimed; 0 for none.
        uid: Of the request that it claims for.
        outdated: Whether its recovery is outdated.
        second: Whether it is at the second recovery.
    """

    step: Step
    attempt: int = NONE
    token: int = NONE
    caller: int = NONE
    secret_attempt: int = 0
    uid: int = 0
    outdated: Outdated = Outdated.NO
    second: bool = False


class Replica(NamedTuple):
    """A replica of the access service.

    Attributes:
        prepared: Attempt and token, made while the request was pending, whose secret it remembers; empty if none.
        job: What it works on, at most one.
    """

    prepared: tuple[int, ...] = ()
    job: tuple[Job, ...] = ()


class Phase(StrEnum):
    """Where a watcher stands."""

    IDLE = "idle"
    PAUSED = "paused"  # a former leader that has not come back yet
    WAITING = "waiting"  # for the answer to its claim
    ANSWERED = "answered"
    WRITTEN = "written"
    GONE = "gone"


class Watcher(NamedTuple):
    """A watcher: where it stands, and with which attempt if it was answered or has written."""

    phase: Phase = Phase.IDLE
    attempt: int = NONE


class State(NamedTuple):
    """Everything there is.

    Attributes:
        request: Where the access request stands.
        uid: How often it was created again.
        rotation_due: Whether the active credential is to be replaced.
        secret: Number of the attempt whose credential the Secret holds; 0 for no Secret.
        watchers: The leader and the former leader.
        replicas: The access service's.
        attempts: Numbered from 1, indexed from 0.
        left: How often each event may still happen.
    """

    request: Request = Request.PENDING
    uid: int = 0
    rotation_due: bool = False
    secret: int = 0
    watchers: tuple[Watcher, ...] = (Watcher(), Watcher(Phase.PAUSED))
    replicas: tuple[Replica, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    left: tuple[int, ...] = ()


class Violation(Enum):
    """The promises. "At rest" is where nothing can happen but faults and users' events."""

    I1 = "at rest PostgreSQL has no database user but that of the active attempt"
    I2 = "no acknowledged credential ends before a newer one is in the Secret and its overlap is over"
    I2_PLUS = "nor does an unacknowledged one that the Secret holds"
    I3 = "no lease is committed without an approval"
    I4 = "at most one attempt is active"
    I5 = "at rest the Secret of an approved request holds the working credential of the active attempt"
    I6 = "every state can come to rest without a further event"
    I7 = "no lease is left that Vault can never revoke"

    @property
    def label(self) -> str:
        """Its short name: ``I2+`` for ``I2_PLUS``."""
        return self.name.replace("_PLUS", "+")


_T = TypeVar("_T")
Trace: TypeAlias = tuple[str, ...]


def put(values: tuple[_T, ...], index: int, value: _T) -> tuple[_T, ...]:
    """The tuple with another value at an index."""
    return (*values[:index], value, *values[index + 1 :])
