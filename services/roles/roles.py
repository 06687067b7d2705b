"""Writes and removes database roles: those of PostgresRoles, and the cleanup roles.

access revokes a lease of a cleanup role to drop a database user that no lease knows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from services.common.errors import (
    DbRoleNotReadyError,
    MountConflictError,
    NotAllowedFromError,
    VaultPolicyMissingError,
    writes_nothing,
)
from services.common.logs import logger
from services.common.sharing import check_connection, namespace_of_connection
from services.common.vault.client import Vault
from services.common.vault.mounts import DATABASE, Mount, being_removed, read_mount
from services.common.vault.object_ref import NO_CLUSTER, ObjectRef
from services.common.vault.pause_report import LeaseRevocation, PauseReport, require_pause_report
from services.common.vault.quiesce_report import QuiesceReport, require_quiesce_report
from services.common.vault.response import VaultNotFoundError
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.roles.definition import Definition, cleanup_role

_LOG = logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The database role that an owner asks for.

    Attributes:
        owner: The PostgresRole.
        target: The Vault server.
        mount: Path of the mount.
        definition: The definition.
        quiesce_report: The report of access, where the connection changes.
        last_db_name: The connection of the owner's last success; empty if it is not known.
        connection_allow_from: Namespaces that may use the connection beside the one in its name.
        pause_report: The report of access that the role is paused, where anything is written.
    """

    owner: ObjectRef
    target: VaultTarget
    mount: str
    definition: Definition
    quiesce_report: QuiesceReport | None = None
    last_db_name: str = ""
    connection_allow_from: tuple[str, ...] = ()
    pause_report: PauseReport | None = None


@dataclass(frozen=True, slots=True)
class Ensured:
    """The database role as it is written now.

    Attributes:
        definition: As its owner wrote it.
        digest: What an approver approves of it.
        changed: Whether anything was written.
    """

    definition: Definition
    digest: str
    changed: bool


@dataclass(frozen=True, slots=True)
class CleanupRoleWanted:
    """The cleanup role that access asks for.

    Attributes:
        target: The Vault server.
        mount: Path of the mount.
        name: Name in Vault.
        connection: Name of the connection.
        revocation_statements: Those of the attempt's database role; empty for Vault's default.
        force_drop: Whether PostgreSQL refused to drop the user, so that Leasegate's own statements have to.
        keep_owners: With ``force_drop``: whether they drop it only if it owns nothing.
    """

    target: VaultTarget
    mount: str
    name: str
    connection: str
    revocation_statements: tuple[str, ...] = ()
    force_drop: bool = False
    keep_owners: bool = False


class DbRoles:
    """Writes and removes database roles. Safe for many threads."""

    def __init__(self, sessions: Sessions, *, now: Callable[[], float] = time.time) -> None:
        """Take the sessions; sends nothing.

        Args:
            sessions: Sessions at Vault servers, within the role service's scope.
            now: Unix time, seconds.
        """
        self._sessions = sessions
        self._now = now

    def ensure_db_role(self, wanted: Wanted) -> Ensured:
        """Write the database role unless Vault has it as asked for.

        Raises:
            DbRoleNotReadyError: The mount does not exist yet.
            MountConflictError: The mount is no database secrets engine of this cluster.
            NotAllowedFromError: The mount or the connection belongs to another namespace, which does not share it.
            LeasesInUseError: db_name would change, and leases may depend on it.
            ChangeDueError: Something would be written, and access may issue credentials for the role.
            LeasegateError: The session or Vault failed.
        """
        name, definition = wanted.owner.vault_name, wanted.definition
        with writes_nothing():
            vault = self._sessions.acting_vault(wanted.target)
            _check_usable(_read_mount(vault, wanted.mount), wanted)
            shown = _read_db_role(vault, wanted.mount, name)
            changed = shown is None or not definition.resolved().is_in(shown)
            if changed:
                self._check_connection(wanted, definition, shown)
                self._check_paused(wanted)
        if changed:
            _write_db_role(vault, wanted.mount, name, definition.resolved())
            _LOG.info("database role written", mount=wanted.mount, db_role=name)
        return Ensured(
            definition=definition,
            digest=definition.digest(mount=wanted.mount, vault_role=name),
            changed=changed,
        )

    def delete_db_role(self, owner: ObjectRef, target: VaultTarget, mount: str) -> None:
        """Remove the database role; its leases expire as before.

        A database role on a mount of another cluster, or without a marker, is left as it is.

        Raises:
            LeasegateError: The session or Vault failed; a 403, too, as it says nothing about the database role.
        """
        vault = self._sessions.acting_vault(target)
        found = _read_mount(vault, mount)
        if found is None or found.marker is None or found.marker.cluster != owner.cluster_id:
            return
        _delete_db_role(vault, mount, owner.vault_name)
        _LOG.info("database role removed", mount=mount, db_role=owner.vault_name)

    def ensure_cleanup_role(self, wanted: CleanupRoleWanted) -> None:
        """Write a cleanup role unless Vault has it as asked for.

        The marker of the mount does not matter: a database user that Leasegate created has to be dropped there.

        Raises:
            DbRoleNotReadyError: The mount does not exist.
            MountConflictError: The mount is no database secrets engine.
            LeasegateError: The session or Vault failed.
        """
        vault = self._sessions.acting_vault(wanted.target)
        _check_is_database(_read_mount(vault, wanted.mount), mount_path=wanted.mount, db_role=wanted.name)
        definition = cleanup_role(
            db_name=wanted.connection,
            revocation_statements=wanted.revocation_statements,
            force_drop=wanted.force_drop,
            keep_owners=wanted.keep_owners,
        )
        shown = _read_db_role(vault, wanted.mount, wanted.name)
        if shown is None or not definition.is_in(shown):
            _write_db_role(vault, wanted.mount, wanted.name, definition)
            _LOG.info("cleanup role written", mount=wanted.mount, db_role=wanted.name, force_drop=wanted.force_drop)

    def delete_cleanup_role(self, target: VaultTarget, mount: str, name: str) -> None:
        """Remove a cleanup role.

        Raises:
            LeasegateError: The session or Vault failed.
        """
        _delete_db_role(self._sessions.acting_vault(target), mount, name)

    def _check_connection(self, wanted: Wanted, definition: Definition, shown: Mapping[str, object] | None) -> None:
        """Refuse another connection than live leases are of.

        Live leases are of the connection of the owner's last success, whatever somebody else wrote in Vault since.
        """
        before = wanted.last_db_name or str((shown or {}).get("db_name") or "")
        if before and before != definition.db_name:
            what = f"db_name of the database role {wanted.owner.vault_name} can change"
            require_quiesce_report(
                wanted.quiesce_report, wanted.target, mount=wanted.mount, connection=before, now=self._now(), what=what
            )

    def _check_paused(self, wanted: Wanted) -> None:
        """Refuse to write while access may issue for the role: what it then issues has SQL that nobody approved.

        A role that Vault does not have is no exception: access may have the snapshot of one that somebody removed. Nor
        may leases of before, of a role of that name that was removed either, end by what was written since.
        """
        name, definition = wanted.owner.vault_name, wanted.definition
        require_pause_report(
            wanted.pause_report,
            wanted.target,
            mount=wanted.mount,
            vault_role=name,
            revocation=LeaseRevocation(definition.db_name, definition.revocation_statements),
            now=self._now(),
            what=f"the database role {name} can be written",
        )


