"""Conditions and Events of the watcher's kinds: the one list of their types and reasons, with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dev.docs import errors
from dev.docs.markdown import page, table

ENGINE, ROLE, REQUEST = "SecretEngine", "PostgresRole", "DatabaseAccessRequest"
PLACED = f"{ENGINE}, {ROLE}"
ALL = f"{ENGINE}, {ROLE}, {REQUEST}"


class ConditionType(NamedTuple):
    """A type of conditions, on which kinds it is, and what it says while it is True."""

    type: str
    kinds: str
    meaning: str


class Reason(NamedTuple):
    """A reason of a condition, or of an Event: what it means and what to do."""

    reason: str
    kinds: str
    meaning: str
    action: str = "Nothing."


class EventReason(NamedTuple):
    """An Event that no condition is the cause of."""

    type: str
    reason: str
    kinds: str
    meaning: str
    action: str = "Nothing."


CONDITIONS = (
    ConditionType(
        "Ready",
        f"{ALL}; AppBinding that one of them uses",
        "The object is served: `kubectl wait --for=condition=Ready`.",
    ),
    ConditionType(
        "Available", ALL, "What the spec asks for is in Vault; of an access request, its credential is in use."
    ),
    ConditionType("Failed", ALL, "The last try failed; it is repeated."),
    ConditionType("NamespaceNotEnabled", ALL, "The namespace has no RoleBinding for the watcher."),
    ConditionType(
        "PoliciesNotInForce",
        f"{ALL}; AppBinding that one of them uses",
        "Nothing new is issued; what is issued is renewed and revoked as before. Without an Event.",
    ),
    ConditionType("VaultSettingsNotUsed", PLACED, "TLS settings of the AppBinding have no effect."),
    ConditionType("RevocationPending", REQUEST, "A credential that should be revoked is not yet."),
    ConditionType("IssuancePaused", REQUEST, "No credential is issued at present."),
    ConditionType(
        "RoleChanging",
        f"{ROLE}, {REQUEST}",
        "The db_role or its connection is about to change: nothing is issued and no lease renewed for it.",
    ),
    ConditionType("ApprovalStale", REQUEST, "The approval is not for what would be granted now."),
    ConditionType("RequesterUnverified", REQUEST, "Nobody vouches for who made the access request."),
    ConditionType(
        "ApprovalNotEnforced", ALL, "The team's own Vault session could read credentials without an approval."
    ),
    ConditionType("SubjectsForbidden", REQUEST, "A subject may not read a credential of its role."),
    ConditionType("RoleDeleted", REQUEST, "The PostgresRole is deleted; no new credential is issued."),
    ConditionType("NotAllowedFrom", REQUEST, "Its role, or what its role uses, belongs to another namespace."),
    ConditionType("RoleNotReady", REQUEST, "The PostgresRole is not in Vault yet."),
)

REASONS = (
    Reason("Provisioned", PLACED, "Vault has what the spec asks for."),
    Reason("Registered", "AppBinding", "The access service has this Vault, and what authenticates there."),
    Reason("Complete", "AppBinding", "The database's address, and what authenticates there, are complete."),
    Reason("NotUsed", "AppBinding", "No SecretEngine or PostgresRole uses it any more."),
    Reason("SuccessfullyIssuedCredential", REQUEST, "The credential is in the Secret and in use."),
    Reason("IssuingCredential", REQUEST, "A credential is being issued."),
    Reason("CredentialPending", REQUEST, "The access request is approved, and no credential is in the Secret yet."),
    Reason(
        "ApprovalRequired",
        REQUEST,
        "The access request waits for a decision.",
        "Approve or deny it: `kubectl vault approve databaseaccessrequest NAME`.",
    ),
    Reason("Denied", REQUEST, "An approver denied the access request.", "Make a new access request."),
    Reason("Expired", REQUEST, "Access has expired, or its requester withdrew it.", "Make a new access request."),
    Reason(
        "FailedToGetCredential", REQUEST, "The last claim failed.", "Read the message; it is repeated with a backoff."
    ),
    Reason(
        "FailedToCreateSecret",
        REQUEST,
        "Kubernetes refused the Secret.",
        "Read the message: a quota, an admission policy, or RBAC of the enabled namespace.",
    ),
    Reason("FailedToCreateRole", REQUEST, "Kubernetes refused the Role.", "As for FailedToCreateSecret."),
    Reason("FailedToCreateRoleBinding", REQUEST, "Kubernetes refused the RoleBinding.", "As for FailedToCreateSecret."),
    Reason(
        "FailedToEnableSecretEngine",
        ENGINE,
        "Vault refused the mount.",
        "Read the message; check the policy `leasegate-engine` and the mount path.",
    ),
    Reason(
        "FailedToCreateSecretEngineConfig",
        ENGINE,
        "Vault could not configure or verify the connection.",
        "Check the database's address, user and password.",
    ),
    Reason(
        "FailedToCreateDatabaseRole",
        ROLE,
        "Vault refused the database role.",
        "Read the message; check its statements.",
    ),
    Reason(
        "ConnectionConflict",
        ENGINE,
        "An older SecretEngine, or one of the database's own namespace, configures the same connection otherwise.",
        "Give this one another path or database, or delete one of them.",
    ),
    Reason("InvalidSpec", ALL, "A field of the spec is wrong.", "Correct the field that the message names."),
    Reason("AppBindingNotFound", PLACED, "The AppBinding does not exist or is being deleted.", "Apply it."),
    Reason("SecretNotFound", PLACED, "The Secret of the AppBinding does not exist.", "Apply it."),
    Reason("ServiceAccountNotFound", PLACED, "The ServiceAccount of the AppBinding does not exist.", "Apply it."),
    Reason(
        "TokenRefused",
        PLACED,
        "Kubernetes refuses the watcher a token of the AppBinding's ServiceAccount.",
        "Read the message: names and audience in `deploy/policies/tokens.yaml` are the watcher's own.",
    ),
    Reason(
        "FinalizerRefused",
        ALL,
        "An admission policy refuses the watcher its finalizer on the object.",
        "Read the message: an object has at most 64 finalizers of others.",
    ),
    Reason("EngineNotReady", ROLE, "The SecretEngine is not ready yet.", "Look at its conditions."),
    Reason(
        "LeasesInUse",
        PLACED,
        "Leases depend on what would change or be removed.",
        "Wait until they expire, or end the access: `leasegate leases` lists them.",
    ),
    Reason("RevokingLeases", ENGINE, "The leases below the mount are being revoked before the deletion."),
    Reason(
        "NamespaceNotEnabled",
        ALL,
        "The namespace has no RoleBinding for the watcher.",
        "Apply the RoleBinding that the message names (`deploy/rbac/enabled-namespace.yaml`).",
    ),
    Reason(
        "PoliciesNotInForce",
        f"{ALL}, AppBinding",
        "The admission policies in the cluster are not those of this release, or the API server does not use them.",
        "Apply `deploy/policies` and `deploy/rbac/watcher.yaml` of the release; the message says what differs.",
    ),
    Reason("NamespaceTerminating", REQUEST, "The namespace is being deleted; nothing can be written there."),
    Reason("Starting", REQUEST, "The watcher still lists the Secrets of the namespace."),
    Reason(
        "VaultSettingsNotUsed",
        PLACED,
        "TLS settings of the AppBinding differ from the operator's, and have no effect.",
        "Remove what the message names from the AppBinding.",
    ),
    Reason(
        "ApprovalNotEnforced",
        PLACED,
        "Leasegate runs with `--allow-any-vault`.",
        "Name the Vaults in `--vault-config`, see [installation](../install.md).",
    ),
    Reason("RevocationInProgress", REQUEST, "A credential is being revoked."),
    Reason(
        "LockedOut",
        REQUEST,
        "The database user can neither log in nor stay in a session. PostgreSQL refuses to drop it; that is tried until"
        " it succeeds.",
        "The message says why: move or drop what the user owns, or mend what the role's revocationStatements need.",
    ),
    Reason(
        "RevocationFailing",
        REQUEST,
        "A revocation failed; it is repeated until the database user is dropped.",
        "Read the message: Vault or the database does not answer, or refuses.",
    ),
    Reason(
        "RevocationPending",
        REQUEST,
        "The object is deleted before its database users are dropped; access continues.",
        "`leasegate leases` shows what is left.",
    ),
    Reason(
        "LedgerMismatch",
        REQUEST,
        "Kubernetes knows another ledger than the one that access runs on.",
        "Restore the ledger, or accept its loss: `leasegate ledger accept-loss`.",
    ),
    Reason(
        "AttemptUnknown",
        REQUEST,
        "The Secret holds an attempt that the ledger does not know.",
        "As for LedgerMismatch; delete the Secret if it is wrong.",
    ),
    Reason(
        "RoleChanging",
        PLACED,
        "A change of a db_role or its connection waits for calls to Vault that are under way, or for leases that would"
        " be revoked otherwise than when they were issued.",
    ),
    Reason("RolePaused", f"{ROLE}, {REQUEST}", "A change in Vault has begun; what is in use stays, unrenewed."),
    Reason(
        "RoleOutdated",
        f"{ROLE}, {REQUEST}",
        "The change did not succeed within ten minutes; nothing is issued until it does.",
        "Look at the conditions of the PostgresRole and of its SecretEngine.",
    ),
    Reason("SecretEngineUpdating", REQUEST, "The SecretEngine or its connection is being changed."),
    Reason(
        "GrantChanged",
        REQUEST,
        "Role or spec changed after the approval.",
        "Look at what would be granted now, and approve it again.",
    ),
    Reason(
        "AdmissionPolicyMissing",
        REQUEST,
        "The requester is not stamped: the policy is missing, or the object is older than it.",
        "Apply `deploy/policies/requester-stamp.yaml`; make the access request again.",
    ),
    Reason(
        "OnBehalfOfUnverified",
        REQUEST,
        "The annotation `on-behalf-of` names somebody, and nobody who may vouch for people wrote it.",
        "Have the portal set `leasegate.dev/verified-by`, or make the access request again without the annotation; see"
        " [who is behind it](../security/rbac.md#who-is-behind-an-access-request).",
    ),
    Reason(
        "ServiceAuthNotConfigured",
        REQUEST,
        "The access service has no session of its own at this Vault.",
        "Name the Vaults in `--vault-config`, see [installation](../install.md).",
    ),
    Reason(
        "SubjectNotPermitted",
        REQUEST,
        "A subject is one of Kubernetes' own, or a ServiceAccount of a namespace that the role's owner does not name.",
        "Make the access request again with other subjects, or have the owner set the annotation that the text names.",
    ),
    Reason(
        "PostgresRoleDeleted", REQUEST, "The PostgresRole is deleted.", "Apply it again, or delete the access request."
    ),
    Reason(
        "ConsentMissing",
        REQUEST,
        "The owner of another namespace does not share it, or not any more.",
        "Have the owner set the annotation that the message names.",
    ),
    Reason("RoleNotFound", REQUEST, "The PostgresRole does not exist or is not ready.", "Look at its conditions."),
)

EVENTS = (
    EventReason(
        "Normal", "CredentialRotated", REQUEST, "The Secret holds a new credential; the previous one is revoked."
    ),
    EventReason(
        "Warning",
        "SecretRecreated",
        REQUEST,
        "Somebody removed or changed the Secret: it holds a new credential.",
        "Find out who; the Secret is Leasegate's.",
    ),
    EventReason("Normal", "AccessEnded", REQUEST, "Access has ended; the Secret is removed and its lease is revoked."),
    EventReason(
        "Warning",
        "DriftCorrected",
        PLACED,
        "Somebody changed or removed something in Vault; it is as the spec says again.",
        "Find out who; change the spec instead.",
    ),
    EventReason(
        "Warning",
        "VaultCleanupSkipped",
        f"{PLACED}, Namespace",
        "The object is deleted without a cleanup in Vault, which lets nobody in.",
        "Remove by hand what the message names.",
    ),
)

INTRO = """A condition that is new or changed is also an Event with the same reason; a warning if somebody should
act. Events of a repeated failure are counted. Phases and the condition reasons that begin with `FailedTo` are those
of the KubeVault guide."""
PHASES = f"""## Phases

