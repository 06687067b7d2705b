"""References between objects: which AppBindings, which mount and which PostgresRole an object names. Pure."""

from __future__ import annotations

from services.common.names import DEFAULT_MOUNT
from watcher.kube.resources import Body, Key, key_of
from watcher.specs.fields import Fields


def vault_ref(spec: Fields, *, own: str) -> Key:
    """The AppBinding of the Vault in ``spec.vaultRef``, which has to be in the object's own namespace."""
    ref = spec.child("vaultRef", required=True)
    if ref.text("namespace") not in ("", own):
        ref.wrong("namespace", f"must be the object's own namespace, {own}, or be left out")
    return Key(own, ref.text("name", required=True))


def app_binding_ref(ref: Fields, *, own: str) -> Key:
    """An AppBinding in any namespace; the object's own where none is named."""
    return Key(ref.text("namespace") or own, ref.text("name", required=True))


def connection_owner(connection: str) -> Key | None:
    """The AppBinding that a connection in Vault belongs to by its name, whatever its cluster; None for any other."""
    parts = connection.split(".", 3)
    return Key(*parts[2:]) if len(parts) == 4 and parts[0] == "k8s" and all(parts) else None


def mount_path(spec: Fields) -> str:
    """The mount in ``spec.path``, without slashes at its ends; Vault's default where none is given."""
    return spec.text("path").strip("/") or DEFAULT_MOUNT


def mount_of(obj: Body) -> str:
    """The mount that a SecretEngine or PostgresRole names, whatever else is wrong with it."""
    return mount_path(Fields(obj.get("spec"), "spec"))


def db_role_ref(spec: Fields, *, own: str) -> Key:
    """The PostgresRole in ``spec.roleRef`` of a DatabaseAccessRequest."""
    ref = spec.child("roleRef", required=True)
    if ref.text("kind", required=True) not in ("", "PostgresRole"):
        ref.wrong("kind", "only PostgresRole is supported yet")
    if ref.text("apiGroup") not in ("", "engine.kubevault.com"):
        ref.wrong("apiGroup", "must be engine.kubevault.com or be left out")
    return Key(ref.text("namespace") or own, ref.text("name", required=True))


def db_role_of(obj: Body) -> Key:
    """The PostgresRole that a DatabaseAccessRequest names, whatever else is wrong with it."""
    return db_role_ref(Fields(obj.get("spec"), "spec"), own=key_of(obj).namespace)
