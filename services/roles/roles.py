"""Roles of database engines: teams' roles, and the cleanup roles by which access ends a login that no lease knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.common.errors import DbRoleNotReadyError, MountConflictError, VaultPolicyMissingError
from services.common.logs import logger
from services.common.vault.client import Vault
from services.common.vault.mounts import DATABASE, Mount, being_removed, read_mount
from services.common.vault.object_ref import NO_CLUSTER, ObjectRef
from services.common.vault.quiesce_report import QuiesceReport, require
from services.common.vault.response import VaultNotFoundError
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.roles.definition import Definition, cleanup_role

_LOG = logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The role that an owner asks for.

    Attributes:
        owner: The PostgresRole.
        target: The Vault.
        mount: Path of the mount.
        definition: The role.
        quiesce_report: access' answer, where the connection changes.
        last_db_name: Its connection at the owner's last success; empty if that is not known.
    """

    owner: ObjectRef
    target: VaultTarget
    mount: str
    definition: Definition
    quiesce_report: QuiesceReport | None = None
    last_db_name: str = ""


@dataclass(frozen=True, slots=True)
class Ensured:
    """The role as it is written now.

    Attributes:
        definition: As Vault runs it.
        digest: What an approver approves of it.
        changed: Whether anything was written.
        narrowed: Whether the login had no more than this service's policy.
    """

    definition: Definition
    digest: str
    changed: bool
    narrowed: bool


@dataclass(frozen=True, slots=True)
class CleanupRoleWanted:
    """The cleanup role that access asks for."""

    target: VaultTarget
    mount: str
    name: str
    db_name: str
    revocation_statements: tuple[str, ...] = ()
    finish: bool = False


class DbRoles:
    """Writes and removes roles; safe for many threads."""

    def __init__(self, sessions: Sessions, *, now: Callable[[], float] = time.time) -> None:
        """Nothing is sent.

        Args:
            sessions: Logins at Vaults, within the role service's scope.
            now: Unix time, seconds.
        """
        self._sessions = sessions
        self._now = now

    def ensure(self, wanted: Wanted) -> Ensured:
        """Write the role unless Vault has it so already.

        Raises:
            DbRoleNotReadyError: The mount is not there yet.
            MountConflictError: The mount is no database engine of this cluster's.
            LeasesInUse: db_name would change, and leases may depend on it.
            LeasegateError: Login or Vault failed.
        """
        vault = self._sessions.team(wanted.target)
        _check_usable(_read_mount(vault, wanted.mount), wanted)
        name, definition = wanted.owner.vault_name, wanted.definition.resolved()
        changed = self._write(vault, wanted, name=name, definition=definition)
        digest = definition.digest(mount=wanted.mount, vault_role=name)
        return Ensured(
            definition=definition, digest=digest, changed=changed, narrowed=self._sessions.narrowed(wanted.target)
        )

    def delete(self, owner: ObjectRef, target: VaultTarget, mount: str) -> None:
        """Remove the role; its leases live on to their end. One on another cluster's mount, or one that we never wrote,
        is not touched.

        Raises:
            LeasegateError: Login or Vault failed; a 403 too, as it says nothing about the role.
        """
        vault = self._sessions.ending(target)
        found = _read_mount(vault, mount)
        if found is None or found.marker is None or found.marker.cluster != owner.cluster_id:
            return
        _delete(vault, mount, owner.vault_name)
        _LOG.info("role removed", mount=mount, role=owner.vault_name)

    def ensure_cleanup_role(self, wanted: CleanupRoleWanted) -> None:
        """Write a cleanup role unless Vault has it so already. Whose the mount is does not matter: a login of ours is to be
        ended there.

        Raises:
            DbRoleNotReadyError: The mount is not there.
            MountConflictError: The mount is no database engine.
            LeasegateError: Login or Vault failed.
        """
        vault = self._sessions.ending(wanted.target)
        _check_database(_read_mount(vault, wanted.mount), mount_path=wanted.mount, role=wanted.name)
        definition = cleanup_role(
            db_name=wanted.db_name, revocation_statements=wanted.revocation_statements, finish=wanted.finish
        )
        shown = _read(vault, wanted.mount, wanted.name)
        if shown is None or not definition.is_in(shown):
            _write(vault, wanted.mount, wanted.name, definition)
            _LOG.info("cleanup role written", mount=wanted.mount, role=wanted.name, finish=wanted.finish)

    def delete_cleanup_role(self, target: VaultTarget, mount: str, name: str) -> None:
        """Remove a cleanup role.

        Raises:
            LeasegateError: Login or Vault failed.
        """
        _delete(self._sessions.ending(target), mount, name)

    def _write(self, vault: Vault, wanted: Wanted, *, name: str, definition: Definition) -> bool:
        shown = _read(vault, wanted.mount, name)
        if shown is not None and definition.is_in(shown):
            return False
        # What leases depend on is what we wrote; what Vault shows may have been written by somebody else, and is put
        # back at once.
        before = wanted.last_db_name or str((shown or {}).get("db_name") or "")
        if before and before != definition.db_name:
            what = f"db_name of the role {name} can change"
            require(
                wanted.quiesce_report, wanted.target, mount=wanted.mount, connection=before, now=self._now(), what=what
            )
        _write(vault, wanted.mount, name, definition)
        _LOG.info("role written", mount=wanted.mount, role=name)
        return True


