"""Indexes of the watcher's caches: which objects use an AppBinding, a mount, a db_role or a Secret. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

from services.common.errors import SpecInvalidError
from watcher.kube.resources import Body, Key, Resource, key_of
from watcher.specs import appbinding
from watcher.specs.fields import Fields
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE
from watcher.specs.references import app_binding_ref, connection_owner, db_role_of, mount_of, vault_ref
from watcher.specs.status import EngineStatus

BY_APP_BINDING = "app_binding"
"""SecretEngines and PostgresRoles by each AppBinding (Key) that they use."""
BY_VAULT = "vault"
"""SecretEngines and PostgresRoles by the AppBinding (Key) of their Vault."""
BY_DATABASE = "database"
"""SecretEngines and PostgresRoles by the AppBinding (Key) of their database."""
BY_MOUNT = "mount"
"""SecretEngines and PostgresRoles by the path of the mount in their spec."""
BY_RECORDED_MOUNT = "recorded_mount"
"""SecretEngines by the path of the mount in their status."""
BY_DB_ROLE = "db_role"
"""DatabaseAccessRequests by the PostgresRole (Key) that they name."""
BY_SECRET = "secret"  # noqa: S105
"""AppBindings by each Secret (Key) that they read."""


def used_app_bindings(obj: Body) -> set[Key]:
    """The AppBindings that a SecretEngine or PostgresRole names, and the one that its status records."""
    found = {*_vault(obj), *_databases(obj)}
    if target := EngineStatus.from_object(obj).target:
        found.add(target.app_binding)
    return {key for key in found if key.name}


def secrets_of(binding: Body) -> set[Key]:
    """The Secrets that an AppBinding reads; none where its spec is wrong."""
    try:
        return {Key(key_of(binding).namespace, name) for name in appbinding.secret_names(binding)}
    except SpecInvalidError:
        return set()


def _vault(obj: Body) -> Iterable[Key]:
    return [vault_ref(Fields(obj.get("spec"), "spec"), own=key_of(obj).namespace)]


def _databases(obj: Body) -> Iterable[Key]:
    spec, own = Fields(obj.get("spec"), "spec"), key_of(obj).namespace
    # A PostgresRole has databaseRef in spec itself, or names the connection, which belongs to an AppBinding as well.
    named = [spec.child("postgres").child("databaseRef"), spec.child("databaseRef")]
    found = [key for ref in named if (key := app_binding_ref(ref, own=own)).name]
    owner = None if spec.has("databaseRef") else connection_owner(spec.text("databaseName"))
    return [*found, owner] if owner else found


def _mount(obj: Body) -> Iterable[str]:
    return [mount_of(obj)]


def _recorded_mount(obj: Body) -> Iterable[str]:
    status = EngineStatus.from_object(obj)
    return [status.path] if status.target else []


def _db_role(obj: Body) -> Iterable[Key]:
    return [db_role_of(obj)]


INDEXERS: Mapping[Resource, Mapping[str, Callable[[Body], Iterable[Hashable]]]] = {
    APP_BINDING: {BY_SECRET: secrets_of},
    SECRET_ENGINE: {
        BY_APP_BINDING: used_app_bindings,
        BY_VAULT: _vault,
        BY_DATABASE: _databases,
        BY_MOUNT: _mount,
        BY_RECORDED_MOUNT: _recorded_mount,
    },
    POSTGRES_ROLE: {BY_APP_BINDING: used_app_bindings, BY_VAULT: _vault, BY_DATABASE: _databases, BY_MOUNT: _mount},
    ACCESS_REQUEST: {BY_DB_ROLE: _db_role},
}
"""The indexes of each kind, by name."""
