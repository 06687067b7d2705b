"""What the objects of the three kinds ask for, as the services take it.

Pure: no call, no clock; a wrong field is a SpecInvalid that names it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import duration_pb2, timestamp_pb2

from leasegate.access.v1 import access_request_pb2, approval_pb2, watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.names import DEFAULT_MOUNT, vault_name
from watcher.kube.resources import (
    ADOPT_MOUNT,
    REQUESTED_BY,
    SAME_DATABASE,
    Body,
    Key,
    annotation,
    generation_of,
    key_of,
    uid_of,
)
from watcher.specs.fields import Fields

DECISIONS = {"Approved": approval_pb2.DECISION_KIND_APPROVED, "Denied": approval_pb2.DECISION_KIND_DENIED}
MESSAGE_CHARS = 1024
DEFAULT_PLUGIN = "postgresql-database-plugin"
"""What an empty plugin name means (leasegate.engine.v1.PostgresConnection)."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster the objects are in.

    Attributes:
        name: The operator's name for it; empty if none was given.
        uid: uid of its kube-system namespace.
    """

    name: str
    uid: str

    def ref(self, obj: Body) -> types_pb2.ObjectRef:
        """Name an object with its uid and generation."""
        key = key_of(obj)
        return types_pb2.ObjectRef(
            cluster=self.name,
            cluster_uid=self.uid,
            namespace=key.namespace,
            name=key.name,
            uid=uid_of(obj),
            generation=generation_of(obj),
        )

    def is_of(self, ref: types_pb2.ObjectRef) -> bool:
        """Whether a service speaks of an object of this cluster; one without a name is ``-`` to some of them."""
        return (ref.cluster or "-", ref.cluster_uid) == (self.name or "-", self.uid)

    def place(self, key: Key) -> types_pb2.ObjectRef:
        """Name whatever object stands at a place."""
        return types_pb2.ObjectRef(cluster=self.name, cluster_uid=self.uid, namespace=key.namespace, name=key.name)

    def vault_name(self, key: Key) -> str:
        """The name in Vault of a role or connection."""
        return vault_name(self.name, key.namespace, key.name)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a SecretEngine asks for, its AppBindings not resolved yet."""

    vault: Key
    path: str
    database: Key
    adopt_mount: bool
    same_database_moved: bool
    connection: engine_service_pb2.PostgresConnection


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """What a PostgresRole asks for, its AppBinding not resolved yet.

    Attributes:
        vault: AppBinding of the Vault.
        mount: Path of the mount.
        database: AppBinding of the database; None where the connection is named directly.
        definition: The role.
    """

    vault: Key
    mount: str
    database: Key | None
    definition: role_service_pb2.RoleDefinition


def engine_spec(obj: Body, cluster: Cluster) -> EngineSpec:
    """Read a SecretEngine.

    Raises:
        SpecInvalid: Fields are wrong.
    """
    spec = Fields(obj.get("spec"), "spec")
    postgres = spec.child("postgres", required=True)
    database = _app_binding(postgres.child("databaseRef", required=True), own=key_of(obj).namespace)
    connection = engine_service_pb2.PostgresConnection(
        name=cluster.vault_name(database),
        plugin_name=postgres.text("pluginName"),
        allowed_roles=postgres.texts("allowedRoles"),
        max_open_connections=postgres.number("maxOpenConnections"),
        max_idle_connections=postgres.number("maxIdleConnections"),
        max_connection_lifetime=duration(postgres.seconds("maxConnectionLifetime")),
    )
    found = EngineSpec(
        vault=_vault(spec, own=key_of(obj).namespace),
        path=_path(spec),
        database=database,
        adopt_mount=annotation(obj, ADOPT_MOUNT) == "true",
        same_database_moved=annotation(obj, SAME_DATABASE) == "true",
        connection=connection,
    )
    spec.check()
    return found


def connection_wish(spec: EngineSpec) -> Mapping[str, object]:
    """What is asked of the connection besides its database, by the names of the fields; what means the same is equal."""
    asked = spec.connection
    roles = sorted(set(asked.allowed_roles))
    return {
        "pluginName": asked.plugin_name or DEFAULT_PLUGIN,
        "allowedRoles": ["*"] if not roles or "*" in roles else roles,
        "maxOpenConnections": max(asked.max_open_connections, 0),
        "maxIdleConnections": asked.max_idle_connections,
        "maxConnectionLifetime": asked.max_connection_lifetime.ToNanoseconds(),
    }


def role_spec(obj: Body, cluster: Cluster) -> RoleSpec:
    """Read a PostgresRole; databaseRef wins over databaseName.

    Raises:
        SpecInvalid: Fields are wrong.
    """
    spec = Fields(obj.get("spec"), "spec")
    database = _app_binding(spec.child("databaseRef"), own=key_of(obj).namespace) if spec.has("databaseRef") else None
    name = cluster.vault_name(database) if database else spec.text("databaseName")
    if not name:
        spec.wrong("databaseRef", "is missing: it, or databaseName, says which connection the role uses")
    definition = role_service_pb2.RoleDefinition(
        db_name=name,
        creation_statements=spec.texts("creationStatements", required=True),
        revocation_statements=spec.texts("revocationStatements"),
        rollback_statements=spec.texts("rollbackStatements"),
        renew_statements=spec.texts("renewStatements"),
        default_ttl=duration(spec.seconds("defaultTTL")),
        max_ttl=duration(spec.seconds("maxTTL")),
    )
    found = RoleSpec(
        vault=_vault(spec, own=key_of(obj).namespace), mount=_path(spec), database=database, definition=definition
    )
    spec.check()
    return found