def _read_mount(vault: Vault, path: str) -> Mount | None:
    try:
        return read_mount(vault, path)
    except VaultPolicyMissingError as err:
        hint = "Either the operator does not permit this mount, or the login's role lacks the policy leasegate-roles"
        raise VaultPolicyMissingError(f"{err.message}. {hint}.", path=f"sys/mounts/{path}") from err


def _check_database(mount: Mount | None, *, mount_path: str, role: str) -> Mount:
    """Refuse what roles cannot be written to.

    Raises:
        DbRoleNotReadyError: Nothing is mounted yet.
        MountConflictError: It is no database engine.
    """
    if mount is None:
        raise DbRoleNotReadyError(
            f"nothing is mounted at {mount_path} yet: the SecretEngine has to be there first", db_role=role
        )
    if mount.type != DATABASE:
        raise MountConflictError(
            f"an engine of type {mount.type} is mounted at {mount_path}", path=mount_path, type=mount.type
        )
    return mount


def _check_usable(found: Mount | None, wanted: Wanted) -> None:
    """Refuse a mount that no SecretEngine of this cluster uses.

    Raises:
        DbRoleNotReadyError: Nothing is mounted, or nobody lets the mount be used, yet.
        MountConflictError: It is no database engine of this cluster's.
    """
    role = wanted.owner.vault_name
    mount = _check_database(found, mount_path=wanted.mount, role=role)
    marker = mount.marker
    if marker is None or not marker.owners:
        raise DbRoleNotReadyError(f"no SecretEngine of Leasegate uses the mount {mount.path} yet", db_role=role)
    if marker.cluster != wanted.owner.cluster_id:
        whose = f"cluster {marker.cluster}" if marker.cluster != NO_CLUSTER else "callers outside Kubernetes"
        raise MountConflictError(
            f"the mount {mount.path} belongs to {whose}: choose another path", path=mount.path, owner=marker.cluster
        )


def _read(vault: Vault, mount: str, name: str) -> dict[str, object] | None:
    try:
        return dict(vault.read(f"{mount}/roles/{name}").data)
    except VaultNotFoundError as err:
        if err.no_mount:
            raise being_removed(mount) from err
        return None


def _write(vault: Vault, mount: str, name: str, definition: Definition) -> None:
    try:
        vault.write(f"{mount}/roles/{name}", definition.payload())
    except VaultNotFoundError as err:
        raise being_removed(mount) from err


def _delete(vault: Vault, mount: str, name: str) -> None:
    try:
        vault.delete(f"{mount}/roles/{name}")
    except VaultNotFoundError:
        return
