"""Converts between the messages of ``leasegate.engine.v1`` and the domain, which sees only checked fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from google.protobuf.duration_pb2 import Duration

from leasegate.engine.v1 import engine_service_pb2 as pb
from leasegate.types.v1 import types_pb2
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import DEFAULT_PLUGIN, vault_name
from services.common.sharing import check_connection, checked_namespaces, namespace_of_connection
from services.common.vault.health import VaultServer
from services.common.vault.object_ref import ObjectRef, is_vault_object
from services.common.vault.paths import mount_path
from services.common.vault.pause_report import PauseReport
from services.common.vault.quiesce_report import QuiesceReport
from services.common.vault.target import VaultTarget
from services.engine.connection import Connection
from services.engine.engines import Deleted, Ensured, Unwanted, Wanted
from services.engine.url import DatabaseUrl, ServiceAddress

_MOST_CONNECTIONS = 10_000
_LONGEST_LIFETIME_S = 10 * 365 * 86400
_MOST_ALLOWED = 1000
_ALLOWED_ROLE = re.compile(r"[A-Za-z0-9_.@*-]{1,255}")
_PLUGIN = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SECRET_CHARS = 4096


def wanted(request: pb.EnsureEngineRequest) -> Wanted:
    """Decode EnsureEngine.

    Raises:
        SpecInvalidError: A field is wrong.
        NotAllowedFromError: The connection belongs to another namespace, which does not allow this one.
    """
    owner = ObjectRef.from_proto(request.owner)
    allow_from = checked_namespaces(request.connection_allow_from, field="connection_allow_from")
    connection = _connection(request.postgres, owner, allow_from)
    check_connection(connection.name, cluster=owner.cluster_name, namespace=owner.namespace, allow_from=allow_from)
    return Wanted(
        owner=owner,
        target=VaultTarget.from_proto(request.target),
        mount=mount_path(request.mount, field="mount"),
        connection=connection,
        adopt=request.adopt_mount,
        adopt_from_cluster=request.adopt_from_cluster,
        quiesce_report=QuiesceReport.from_proto(request.quiesce_report) if request.HasField("quiesce_report") else None,
        same_database_moved=request.same_database_moved,
        last_database=request.last_database,
        shared_with=checked_namespaces(request.shared_with, field="shared_with"),
        pause_report=PauseReport.from_proto(request.pause_report) if request.HasField("pause_report") else None,
    )


def unwanted(request: pb.DeleteEngineRequest) -> Unwanted:
    """Decode DeleteEngine.

    Raises:
        SpecInvalidError: A field is wrong.
    """
    if request.connection and not is_vault_object(request.connection):
        raise SpecInvalidError.of(FieldViolation("connection", "is no name of a connection"))
    return Unwanted(
        owner=ObjectRef.from_proto(request.owner),
        target=VaultTarget.from_proto(request.target),
        mount=mount_path(request.mount, field="mount"),
        connection=request.connection,
        connection_shared=request.connection_shared,
        connection_only=request.connection_only,
        quiesce_report=QuiesceReport.from_proto(request.quiesce_report) if request.HasField("quiesce_report") else None,
    )


def ensured(wanted: Wanted, result: Ensured) -> pb.EnsureEngineResponse:
    """Encode EnsureEngine's answer."""
    return pb.EnsureEngineResponse(
        target=wanted.target.ref(),
        mount=wanted.mount,
        connection=wanted.connection.name,
        ownership=pb.MOUNT_OWNERSHIP_ADOPTED if result.adopted else pb.MOUNT_OWNERSHIP_OWNED,
        changed=result.changed,
        drift_corrected=result.drift_corrected,
        database=wanted.connection.url.where,
        plugin=wanted.connection.plugin_name,
        vault_server=_server(result.server) if result.server else None,
    )


def _server(server: VaultServer) -> pb.VaultServer:
    return pb.VaultServer(cluster_id=server.cluster_id, version=server.version)


def deleted(result: Deleted) -> pb.DeleteEngineResponse:
    """Encode DeleteEngine's answer."""
    return pb.DeleteEngineResponse(unmounted=result.unmounted, remaining_owners=result.remaining_owners)


