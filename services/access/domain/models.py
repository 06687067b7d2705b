"""What the ledger holds, as the domain sees it: frozen values. Times are seconds since 1970, spans seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Origin(StrEnum):
    """Where a request was made, and so where it is decided."""

    KUBERNETES = "kubernetes"
    GRPC = "grpc"


class Approval(StrEnum):
    """Where the approval of a request stands. Only ``APPROVED`` grants anything; the last three end access for good."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


FINAL = frozenset({Approval.DENIED, Approval.WITHDRAWN, Approval.EXPIRED})


class AttemptState(StrEnum):
    """Where an attempt stands; docs/safety.md draws the transitions."""

    PENDING = "pending"  # begun, no token yet
    TOKEN_READY = "token_ready"  # noqa: S105 - its token's accessor is committed
    ISSUING = "issuing"  # ``creds`` is about to be read, or being read
    ISSUED = "issued"  # its lease is committed; nobody has acknowledged it
    ACTIVE = "active"  # acknowledged: in use
    RETIRING = "retiring"  # a later one is in use; it is revoked when the overlap is over
    REPLACED = "replaced"  # answered, never acknowledged, a later one was begun; it retires with that one's acknowledge
    REVOKING_TOKEN = "revoking_token"  # noqa: S105 - nothing was issued, or its lease is revoked: the token is what is left
    REVOKING = "revoking"  # its lease is to be revoked; an attempt without one is recovered
    RECOVERING = "recovering"  # whether it made a database user is not known: a cleanup role drops it
    CLOSED = "closed"


class Priority(IntEnum):
    """Kinds of work, the most urgent first (design, section 5)."""

    REVOKE = 0
    ISSUE = 1
    RENEW = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """Who may read the credential."""

    kind: str
    api_group: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class VaultTargetRow:
    """A Vault, without any login.

    Attributes:
        id: Number in this ledger.
        key_digest: Digest of address, Vault namespace and auth mount; another one is another target.
        address: As it was given; a part of the digest.
        server: The address in the one form in which two can be compared.
    """

    id: int
    cluster: str
    namespace: str
    name: str
    key_digest: str
    address: str
    server: str
    vault_namespace: str
    ca_bundle: bytes = field(repr=False)
    insecure_skip_tls_verify: bool
    server_name: str
    auth_mount: str


