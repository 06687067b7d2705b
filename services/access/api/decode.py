"""Messages as records of the domain, validated."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from typing import Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leasegate.access.v1 import approval_pb2, requester_service_pb2, watcher_service_pb2
from leasegate.roles.v1 import db_role_pb2
from leasegate.types.v1 import types_pb2
from services.access.domain import names
from services.access.domain.grant import role_words
from services.access.domain.models import Approval, DbRole, Decision, Subject
from services.access.requests.idempotency import IdempotentCall, content
from services.access.requests.requests import DesiredAccess
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.rpc import caller
from services.common.sharing import checked_namespaces
from services.common.vault.paths import is_name, mount_path
from services.common.vault.target import VaultTarget

LONGEST_PAGE, USUAL_PAGE = 500, 100
_KIND = {approval_pb2.DECISION_KIND_APPROVED: Approval.APPROVED, approval_pb2.DECISION_KIND_DENIED: Approval.DENIED}
Asking: TypeAlias = requester_service_pb2.CreateAccessRequestRequest | watcher_service_pb2.EnsureAccessRequestRequest
"""The two messages that ask for access."""
_TEXT_CHARS = 1024
_TICKET_CHARS = 256
_DATABASE_CHARS = 8192
_PLUGIN_CHARS = 128
_DEFINITION_TTLS: tuple[Literal["default_ttl", "max_ttl"], ...] = ("default_ttl", "max_ttl")
_ID_CHARS = 128
_MOST_SUBJECTS = 100
_DIGEST, _MALFORMED_DIGEST = re.compile(r"(([0-9]+:)?[0-9a-f]{64})?"), "malformed"
_FIRST_TIME, _LAST_TIME = -62_135_596_800.0, 253_402_300_799.0  # years 1 to 9999, which google.protobuf.Timestamp holds


def text(value: str, *, field: str, least: int = 0, most: int = _TEXT_CHARS) -> str:
    """A text, if its length is within bounds.

    Raises:
        SpecInvalidError: It is too short or too long.
    """
    if not least <= len(value) <= most:
        raise SpecInvalidError.of(
            FieldViolation(field, f"needs {least} to {most} characters" if value else "is missing")
        )
    return value


def call(method: str, message: Message, *, request_id: str) -> IdempotentCall:
    """A call that changes something: its caller, its id, and a digest that tells another use of that id apart."""
    text(request_id, field="request_id", least=1, most=_ID_CHARS)
    body = message.SerializeToString(deterministic=True).hex()
    return IdempotentCall(caller=caller.current(), method=method, request_id=request_id, content=content(body))


def seconds(span: Duration, *, field: str, least: float = 0.0) -> float:
    """A span in seconds.

    Raises:
        SpecInvalidError: It is shorter than ``least``.
    """
    found = span.seconds + span.nanos / 1e9
    if found < least:
        raise SpecInvalidError.of(FieldViolation(field, f"is shorter than {least:g} s"))
    return found


def ttl(message: Asking) -> float | None:
    """The field ``ttl``; None where it is absent.

    Raises:
        SpecInvalidError: It is shorter than a second.
    """
    return seconds(message.ttl, field="ttl", least=1.0) if message.HasField("ttl") else None


def reason(message: Asking) -> str:
    """The field ``reason``.

    Raises:
        SpecInvalidError: It is too long.
    """
    return text(message.reason, field="reason")


def ticket(message: Asking) -> str:
    """The field ``ticket``.

    Raises:
        SpecInvalidError: It is too long.
    """
    return text(message.ticket, field="ticket", most=_TICKET_CHARS)


def page_size(size: int) -> int:
    """The number of items of a page.

    Raises:
        SpecInvalidError: It is out of range.
    """
    if not 0 <= size <= LONGEST_PAGE:
        raise SpecInvalidError.of(FieldViolation("page_size", f"is not in 1 to {LONGEST_PAGE} (or 0 for {USUAL_PAGE})"))
    return size or USUAL_PAGE


def page_token(token: str) -> tuple[float, str] | None:
    """Time and key of the last item of the page before; None for the first page.

    Raises:
        SpecInvalidError: It is not a token of an earlier page.
    """
    if not token:
        return None
    try:
        time, _, key = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        return float.fromhex(time), key
    except (ValueError, binascii.Error, UnicodeDecodeError) as err:
        raise SpecInvalidError.of(
            FieldViolation("page_token", "is not the next_page_token of an earlier page")
        ) from err


def next_token(time: float, key: str) -> str:
    """The token of the page after the item with this time and key."""
    return base64.urlsafe_b64encode(f"{time.hex()} {key}".encode()).decode()


def desired(message: watcher_service_pb2.EnsureAccessRequestRequest) -> DesiredAccess:
    """The desired state of an access request of Kubernetes.

    Raises:
        SpecInvalidError: A field is missing or wrong.
    """
    ref, role = message.object, message.db_role
    wrong = [] if message.subjects else [FieldViolation("subjects", "needs at least one")]
    wrong += [FieldViolation("db_role.name", "is missing")] if not role.name else []
    wrong += (
        [FieldViolation("subjects", f"has more than {_MOST_SUBJECTS}")]
        if len(message.subjects) > _MOST_SUBJECTS
        else []
    )
    if wrong:
        raise SpecInvalidError.of(*wrong)
    return DesiredAccess(
        uid=text(ref.uid, field="object.uid", least=1, most=_ID_CHARS),
        cluster=cluster(ref),
        cluster_uid=ref.cluster_uid,
        namespace=text(ref.namespace, field="object.namespace", least=1),
        name=text(ref.name, field="object.name", least=1),
        generation=ref.generation,
        role_namespace=role.namespace or ref.namespace,
        role_name=role.name,
        subjects=tuple(
            Subject(kind=s.kind, api_group=s.api_group, name=s.name, namespace=s.namespace) for s in message.subjects
        ),
        ttl_s=ttl(message),
        requester=message.requester,
        decisions=tuple(_decision(d) for d in message.decisions),
        status_digest=message.status_digest,
        reason=reason(message),
        ticket=ticket(message),
        on_behalf_of=message.on_behalf_of[:_TEXT_CHARS],
        verified_by=message.verified_by[:_TEXT_CHARS],
    )


def deleted(ref: types_pb2.ObjectRef) -> DesiredAccess:
    """An access request of Kubernetes whose object is deleted.

    Raises:
        SpecInvalidError: It has no uid.
    """
    return DesiredAccess(
        uid=text(ref.uid, field="object.uid", least=1, most=_ID_CHARS),
        cluster=cluster(ref),
        cluster_uid=ref.cluster_uid,
        namespace=ref.namespace,
        name=ref.name,
        generation=ref.generation,
        role_namespace="",
        role_name="",
        subjects=(),
        ttl_s=None,
        requester="",
        decisions=(),
        status_digest="",
    )


def _decision(d: approval_pb2.Decision) -> Decision:
    """Read a decision. A denial counts whatever else is wrong with it, so that nothing but its kind is refused."""
    kind = _KIND.get(d.kind)
    if kind is None:
        raise SpecInvalidError.of(FieldViolation("decisions.kind", "is neither approved nor denied"))
    return Decision(
        kind=kind,
        approver=d.approver[:_TEXT_CHARS],
        proof=d.proof,
        reason=d.reason[:_TEXT_CHARS],
        message=d.message[: 4 * _TEXT_CHARS],
        decided_at=min(max(d.decide_time.seconds + d.decide_time.nanos / 1e9, _FIRST_TIME), _LAST_TIME),
        sent_digest=d.digest if _DIGEST.fullmatch(d.digest) else _MALFORMED_DIGEST,
        digest="",
        self_approved=d.self_approved,
    )


def target(ref: types_pb2.VaultTargetRef, *, cluster_uid: str) -> VaultTarget:
    """The Vault that a reference names, as the caller says it: one of its cluster, or of the operator's catalog file.

    Args:
        ref: The reference.
        cluster_uid: uid of the caller's cluster.

    Raises:
        SpecInvalidError: It has no name or no address.
    """
    return replace(VaultTarget.from_ref(ref), cluster_uid=cluster_uid if ref.namespace else "")


def cluster(ref: types_pb2.ObjectRef) -> str:
    """Name of an object's cluster: ``-`` for one without a name, empty outside Kubernetes."""
    return (ref.cluster or "-") if ref.namespace else ""


