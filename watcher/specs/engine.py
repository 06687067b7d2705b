"""SecretEngine: the mount and the connection that it asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leasegate.engine.v1 import engine_service_pb2
from services.common.names import DEFAULT_PLUGIN
from watcher.kube.resources import Body, Key, annotation, key_of
from watcher.specs.cluster import Cluster
from watcher.specs.fields import Fields
from watcher.specs.kinds import ADOPT_MOUNT, SAME_DATABASE
from watcher.specs.references import app_binding_ref, mount_path, vault_ref


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a SecretEngine asks for, its AppBindings not resolved yet.

    Attributes:
        vault: AppBinding of the Vault.
        path: Path of the mount.
        database: AppBinding of the database.
        adopt_mount: Whether a mount that exists already is wanted.
        adopt_from_cluster: uid of the cluster that was rebuilt as this one, whose mount is wanted; empty for none.
        same_database_moved: The place to which an operator says that the same database moved; empty for none.
        connection: Settings of the connection; the database itself is filled in later.
    """

    vault: Key
    path: str
    database: Key
    adopt_mount: bool
    adopt_from_cluster: str
    same_database_moved: str
    connection: engine_service_pb2.PostgresConnection


def engine_spec(obj: Body, cluster: Cluster) -> EngineSpec:
    """Read a SecretEngine.

    Raises:
        SpecInvalidError: Names each wrong field.
    """
    spec, own = Fields(obj.get("spec"), "spec"), key_of(obj).namespace
    postgres = spec.child("postgres", required=True)
    database = app_binding_ref(postgres.child("databaseRef", required=True), own=own)
    connection = engine_service_pb2.PostgresConnection(
        name=cluster.vault_name(database),
        plugin_name=postgres.text("pluginName"),
        allowed_roles=postgres.texts("allowedRoles"),
        max_open_connections=postgres.number("maxOpenConnections"),
        max_idle_connections=postgres.number("maxIdleConnections"),
        max_connection_lifetime=postgres.duration("maxConnectionLifetime"),
    )
    found = EngineSpec(
        vault=vault_ref(spec, own=own),
        path=mount_path(spec),
        database=database,
        adopt_mount=annotation(obj, ADOPT_MOUNT) == "true",
        adopt_from_cluster=_former_cluster(annotation(obj, ADOPT_MOUNT)),
        same_database_moved=annotation(obj, SAME_DATABASE).strip(),
        connection=connection,
    )
    spec.check()
    return found


def _former_cluster(word: str) -> str:
    """The cluster in the annotation ``adopt-mount: from-cluster:UID``; empty for any other word."""
    prefix, colon, uid = word.partition(":")
    return uid if prefix == "from-cluster" and colon else ""


def connection_settings(spec: EngineSpec) -> Mapping[str, object]:
    """The settings of a connection by field name, without its database; settings that mean the same are equal."""
    asked = spec.connection
    roles = sorted(set(asked.allowed_roles))
    return {
        "pluginName": asked.plugin_name or DEFAULT_PLUGIN,
        "allowedRoles": ["*"] if not roles or "*" in roles else roles,
        "maxOpenConnections": max(asked.max_open_connections, 0),
        "maxIdleConnections": asked.max_idle_connections,
        "maxConnectionLifetime": asked.max_connection_lifetime.ToNanoseconds(),
    }
