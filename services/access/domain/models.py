"""The records of the ledger as frozen values. Times are seconds since 1970, spans are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum


class Origin(StrEnum):
    """Where an access request was made, and so where it is decided."""

    KUBERNETES = "kubernetes"
    GRPC = "grpc"


class Approval(StrEnum):
    """Where the approval of an access request stands. Only ``APPROVED`` grants anything; the last three are final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


LONGEST_PAUSE_S = 600.0
"""How long a db_role may be paused. It then counts as outdated: only another snapshot lets anything be issued."""

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
    REVOKING_TOKEN = "revoking_token"  # noqa: S105 - nothing was issued, or its lease is revoked: only the token is left
    REVOKING = "revoking"  # its lease is to be revoked; an attempt without one is recovered
    RECOVERING = "recovering"  # whether it made a database user is not known: a cleanup role drops it
    CLOSED = "closed"


class Priority(IntEnum):
    """Priorities of the work queue, the most urgent first."""

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
    """A Vault, without any auth.

    Attributes:
        id: Number in this ledger.
        key_digest: Digest of ``vault``; another one is another target.
        address: Where it was last known to be.
        vault: What tells the Vault from others: the oldest name of the operator's entry; where every Vault is allowed,
            its address and Vault namespace.
        ensured_at: When a caller last described it.
        cluster_uid: uid of the cluster whose watcher named it; empty for one of the operator's catalog file.
    """

    id: int
    cluster: str
    namespace: str
    name: str
    key_digest: str
    address: str
    vault: str
    vault_namespace: str
    ca_bundle: bytes = field(repr=False)
    insecure_skip_tls_verify: bool
    server_name: str
    ensured_at: float = field(default=0.0, compare=False)
    cluster_uid: str = ""

    @property
    def entry(self) -> str:
        """Name of the operator's entry; empty where every Vault is allowed."""
        return "" if "://" in self.vault else self.vault


@dataclass(frozen=True, slots=True)
class RoleWords:
    """What an approver is shown of a db_role beside its names in Vault and its TTLs; ``services.access.domain.grant``.

    Attributes:
        vault: Its Vault.
        database: Identity of its database; empty where nothing that Leasegate made leads there.
        plugin: Vault's plugin of its connection; empty where that is not known.
        creation: SQL that creates the database user.
        revocation: SQL that drops it; empty for Vault's default.
        rollback: SQL that cleans up after a failed creation; empty for Vault's default.
        renew: SQL that extends its validity; empty for Vault's default.
        omitted: Number of characters that are cut from these texts.
    """

    vault: str = ""
    database: str = ""
    plugin: str = ""
    creation: tuple[str, ...] = ()
    revocation: tuple[str, ...] = ()
    rollback: tuple[str, ...] = ()
    renew: tuple[str, ...] = ()
    omitted: int = 0