def mount(path: str) -> str:
    """The path of a mount.

    Raises:
        SpecInvalidError: It is not one.
    """
    return mount_path(path, field="mount")


def db_role(snapshot: db_role_pb2.DbRoleSnapshot, *, at: VaultTarget) -> DbRole:
    """A db_role as the role service wrote it; its id and its Vault's are not known yet.

    Its digest is computed from the other fields: the one that the caller sends counts for nothing.

    Args:
        snapshot: As the caller sent it.
        at: Its Vault, as the operator's file names it.

    Raises:
        SpecInvalidError: A field is missing or wrong.
    """
    ref, definition = snapshot.object, snapshot.definition
    for field, name in (("vault_role", snapshot.vault_role), ("definition.db_name", definition.db_name)):
        if not is_name(name):
            raise SpecInvalidError.of(FieldViolation(f"snapshot.{field}", "is not a valid name in Vault"))
    path = mount_path(snapshot.mount, field="snapshot.mount")
    statements = {
        "creation": tuple(definition.creation_statements),
        "revocation": tuple(definition.revocation_statements),
        "rollback": tuple(definition.rollback_statements),
        "renew": tuple(definition.renew_statements),
    }
    ttls: dict[str, float | None] = {
        name: seconds(getattr(definition, name), field=name) if definition.HasField(name) else None
        for name in _DEFINITION_TTLS
    }
    database = text(snapshot.database, field="snapshot.database", most=_DATABASE_CHARS)
    plugin = text(snapshot.plugin, field="snapshot.plugin", most=_PLUGIN_CHARS)
    return DbRole(
        id=0,
        cluster=cluster(ref),
        cluster_uid=ref.cluster_uid,
        namespace=ref.namespace,
        name=text(ref.name, field="snapshot.object.name", least=1),
        target=0,
        mount=path,
        vault_role=snapshot.vault_role,
        db_name=definition.db_name,
        revocation_statements=statements["revocation"],
        default_ttl_s=ttls["default_ttl"],
        max_ttl_s=ttls["max_ttl"],
        digest=names.role_digest(
            vault=at.digest,
            database=database,
            plugin=plugin,
            mount=path,
            vault_role=snapshot.vault_role,
            definition={"db_name": definition.db_name, **statements, **ttls},
        ),
        deleted=False,
        words=role_words(vault=vault_words(at), database=database, plugin=plugin, **statements),
        allow_from=checked_namespaces(snapshot.allow_from, field="snapshot.allow_from"),
        allow_subjects_from=checked_namespaces(snapshot.allow_subjects_from, field="snapshot.allow_subjects_from"),
    )


def vault_words(at: VaultTarget) -> str:
    """A Vault as an approver is shown it."""
    where = f"{at.address} namespace {at.vault_namespace}" if at.vault_namespace else at.address
    return f"{at.vault} ({where})" if at.vault else where
