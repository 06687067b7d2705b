"""PostgresRole: the Vault database role that it asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from leasegate.roles.v1 import db_role_pb2
from watcher.kube.resources import Body, Key, key_of
from watcher.specs.cluster import Cluster
from watcher.specs.fields import Fields
from watcher.specs.references import app_binding_ref, mount_path, vault_ref


@dataclass(frozen=True, slots=True)
class DbRoleSpec:
    """What a PostgresRole asks for, its AppBinding not resolved yet.

    Attributes:
        vault: AppBinding of the Vault.
        mount: Path of the mount.
        database: AppBinding of the database; None where the connection is named directly.
        connection_owner: AppBinding that the connection belongs to, named or not; None for an operator's connection.
        definition: The Vault database role.
    """

    vault: Key
    mount: str
    database: Key | None
    connection_owner: Key | None
    definition: db_role_pb2.DbRoleDefinition


def db_role_spec(obj: Body, cluster: Cluster) -> DbRoleSpec:
    """Read a PostgresRole; databaseRef wins over databaseName.

    Raises:
        SpecInvalidError: Names each wrong field.
    """
    spec, own = Fields(obj.get("spec"), "spec"), key_of(obj).namespace
    database = app_binding_ref(spec.child("databaseRef"), own=own) if spec.has("databaseRef") else None
    name = cluster.vault_name(database) if database else spec.text("databaseName")
    if not name:
        spec.wrong("databaseRef", "is missing: it, or databaseName, says which connection the role uses")
    definition = db_role_pb2.DbRoleDefinition(
        db_name=name,
        creation_statements=spec.texts("creationStatements", required=True),
        revocation_statements=spec.texts("revocationStatements"),
        rollback_statements=spec.texts("rollbackStatements"),
        renew_statements=spec.texts("renewStatements"),
        default_ttl=spec.duration("defaultTTL"),
        max_ttl=spec.duration("maxTTL"),
    )
    found = DbRoleSpec(
        vault=vault_ref(spec, own=own),
        mount=mount_path(spec),
        database=database,
        connection_owner=database or cluster.app_binding_of(name),
        definition=definition,
    )
    spec.check()
    return found