def _connection(message: pb.PostgresConnection, owner: ObjectRef, allow_from: Sequence[str]) -> Connection:
    wrong = list(_violations(message))
    allowed_roles: tuple[str, ...] = ()
    url: DatabaseUrl | None = None
    try:
        url = _url(message.database)
        allowed_roles = _allowed_roles(message, owner, allow_from)
    except SpecInvalidError as err:
        wrong.extend(err.violations)
    if wrong or url is None:
        raise SpecInvalidError.of(*wrong)
    return Connection(
        name=message.name,
        url=url,
        username=message.database.username,
        password=message.database.password,
        plugin_name=message.plugin_name or DEFAULT_PLUGIN,
        allowed_roles=allowed_roles,
        max_open_connections=message.max_open_connections if message.max_open_connections > 0 else None,
        max_idle_connections=message.max_idle_connections or None,
        max_connection_lifetime_s=message.max_connection_lifetime.seconds or None,
    )


def _allowed_roles(message: pb.PostgresConnection, owner: ObjectRef, allow_from: Sequence[str]) -> tuple[str, ...]:
    """The database roles that may use a connection, limited to those of the namespaces that may use it.

    Vault itself then refuses a database role of another namespace, whoever wrote it.

    Raises:
        SpecInvalidError: The spec names database roles of another namespace.
    """
    asked = tuple(dict.fromkeys(message.allowed_roles))
    of = namespace_of_connection(message.name, cluster=owner.cluster_name)
    if not owner.namespace or of is None:
        return asked
    prefixes = tuple(vault_name(owner.cluster_name, namespace, "") for namespace in sorted({of, *allow_from}))
    if not asked or "*" in asked:
        return tuple(f"{prefix}*" for prefix in prefixes)
    for role in asked:
        # Vault's operator alone writes database roles whose names do not begin like those of PostgresRoles.
        if not role.startswith(prefixes) and (role.startswith("k8s.") or "*" in role):
            text = (
                f"has {role!r}, which names roles of other namespaces: {' or '.join(f'{each}*' for each in prefixes)}"
            )
            raise SpecInvalidError.of(FieldViolation("postgres.allowed_roles", text))
    return asked


def _url(message: types_pb2.Database) -> DatabaseUrl:
    kind = message.WhichOneof("address")
    if kind == "url":
        return DatabaseUrl.parse(message.url, field="postgres.database.url")
    if kind is None:
        raise SpecInvalidError.of(FieldViolation("postgres.database", "names no address: url or service"))
    parts = message.service
    address = ServiceAddress(scheme=parts.scheme, host=parts.host, port=parts.port, path=parts.path, query=parts.query)
    return DatabaseUrl.of_service(address, field="postgres.database.service")


def _violations(message: pb.PostgresConnection) -> Iterator[FieldViolation]:
    if not is_vault_object(message.name):
        yield FieldViolation("postgres.name", "is missing" if not message.name else "is no name of a connection")
    if message.plugin_name and not _PLUGIN.fullmatch(message.plugin_name):
        yield FieldViolation("postgres.plugin_name", "is no name of a plugin")
    if len(message.allowed_roles) > _MOST_ALLOWED or not all(
        _ALLOWED_ROLE.fullmatch(role) for role in message.allowed_roles
    ):
        yield FieldViolation(
            "postgres.allowed_roles", f"must be at most {_MOST_ALLOWED} names of roles in Vault, '*' permitted in them"
        )
    for name in ("max_open_connections", "max_idle_connections"):
        if abs(getattr(message, name)) > _MOST_CONNECTIONS:
            yield FieldViolation(f"postgres.{name}", f"must be at most {_MOST_CONNECTIONS}")
    if not _whole_seconds(message.max_connection_lifetime):
        yield FieldViolation(
            "postgres.max_connection_lifetime", "must be whole seconds, not negative, at most ten years"
        )
    for name in ("username", "password"):
        if problem := _text_problem(getattr(message.database, name)):
            yield FieldViolation(f"postgres.database.{name}", problem)


def _whole_seconds(span: Duration) -> bool:
    return span.nanos == 0 and 0 <= span.seconds <= _LONGEST_LIFETIME_S


def _text_problem(text: str) -> str | None:
    if len(text) > _SECRET_CHARS:
        return f"is longer than {_SECRET_CHARS} characters"
    if not text.isprintable():
        return "has characters that are not printable: look for a line end in the Secret"
    return None