def access_request(
    obj: Body, cluster: Cluster, *, secret_attempt: int
) -> watcher_service_pb2.EnsureAccessRequestRequest:
    """Read a DatabaseAccessRequest with its decisions.

    Args:
        obj: The object.
        cluster: Where it is.
        secret_attempt: Number of the attempt that its Secret holds unharmed.

    Raises:
        SpecInvalid: Fields are wrong.
    """
    spec = Fields(obj.get("spec"), "spec")
    found = watcher_service_pb2.EnsureAccessRequestRequest(
        object=cluster.ref(obj),
        db_role=cluster.place(role_key(obj, spec)),
        subjects=[access_request_pb2.Subject(**subject) for subject in _subjects(obj, spec)],
        ttl=duration(spec.seconds("ttl")),
        requester=annotation(obj, REQUESTED_BY),
        decisions=decisions(obj),
        status_digest=str(status_of(obj).get("digest") or ""),
        secret_attempt=secret_attempt,
    )
    spec.check()
    return found


def role_key(obj: Body, spec: Fields | None = None) -> Key:
    """The PostgresRole that a DatabaseAccessRequest names; wrong fields are noted in ``spec``."""
    ref = (spec or Fields(obj.get("spec"), "spec")).child("roleRef", required=True)
    if ref.text("kind", required=True) not in ("", "PostgresRole"):
        ref.wrong("kind", "only PostgresRole is supported yet")
    if ref.text("apiGroup") not in ("", "engine.kubevault.com"):
        ref.wrong("apiGroup", "must be engine.kubevault.com or be left out")
    return Key(ref.text("namespace") or key_of(obj).namespace, ref.text("name", required=True))


def decisions(obj: Body) -> list[approval_pb2.Decision]:
    """The conditions Approved and Denied in the order of the status, passed on as they stand."""
    requester = annotation(obj, REQUESTED_BY)
    return [_decision(condition, requester) for condition in conditions_of(obj) if is_decision(condition)]


def is_decision(condition: Body) -> bool:
    """Whether a condition is an approver's; one without a status counts as True, as KubeVault wrote it in 2019."""
    return condition.get("type") in DECISIONS and condition.get("status", "True") == "True"


def binding_subjects(obj: Body) -> list[Body]:
    """The subjects of a DatabaseAccessRequest as a RoleBinding takes them.

    Raises:
        SpecInvalid: A subject is wrong.
    """
    spec = Fields(obj.get("spec"), "spec")
    named = {"kind": "kind", "api_group": "apiGroup", "name": "name", "namespace": "namespace"}
    found = [{named[field]: value for field, value in subject.items() if value} for subject in _subjects(obj, spec)]
    spec.check()
    return found


def status_of(obj: Body) -> Body:
    """The status; empty where there is none."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def conditions_of(obj: Body) -> list[Body]:
    """The conditions, as they stand."""
    return [condition for condition in status_of(obj).get("conditions") or [] if isinstance(condition, dict)]


def duration(seconds: float | None) -> duration_pb2.Duration | None:
    """A span as the protos take it; None stays absent."""
    if seconds is None:
        return None
    found = duration_pb2.Duration()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def _vault(spec: Fields, *, own: str) -> Key:
    ref = spec.child("vaultRef", required=True)
    if ref.text("namespace") not in ("", own):
        ref.wrong("namespace", f"must be the object's own namespace, {own}, or be left out")
    return Key(own, ref.text("name", required=True))


def _app_binding(ref: Fields, *, own: str) -> Key:
    return Key(ref.text("namespace") or own, ref.text("name", required=True))


def _path(spec: Fields) -> str:
    return spec.text("path").strip("/") or DEFAULT_MOUNT


def _subjects(obj: Body, spec: Fields) -> list[dict[str, str]]:
    subjects = spec.children("subjects")
    if not subjects:
        spec.wrong("subjects", "needs at least one item: who may read the Secret")
    return [_subject(subject, own=key_of(obj).namespace) for subject in subjects]


def _subject(subject: Fields, *, own: str) -> dict[str, str]:
    kind = subject.text("kind", required=True)
    if kind not in ("", "ServiceAccount", "User", "Group"):
        subject.wrong("kind", "must be ServiceAccount, User or Group")
    namespace = subject.text("namespace") or (own if kind == "ServiceAccount" else "")
    return {
        "kind": kind,
        "api_group": subject.text("apiGroup"),
        "name": subject.text("name", required=True),
        "namespace": namespace,
    }


def _decision(condition: Body, requester: str) -> approval_pb2.Decision:
    approver = str(condition.get("approver") or "")
    return approval_pb2.Decision(
        kind=DECISIONS[condition["type"]],
        approver=approver,
        proof=approval_pb2.APPROVER_PROOF_ADMISSION if approver else approval_pb2.APPROVER_PROOF_NONE,
        reason=str(condition.get("reason") or ""),
        message=str(condition.get("message") or "")[:MESSAGE_CHARS],
        decide_time=_timestamp(condition.get("lastUpdateTime") or condition.get("lastTransitionTime")),
        digest=str(condition.get("digest") or ""),
        self_approved=bool(approver) and approver == requester,
    )


def _timestamp(text: object) -> timestamp_pb2.Timestamp | None:
    try:
        when = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    found = timestamp_pb2.Timestamp()
    found.FromDatetime(when.astimezone(datetime.UTC))
    return found