@dataclass(frozen=True, slots=True)
class DbRole:
    """A db_role of the catalog.

    Attributes:
        target: Number of its Vault.
        digest: What an approver approves of it, computed here and never taken from a caller.
        words: What an approver is shown of it.
        default_ttl_s: First TTL of a lease; None for the mount's.
        max_ttl_s: Longest life of a lease; None for the mount's.
        deleted: Whether it is deleted from the catalog; the row is kept for its digest.
        approvals: How many approvers it takes.
        approvers: Who may decide its access requests over gRPC; empty for every caller of ApproverService.
        self_approval: Whether one of them may be the requester; for access requests over gRPC.
        configured: Whether the operator's catalog file defines it, rather than a snapshot of the role service.
        allow_from: Namespaces besides its own whose access requests may name it.
        allow_subjects_from: Namespaces besides the access request's own whose ServiceAccounts may be subjects.
        not_allowed: Why its owner may not use its mount or connection any more, where that is why it is deleted.
        pause_number: Number of its newest pause, which older snapshots do not name; 0 before the first.
        paused_at: Since when it is paused, as it is about to change; None if it is not.
        paused_by: Identity of the caller who paused it last.
        pause_shown: Whether its access requests show the pause.
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
    words: RoleWords = field(default_factory=RoleWords)
    approvals: int = 1
    approvers: tuple[str, ...] = ()
    self_approval: bool = False
    configured: bool = False
    allow_from: tuple[str, ...] = ()
    allow_subjects_from: tuple[str, ...] = ()
    not_allowed: str = ""
    pause_number: int = 0
    paused_at: float | None = None
    paused_by: str = ""
    pause_shown: bool = False

    def may_decide(self, caller: str) -> bool:
        """Whether a caller of ApproverService may decide its access requests."""
        return not self.approvers or caller in self.approvers

    def allows(self, namespace: str) -> bool:
        """Whether access requests of a namespace may name it."""
        return namespace == self.namespace or namespace in self.allow_from

    @property
    def paused(self) -> bool:
        """Whether nothing is issued and no lease renewed for it, until there is a snapshot from after its pause."""
        return self.paused_at is not None

    @property
    def outdated_at(self) -> float | None:
        """When its pause has lasted too long, so that it counts as outdated; None if it is not paused."""
        return None if self.paused_at is None else self.paused_at + LONGEST_PAUSE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One access request.

    Attributes:
        uid: The object's uid in Kubernetes; a UUID of the service for an access request over gRPC.
        owner: Identity of the caller who ensured or created it, the only one who may use it.
        reason: Why access is needed.
        ticket: The ticket that it belongs to.
        on_behalf_of: For whom the requester asks, as an annotation of its object claims; empty for nobody else.
        verified_by: Who vouches for ``on_behalf_of``; empty if nobody does.
        digest: Of what would be granted, by the last known definition of the db_role; empty if there never was one.
        outdated: Whether it was approved, but not with the present digest.
        last_sequence: Sequence of the newest attempt.
        rotation_due: Whether the active credential has to be replaced.
        first_issued_at: Access counts from here.
        ends_at: When access ends for good; None before the first credential, or without a limit.
        error_reason: Why the last claim failed; empty after a successful one.
        retry_at: When the next claim is due after a failure.
        due_at: When a worker has to look at it.
        deleted_at: Since when nobody can ask for it again: its object is deleted, or it was made over gRPC and has
            ended.
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
    ticket: str = ""
    on_behalf_of: str = ""
    verified_by: str = ""
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
    def requester_verified(self) -> bool:
        """Whether it is known who is behind it: by a client certificate, or by Kubernetes' admission policies."""
        return self.origin is Origin.GRPC or bool(self.requester and (self.verified_by or not self.on_behalf_of))

    @property
    def ended(self) -> bool:
        """Whether access is over for good."""
        return self.approval in FINAL

    def expired(self, now: float) -> bool:
        """Whether the time of its access is over, noted or not."""
        return self.ends_at is not None and now >= self.ends_at

    @property
    def label(self) -> str:
        """The access request as people and logs name it: ``namespace/name``, or its name, or its uid."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name or self.uid

    @property
    def tenant(self) -> str:
        """Who shares workers and quotas: a namespace of a cluster, or one caller over gRPC."""
        return f"{self.cluster_uid}/{self.namespace}" if self.namespace else self.owner

    @property
    def role_label(self) -> str:
        """The db_role as people name it: ``namespace/name``, or the name in the catalog."""
        return f"{self.role_namespace}/{self.role_name}" if self.role_namespace else self.role_name


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision.

    Attributes:
        kind: ``approved`` or ``denied``.
        sent_digest: The digest that the decision itself names, or empty.
        digest: What it counts for: the digest that it names, else the one in the status that it was written over.
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


class DropBy(StrEnum):
    """Whose statements drop the database user of an attempt that is recovered.

    Each has a cleanup role of its own, which locks the user out first.
    """

    TEAM = "team"
    """The revocation statements that the attempt's db_role had at its approval."""
    UNOWNED = "unowned"
    """Leasegate's, if the user owns nothing: PostgreSQL refused the team's, and no owner may change."""
    FORCE = "force"
    """Leasegate's: the user owns objects, which become the managing user's, or the team's statements end nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to issue a credential, and the lease of that credential once there is one.

    Attributes:
        id: 20 characters of a-z and 0-9; the end of the name of its database user.
        sequence: Rising within its access request.
        grant: The digest of the access request that it was begun under.
        database_user: Name of its PostgreSQL role; no other attempt ever has it.
        accessor: Names its token.
        token_ends_at: Hard end of token and lease.
        lease_ttl_s: TTL that Vault granted last.
        ends_at: Lesser of the lease's and the token's end.
        max_ends_at: Latest end, however often it is renewed; None while not known.
        renewal_failures: Renewals that failed since the last successful one.
        drop_by: Whose statements drop the database user, if it is recovered.
        locked_out_at: Since when the database user can neither log in nor is in a session; None if it is not known.
        failures: Failures in a row of its revocation or recovery.
        error: Why the last of them failed, bounded.
        end_reason: Why it ended, for people; kept when it is closed.
        revocation_due_at: Since when its database user is to be dropped; None while it is not.
        priority: Priority of its next work.
        due_at: When that work is due; None for none.
        overlap_ends_at: Until when it is renewed beside the attempt that replaced it.
        tenant: Whose share of workers and quotas it is of; as of its access request.
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
    drop_by: DropBy = DropBy.TEAM
    locked_out_at: float | None = None
    failures: int = 0
    error: str = ""
    end_reason: str = ""
    revocation_due_at: float | None = None
    priority: Priority = Priority.ISSUE
    due_at: float | None = None
    overlap_ends_at: float | None = None
    tenant: str = ""

    def expired(self, now: float) -> bool:
        """Whether its lease has ended."""
        return self.ends_at is not None and now >= self.ends_at

    @property
    def longest_s(self) -> float | None:
        """Longest life of its lease: what Vault grants where that is known, else what the db_role says, or None."""
        if self.max_ends_at is None or self.issued_at is None:
            return self.max_ttl_s
        return self.max_ends_at - self.issued_at

    @property
    def may_have_database_user(self) -> bool:
        """Whether its database user may exist."""
        return self.state not in (
            AttemptState.PENDING,
            AttemptState.TOKEN_READY,
            AttemptState.REVOKING_TOKEN,
            AttemptState.CLOSED,
        )


@dataclass(frozen=True, slots=True)
class Recovery:
    """One recovery of an attempt: a cleanup role adopts its database user and drops it.

    Attributes:
        sequence: Rising over the whole ledger: only the newest of an attempt may close it.
        accessor: Names the token of the cleanup role.
        second: Whether it is the recovery after the wait.
        lease_id: The lease of the cleanup role; empty while not known.
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
    """A cleanup role that the role service creates when the watcher asks for it."""

    name: str
    target: int
    mount: str
    db_name: str
    revocation_statements: tuple[str, ...]
    drop_by: DropBy
    state: CleanupRoleState
    error: str


@dataclass(frozen=True, slots=True)
class Reassessment:
    """What is left to do for the access requests of a db_role that changed, in the order of their uids.

    Attributes:
        db_role: Number of the db_role.
        since: When this pass over its access requests began.
        after: The last uid that is done; empty at the beginning.
        again: Whether the db_role changed after this pass began, so that another follows.
        leases: Whether leases in use are looked at, too: what may be renewed changed.
    """

    db_role: int
    since: float
    after: str = ""
    again: bool = False
    leases: bool = False


@dataclass(frozen=True, slots=True)
class IssuancePause:
    """A mount, or one connection of it, where nothing is issued.

    Attributes:
        vault: What tells the Vault from others.
        connection: Name of the connection; empty for the whole mount.
        changing: Whether what db_roles run on is about to change, so that no snapshot of them counts; else leases are
            counted.
        cluster_uid: uid of the cluster whose watcher paused it; db_roles of other clusters are not paused.
    """

    vault: str
    vault_namespace: str
    mount: str
    connection: str
    changing: bool = False
    cluster_uid: str = ""
