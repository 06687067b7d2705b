"""Converts between the messages of ``leasegate.roles.v1`` and the domain, which sees only checked fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from google.protobuf.duration_pb2 import Duration

from leasegate.roles.v1 import db_role_pb2
from leasegate.roles.v1 import role_service_pb2 as pb
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import CLEANUP_ROLE_PREFIX
from services.common.sharing import checked_namespaces
from services.common.vault.database_statements import as_stored
from services.common.vault.object_ref import ObjectRef, is_vault_object
from services.common.vault.paths import mount_path
from services.common.vault.pause_report import PauseReport
from services.common.vault.quiesce_report import QuiesceReport
from services.common.vault.target import VaultTarget
from services.roles.definition import Definition
from services.roles.roles import CleanupRoleWanted, Ensured, Wanted

MOST_STATEMENTS = 64
MOST_STATEMENT_BYTES = 64 << 10
_LONGEST_TTL_S = 10 * 365 * 86400
_LISTS = ("creation_statements", "revocation_statements", "rollback_statements", "renew_statements")
_CLEANUP_ROLE = re.compile(rf"{re.escape(CLEANUP_ROLE_PREFIX)}[0-9a-f]{{12}}")
_NAMES = ("{{name}}", "{{username}}")


def wanted(request: pb.EnsureDbRoleRequest) -> Wanted:
    """Decode EnsureDbRole.

    Raises:
        SpecInvalidError: A field is wrong.
    """
    return Wanted(
        owner=ObjectRef.from_proto(request.owner),
        target=VaultTarget.from_proto(request.target),
        mount=mount_path(request.mount, field="mount"),
        definition=_definition(request.definition),
        quiesce_report=QuiesceReport.from_proto(request.quiesce_report) if request.HasField("quiesce_report") else None,
        last_db_name=request.last_db_name,
        connection_allow_from=checked_namespaces(request.connection_allow_from, field="connection_allow_from"),
        pause_report=PauseReport.from_proto(request.pause_report) if request.HasField("pause_report") else None,
    )


def cleanup_role_wanted(request: pb.EnsureCleanupRoleRequest) -> CleanupRoleWanted:
    """Decode EnsureCleanupRole.

    Raises:
        SpecInvalidError: A field is wrong.
    """
    wrong = [
        *_connection_violations(request.connection, "connection"),
        *_list("revocation_statements", request.revocation_statements, ""),
    ]
    if wrong:
        raise SpecInvalidError.of(*wrong)
    return CleanupRoleWanted(
        target=VaultTarget.from_proto(request.target),
        mount=mount_path(request.mount, field="mount"),
        name=cleanup_role_name(request.name),
        connection=request.connection,
        revocation_statements=as_stored(request.revocation_statements),
        force_drop=request.force_drop,
        keep_owners=request.keep_owners,
    )


def cleanup_role_name(name: str) -> str:
    """Check the name of a cleanup role.

    Raises:
        SpecInvalidError: It is none, so that no team's role is ever touched under it.
    """
    if not _CLEANUP_ROLE.fullmatch(name):
        raise SpecInvalidError.of(FieldViolation("name", f"must be {CLEANUP_ROLE_PREFIX} and 12 hexadecimal digits"))
    return name


def ensured(wanted: Wanted, request: pb.EnsureDbRoleRequest, result: Ensured) -> pb.EnsureDbRoleResponse:
    """Encode EnsureDbRole's answer."""
    snapshot = db_role_pb2.DbRoleSnapshot(
        object=request.owner,
        target=wanted.target.ref(),
        mount=wanted.mount,
        vault_role=wanted.owner.vault_name,
        definition=_encoded(result.definition),
        digest=result.digest,
    )
    return pb.EnsureDbRoleResponse(snapshot=snapshot, changed=result.changed)


def _encoded(definition: Definition) -> db_role_pb2.DbRoleDefinition:
    return db_role_pb2.DbRoleDefinition(
        db_name=definition.db_name,
        creation_statements=definition.creation_statements,
        revocation_statements=definition.revocation_statements,
        rollback_statements=definition.rollback_statements,
        renew_statements=definition.renew_statements,
        default_ttl=Duration(seconds=definition.default_ttl_s) if definition.default_ttl_s else None,
        max_ttl=Duration(seconds=definition.max_ttl_s) if definition.max_ttl_s else None,
    )


def _definition(message: db_role_pb2.DbRoleDefinition) -> Definition:
    wrong = list(_violations(message))
    if wrong:
        raise SpecInvalidError.of(*wrong)
    return Definition(
        db_name=message.db_name,
        creation_statements=as_stored(message.creation_statements),
        revocation_statements=as_stored(message.revocation_statements),
        rollback_statements=as_stored(message.rollback_statements),
        renew_statements=as_stored(message.renew_statements),
        default_ttl_s=message.default_ttl.seconds,
        max_ttl_s=message.max_ttl.seconds,
    )


def _violations(message: db_role_pb2.DbRoleDefinition) -> Iterator[FieldViolation]:
    yield from _connection_violations(message.db_name, "definition.db_name")
    for name in _LISTS:
        yield from _list(name, getattr(message, name), "definition.")
    if not message.creation_statements:
        yield FieldViolation(
            "definition.creation_statements", "is missing: at least one statement creates the database user"
        )
    elif not any(name in statement for statement in message.creation_statements for name in _NAMES):
        yield FieldViolation(
            "definition.creation_statements", "name no database user: {{name}} marks where Vault puts its name"
        )
    has_default, has_max = message.HasField("default_ttl"), message.HasField("max_ttl")
    if has_default:
        yield from _ttl("definition.default_ttl", message.default_ttl)
    if has_max:
        yield from _ttl("definition.max_ttl", message.max_ttl)
    if has_default and has_max and message.default_ttl.seconds > message.max_ttl.seconds:
        yield FieldViolation("definition.default_ttl", "is longer than max_ttl")


def _connection_violations(text: str, field: str) -> Iterator[FieldViolation]:
    if not is_vault_object(text):
        yield FieldViolation(field, "is missing: it names the connection" if not text else "is no name of a connection")


def _ttl(field: str, span: Duration) -> Iterator[FieldViolation]:
    if span.nanos or not 1 <= span.seconds <= _LONGEST_TTL_S:
        yield FieldViolation(
            field, "must be whole seconds, at least one and at most ten years; leave it out for the mount's own"
        )


def _list(name: str, statements: Sequence[str], prefix: str) -> Iterator[FieldViolation]:
    if len(statements) > MOST_STATEMENTS:
        yield FieldViolation(
            f"{prefix}{name}", f"has {len(statements)} statements; at most {MOST_STATEMENTS} are taken"
        )
    for number, statement in enumerate(statements[:MOST_STATEMENTS]):
        if problem := _statement_problem(statement):
            yield FieldViolation(f"{prefix}{name}[{number}]", problem)


def _statement_problem(statement: str) -> str | None:
    if not statement.strip():
        return "is empty"
    if len(statement.encode()) > MOST_STATEMENT_BYTES:
        return f"is longer than {MOST_STATEMENT_BYTES >> 10} KiB"
    return "has a NUL character" if "\0" in statement else None