@dataclass(frozen=True, slots=True)
class DbRole:
    """A role of the catalogue.

    Attributes:
        target: Number of its Vault.
        digest: What an approver approves of it.
        default_ttl_s: First TTL of a lease; None for the mount's.
        max_ttl_s: Longest life of a lease; None for the mount's.
        deleted: Whether it was taken out of the catalogue; kept for its digest.
        approvals: How many approvers it takes.
        self_approval: Whether one of them may be the requester; for requests over gRPC.
        configured: Whether the operator's catalogue file says it, rather than a snapshot.
    """

    id: int
    cluster: str
    cluster_uid: str
    namespace: str
    name: str
    target: int
    mount: str
    vault_role: str
    db_name: str
    revocation_statements: tuple[str, ...]
    default_ttl_s: float | None
    max_ttl_s: float | None
    digest: str
    deleted: bool
    approvals: int = 1
    self_approval: bool = False
    configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One wish for access.

    Attributes:
        uid: The object's uid in Kubernetes, ours elsewhere.
        owner: Identity of the caller who ensured or made it, the only one who may use it.
        digest: Of what would be granted, by the last definition of the role that was known; empty if none ever was.
        outdated: Whether it was approved, but not with the present digest.
        last_sequence: Number of the newest attempt.
        rotation_due: Whether the active credential is to be replaced.
        first_issued_at: Access counts from here.
        ends_at: End of access for good, once it counts.
        error_reason: Why the last claim failed; empty after one that did not.
        retry_at: When a claim makes sense again.
        due_at: When a worker has to look at it.
        deleted_at: Since when nobody can ask for it again: its object is gone, or it was made over gRPC and has ended.
    """

    uid: str
    origin: Origin
    owner: str
    cluster: str
    cluster_uid: str
    namespace: str
    name: str
    generation: int
    role_namespace: str
    role_name: str
    subjects: tuple[Subject, ...]
    ttl_s: float | None
    requester: str
    reason: str = ""
    created_at: float
    approval: Approval = Approval.PENDING
    digest: str = ""
    outdated: bool = False
    last_sequence: int = 0
    rotation_due: bool = False
    first_issued_at: float | None = None
    ends_at: float | None = None
    error_reason: str = ""
    error_message: str = ""
    failures: int = 0
    retry_at: float | None = None
    due_at: float | None = None
    deleted_at: float | None = None

    @property
    def approved(self) -> bool:
        """Whether a credential may be issued for what would be granted now."""
        return self.approval is Approval.APPROVED

    @property
    def ended(self) -> bool:
        """Whether access is over for good."""
        return self.approval in FINAL

    @property
    def role_label(self) -> str:
        """The role as people name it: ``namespace/name``, or the catalogue's name."""
        return f"{self.role_namespace}/{self.role_name}" if self.role_namespace else self.role_name


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes:
        kind: ``approved`` or ``denied``.
        sent_digest: The digest that the decision named itself, or empty.
        digest: What it counts for: the one that it named, else the one in the status that it was written over.
    """

    kind: Approval
    approver: str
    proof: int
    reason: str
    message: str
    decided_at: float
    sent_digest: str
    digest: str
    self_approved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to issue a credential, and the credential's lease if it came to that.

    Attributes:
        id: 20 characters of a-z and 0-9; the end of the login's name.
        sequence: Rising in its request.
        grant: The request's digest that it was begun under.
        database_user: Name of its login in PostgreSQL, if there is one: no other attempt ever has it.
        accessor: Names its token.
        token_ends_at: Hard end of token and lease.
        lease_ttl_s: What Vault granted last.
        ends_at: Lesser of the lease's and the token's end.
        max_ends_at: End however often it is renewed; None while not known.
        renewal_failures: Renewals that failed since the last good one.
        force_drop: Whether PostgreSQL refused to drop the login, so that our own statements have to.
        failures: Failures in ending it.
        error: Why it could not be ended, bounded.
        end_reason: Why it was ended, for people; kept when it is closed.
        priority: Kind of the work that waits.
        due_at: When that work is due; None for none.
        overlap_ends_at: Until when it is kept beside the one that replaced it.
    """

    id: str
    access_request_id: str
    sequence: int
    state: AttemptState
    grant: str
    role_digest: str
    target: int
    mount: str
    vault_role: str
    db_name: str
    revocation_statements: tuple[str, ...]
    default_ttl_s: float | None
    max_ttl_s: float | None
    database_user: str
    accessor: str = ""
    token_ends_at: float | None = None
    lease_id: str = field(default="", repr=False)
    lease_ttl_s: float = 0.0
    renewable: bool = False
    begun_at: float
    issued_at: float | None = None
    acknowledged_at: float | None = None
    renewed_at: float | None = None
    ends_at: float | None = None
    max_ends_at: float | None = None
    closed_at: float | None = None
    renewal_failures: int = 0
    force_drop: bool = False
    failures: int = 0
    error: str = ""
    end_reason: str = ""
    priority: Priority = Priority.ISSUE
    due_at: float | None = None
    overlap_ends_at: float | None = None

    def expired(self, now: float) -> bool:
        """Whether it is past its end."""
        return self.ends_at is not None and now >= self.ends_at

    @property
    def longest_s(self) -> float | None:
        """Longest life of its lease: as Vault grants it where that is known, else as the role says; None where neither
        is.
        """
        if self.max_ends_at is None or self.issued_at is None:
            return self.max_ttl_s
        return self.max_ends_at - self.issued_at

    @property
    def may_have_database_user(self) -> bool:
        """Whether there may be a login of it that is not known to be gone."""
        return self.state not in (
            AttemptState.PENDING,
            AttemptState.TOKEN_READY,
            AttemptState.REVOKING_TOKEN,
            AttemptState.CLOSED,
        )


@dataclass(frozen=True, slots=True)
class Recovery:
    """One recovery of an attempt's login.

    Attributes:
        sequence: Rising over the whole ledger: only the newest of an attempt may close it.
        accessor: Names the cleanup_role's token.
        second: Whether it is the one after the wait.
        lease_id: The cleanup_role's lease; empty while not known.
        done_at: When that lease was revoked.
    """

    sequence: int
    attempt: str
    cleanup_role: str
    accessor: str
    second: bool
    lease_id: str = field(repr=False)
    done_at: float | None


class CleanupRoleState(StrEnum):
    """Where a cleanup role stands."""

    NEEDED = "needed"
    READY = "ready"
    UNNEEDED = "unneeded"


@dataclass(frozen=True, slots=True)
class CleanupRole:
    """A cleanup role that the role service makes on the watcher's word."""

    name: str
    target: int
    mount: str
    db_name: str
    revocation_statements: tuple[str, ...]
    force_drop: bool
    state: CleanupRoleState
    error: str


@dataclass(frozen=True, slots=True)
class IssuancePause:
    """A mount, or one connection of it, where nothing is issued."""

    server: str
    vault_namespace: str
    mount: str
    connection: str