{ENGINE} and {ROLE} have `Processing`, `Success` or `Failed`; {REQUEST} has `WaitingForApproval`, `Approved`,
`Denied` or `Expired`. While an access request is not ready, its phase may be the reason of `Ready`."""


def render(root: Path) -> str:
    """One table each: types of conditions, their reasons, Events, and the reasons that errors of services become."""
    parts = [
        INTRO,
        "## Conditions",
        table(("type", "on", "while it is True"), _named(CONDITIONS, 0)),
        "## Reasons of conditions",
        table(("reason", "on", "meaning", "what to do"), _named(REASONS, 0)),
        "## Events without a condition",
        table(("type", "reason", "about", "meaning", "what to do"), _named(EVENTS, 1)),
        "## Reasons of errors",
        "An error of a service is the reason of `Failed`, with the service's text as its message.",
        table(("reason", "meaning and what to do"), _errors(root)),
        PHASES,
    ]
    return page(
        "Events and conditions", source="`dev/docs/events.py`, which a test holds against the code", parts=parts
    )


def _named(rows: Iterable[tuple[str, ...]], column: int) -> Iterator[list[str]]:
    """The rows with the name in a column as code."""
    for row in rows:
        cells = list(row)
        cells[column] = f"`{cells[column]}`"
        yield cells


def _errors(root: Path) -> list[tuple[str, str]]:
    listed = {row.reason for row in REASONS}
    return [
        (f"`{camel}`", meaning)
        for reason, meaning in errors.meanings(root).items()
        for camel in ["".join(word.capitalize() for word in reason.split("_"))]
        if camel not in listed and reason != "SPEC_INVALID"
    ]