def _read_mount(vault: Vault, path: str) -> Mount | None:
    try:
        return read_mount(vault, path)
    except VaultPolicyMissingError as err:
        hint = "The operator does not permit this mount: the policy leasegate-roles does not name it"
        raise VaultPolicyMissingError(f"{err.message}. {hint}.", path=f"sys/mounts/{path}") from err


def _check_is_database(mount: Mount | None, *, mount_path: str, db_role: str) -> Mount:
    """Refuse a mount that has no database roles.

    Raises:
        DbRoleNotReadyError: Nothing is mounted yet.
        MountConflictError: It is no database secrets engine.
    """
    if mount is None:
        raise DbRoleNotReadyError(
            f"nothing is mounted at {mount_path} yet: the SecretEngine comes first", db_role=db_role
        )
    if mount.type != DATABASE:
        raise MountConflictError(
            f"an engine of type {mount.type} is mounted at {mount_path}", path=mount_path, type=mount.type
        )
    return mount


def _check_usable(found: Mount | None, wanted: Wanted) -> None:
    """Refuse a mount or a connection that the role may not use.

    Raises:
        DbRoleNotReadyError: Nothing is mounted, or no SecretEngine uses the mount, yet.
        MountConflictError: It is no database secrets engine of this cluster.
        NotAllowedFromError: The mount or the connection belongs to another namespace, which does not share it.
    """
    db_role = wanted.owner.vault_name
    mount = _check_is_database(found, mount_path=wanted.mount, db_role=db_role)
    marker = mount.marker
    if marker is None or not marker.owners:
        raise DbRoleNotReadyError(f"no SecretEngine of Leasegate uses the mount {mount.path} yet", db_role=db_role)
    if marker.cluster != wanted.owner.cluster_id:
        whose = f"cluster {marker.cluster}" if marker.cluster != NO_CLUSTER else "callers outside Kubernetes"
        raise MountConflictError(
            f"the mount {mount.path} belongs to {whose}: choose another path", path=mount.path, owner=marker.cluster
        )
    marker.check_namespace(wanted.owner.namespace, path=mount.path)
    _check_connection_owner(wanted, mount_namespace=marker.namespace)


def _check_connection_owner(wanted: Wanted, *, mount_namespace: str) -> None:
    """Refuse a connection that the role's namespace may not use.

    A connection that no AppBinding has belongs to the namespace of the mount: Vault's operator wrote it there.

    Raises:
        NotAllowedFromError: It is another namespace's.
    """
    owner, name = wanted.owner, wanted.definition.db_name
    check_connection(
        name, cluster=owner.cluster_name, namespace=owner.namespace, allow_from=wanted.connection_allow_from
    )
    if namespace_of_connection(name, cluster=owner.cluster_name) is None and owner.namespace != mount_namespace:
        raise NotAllowedFromError(
            f"the connection {name} was written by an operator, for namespace {mount_namespace}, to which the mount"
            f" {wanted.mount} belongs: use a connection of an AppBinding",
            namespace=mount_namespace,
        )


def _read_db_role(vault: Vault, mount: str, name: str) -> dict[str, object] | None:
    try:
        return dict(vault.read(f"{mount}/roles/{name}").data)
    except VaultNotFoundError as err:
        if err.no_mount:
            raise being_removed(mount) from err
        return None


def _write_db_role(vault: Vault, mount: str, name: str, definition: Definition) -> None:
    try:
        vault.write(f"{mount}/roles/{name}", definition.payload())
    except VaultNotFoundError as err:
        raise being_removed(mount) from err


def _delete_db_role(vault: Vault, mount: str, name: str) -> None:
    try:
        vault.delete(f"{mount}/roles/{name}")
    except VaultNotFoundError:
        return
