"""Writes and removes PostgreSQL secrets engines: a mount with its owners, and one connection of each owner."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from services.common.bounded import BoundedMap, KeyedLocks
from services.common.errors import (
    DeadlineTooShortError,
    MountConflictError,
    VaultFailedError,
    VaultPolicyMissingError,
    VaultRefusedError,
    writes_nothing,
)
from services.common.logs import logger
from services.common.rpc import deadline
from services.common.vault import error_texts
from services.common.vault.client import Vault
from services.common.vault.health import VaultServer
from services.common.vault.mounts import (
    DATABASE,
    MOST_DESCRIPTION_BYTES,
    MOST_OWNERS,
    Marker,
    Mount,
    read_mount,
)
from services.common.vault.object_ref import ObjectRef
from services.common.vault.pause_report import PauseReport, require_pause_report
from services.common.vault.quiesce_report import QuiesceReport, require_quiesce_report
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.engine.connection import Connection, Existing, delete_connection, read_connection, write_connection

_LOG = logger(__name__)
_MOST_WRITTEN = 10_000
_LOCK_TIMEOUT_S = 60.0  # for callers without a deadline


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine that an owner asks for.

    Attributes:
        owner: The SecretEngine.
        target: The Vault server.
        mount: Path of the mount.
        connection: Its connection.
        adopt: Whether the owner wants a mount that Leasegate did not enable.
        adopt_from_cluster: uid of a cluster that does not exist any more, whose mount the owner wants; empty for none.
        adoptable: Whether the operator lets the owner's namespace take the mount over.
        quiesce_report: The report of access, where the database changes.
        same_database_moved: The place to which an operator states that the same database moved; empty for none.
        last_database: The database of the owner's last success (``DatabaseUrl.where``); empty if it is not known.
        shared_with: Namespaces that may use the mount, as SecretEngines of the owner's namespace say.
        pause_report: The report of access that the roles of the connection are paused, where they would run elsewhere.
    """

    owner: ObjectRef
    target: VaultTarget
    mount: str
    connection: Connection
    adopt: bool = False
    adopt_from_cluster: str = ""
    adoptable: bool = False
    quiesce_report: QuiesceReport | None = None
    same_database_moved: str = ""
    last_database: str = ""
    shared_with: tuple[str, ...] = ()
    pause_report: PauseReport | None = None


@dataclass(frozen=True, slots=True)
class Ensured:
    """The engine as it is now.

    Attributes:
        adopted: Whether Leasegate did not enable the mount.
        changed: Whether anything was written that differs from what was there.
        drift_corrected: Whether somebody else changed or removed what this process wrote last, and it is corrected.
        server: What the Vault says of itself, for people to see; None where that is not known.
    """

    adopted: bool
    changed: bool
    drift_corrected: bool
    server: VaultServer | None = None


@dataclass(frozen=True, slots=True)
class Unwanted:
    """The engine that an owner does not need any more.

    Attributes:
        owner: The SecretEngine.
        target: The Vault server.
        mount: Path of the mount.
        connection: Name of its connection; empty if it never had one.
        connection_shared: Whether another owner uses that connection too.
        connection_only: Whether the owner keeps the mount, as it uses another connection.
        quiesce_report: The report of access.
    """

    owner: ObjectRef
    target: VaultTarget
    mount: str
    connection: str = ""
    connection_shared: bool = False
    connection_only: bool = False
    quiesce_report: QuiesceReport | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion removed, and the owners that still use the mount, as ``namespace/name``."""

    unmounted: bool
    remaining_owners: tuple[str, ...] = ()


class SecretEngines:
    """Writes and removes engines. Safe for many threads, one at a time for each mount."""

    def __init__(self, sessions: Sessions, *, now: Callable[[], float] = time.time) -> None:
        """Take the sessions; sends nothing.

        Args:
            sessions: Sessions at Vault servers, within the engine's scope.
            now: Unix time, seconds.
        """
        self._sessions = sessions
        self._now = now
        self._locks = KeyedLocks[tuple[str, str]]()
        # By connection: the digest of what this process wrote last. One that is missing is written once more.
        self._written = BoundedMap[tuple[str, str, str], bytes](_MOST_WRITTEN)
        self._key = secrets.token_bytes(32)

    def ensure_engine(self, wanted: Wanted) -> Ensured:
        """Write mount and connection as asked for, after every check has passed.

        Raises:
            MountConflictError: Something else is mounted at the path, or the mount belongs to another owner.
            NotAllowedFromError: The mount belongs to another namespace, which does not share it.
            LeasesInUseError: The database would change, and leases may depend on it.
            ChangeDueError: What roles run on would change, and access may issue credentials for them.
            SpecInvalidError: Neither the spec nor Vault names a user for the connection, or Vault would send the
                password that it keeps elsewhere.
            LeasegateError: The session or Vault failed.
        """
        with writes_nothing():
            vault = self._sessions.proven_vault(wanted.target)
        with self._lock_mount(wanted.target, wanted.mount):
            with writes_nothing():
                mount = _read_mount(vault, wanted.mount)
                marker = _wanted_marker(mount, wanted)
                existing = read_connection(vault, wanted.mount, wanted.connection.name) if mount else None
                self._check_database(wanted, existing)
                if mount and (existing is None or wanted.connection.redirects(existing)):
                    self._check_paused(wanted)
            mount_changed = _write_mount(vault, wanted, mount=mount, marker=marker)
            connection_changed, drift_corrected = self._write_connection(vault, wanted, existing)
        return Ensured(
            adopted=marker.adopted,
            changed=mount_changed or connection_changed,
            drift_corrected=drift_corrected,
            server=self._sessions.find_server(wanted.target),
        )

    def delete_engine(self, unwanted: Unwanted) -> Deleted:
        """Remove the owner from the mount, and disable the mount with its last owner if Leasegate enabled it.

        A mount of another cluster, one without a marker, or one that the owner does not use, is left as it is.

        Raises:
            LeasesInUseError: Leases may depend on what would be removed.
            VaultFailedError: Vault could not disable the mount, for instance because it cannot revoke at the database.
            LeasegateError: The session or Vault failed.
        """
        vault = self._sessions.acting_vault(unwanted.target)
        with self._lock_mount(unwanted.target, unwanted.mount):
            mount = _read_mount(vault, unwanted.mount)
            if mount is None:
                return Deleted(unmounted=True)
            marker = mount.marker
            if marker is None or marker.cluster != unwanted.owner.cluster_id:
                return Deleted(unmounted=False)
            if unwanted.owner.entry not in marker.owners and not _is_abandoned(marker, unwanted.owner):
                return Deleted(unmounted=False, remaining_owners=marker.owners)
            if unwanted.connection_only:
                self._remove_connection(vault, unwanted)
                return Deleted(unmounted=False, remaining_owners=marker.owners)
            left = marker.with_owners(owner for owner in marker.owners if owner != unwanted.owner.entry)
            if not left.owners and not left.adopted:
                self._disable_mount(vault, unwanted)
                return Deleted(unmounted=True)
            if left != marker:
                self._remove_owner(vault, unwanted, left)
            return Deleted(unmounted=False, remaining_owners=left.owners)

    @contextmanager
    def _lock_mount(self, target: VaultTarget, mount: str) -> Iterator[None]:
        """Lock the mount within this process, as Vault cannot read and write the owners in one step.

        Raises:
            DeadlineTooShortError: Other calls for the mount left no time.
        """
        with self._locks.holding(_place(target, mount), timeout_s=deadline.timeout_s(_LOCK_TIMEOUT_S)) as held:
            if not held:
                with writes_nothing():
                    raise DeadlineTooShortError(f"other calls still work on the mount {mount}")
            yield

    def _check_database(self, wanted: Wanted, existing: Existing | None) -> None:
        """Refuse another database than live leases are of, and a connection without the user and password it needs.

        The owner's last database is the one that live leases are of, whatever somebody else wrote in Vault since.
        """
        wanted.connection.check_user(existing)
        wanted.connection.check_password(existing)
        if existing is None or not wanted.connection.moves(existing):
            return
        if wanted.connection.url.where in (wanted.last_database, wanted.same_database_moved):
            return
        require_quiesce_report(
            wanted.quiesce_report,
            wanted.target,
            mount=wanted.mount,
            connection=wanted.connection.name,
            now=self._now(),
            what=f"host, port or database of the connection {wanted.connection.name} can change",
        )

    def _check_paused(self, wanted: Wanted) -> None:
        """Refuse to lead roles elsewhere while access may issue for them: nobody approved where they then run.

        A connection that Vault does not have is no exception: somebody may have removed it, and its roles are left.
        """
        name = wanted.connection.name
        require_pause_report(
            wanted.pause_report,
            wanted.target,
            mount=wanted.mount,
            connection=name,
            now=self._now(),
            what=f"URL, plugin and user of the connection {name} can be written",
        )

    def _write_connection(self, vault: Vault, wanted: Wanted, existing: Existing | None) -> tuple[bool, bool]:
        """Write the connection unless Vault is known to have it as asked for.

        Returns:
            Whether that changed anything that Vault shows, and whether it corrected what this process wrote before.
        """
        key = (*_place(wanted.target, wanted.mount), wanted.connection.name)
        digest, before = self._digest(wanted.connection), self._written.get(key)
        differs = existing is None or wanted.connection.differs(existing)
        if not differs and before == digest:
            return False, False
        self._written.pop(key, None)
        write_connection(vault, wanted.mount, wanted.connection, existing=existing)
        self._written[key] = digest
        drift_corrected = differs and before == digest
        what = "connection drift corrected" if drift_corrected else "connection written"
        _LOG.info(what, mount=wanted.mount, connection=wanted.connection.name, owner=wanted.owner.entry)
        return differs or before is not None, drift_corrected

    def _digest(self, connection: Connection) -> bytes:
        """Digest of all that is written, the password included, which Vault never shows."""
        content = json.dumps([connection.visible(), connection.password], sort_keys=True)
        return hmac.digest(self._key, content.encode(), hashlib.sha256)

    def _disable_mount(self, vault: Vault, unwanted: Unwanted) -> None:
        mount = unwanted.mount
        require_quiesce_report(
            unwanted.quiesce_report,
            unwanted.target,
            mount=mount,
            now=self._now(),
            what=f"the mount {mount} can be disabled",
        )
        try:
            vault.delete(f"sys/mounts/{mount}")
        except (VaultRefusedError, VaultFailedError) as err:
            why = "Vault revokes the leases of a mount first, which needs the database; the call is repeated"
            raise VaultFailedError(
                f"Vault could not disable the mount {mount}: {err.message}. {why}.", path=f"sys/mounts/{mount}"
            ) from err
        self._forget_mount(unwanted.target, mount)
        _LOG.info("mount disabled", mount=mount, owner=unwanted.owner.entry)

    def _remove_owner(self, vault: Vault, unwanted: Unwanted, left: Marker) -> None:
        """Remove the owner's connection, then the owner: after a crash in between, a repeated call does both."""
        self._remove_connection(vault, unwanted)
        vault.write(f"sys/mounts/{unwanted.mount}/tune", {"description": str(left)})
        _LOG.info("owner removed from the mount", mount=unwanted.mount, owner=unwanted.owner.entry)

    def _remove_connection(self, vault: Vault, unwanted: Unwanted) -> None:
        mount, name = unwanted.mount, unwanted.connection
        if not name or unwanted.connection_shared:
            return
        what = f"the connection {name} can be removed"
        require_quiesce_report(
            unwanted.quiesce_report, unwanted.target, mount=mount, connection=name, now=self._now(), what=what
        )
        delete_connection(vault, mount, name)
        self._written.pop((*_place(unwanted.target, mount), name), None)
        _LOG.info("connection removed", mount=mount, connection=name, owner=unwanted.owner.entry)

    def _forget_mount(self, target: VaultTarget, mount: str) -> None:
        place = _place(target, mount)
        for key in [key for key in self._written if key[:2] == place]:
            self._written.pop(key, None)


def _place(target: VaultTarget, mount: str) -> tuple[str, str]:
    return target.identity, mount


def _read_mount(vault: Vault, path: str) -> Mount | None:
    try:
        return read_mount(vault, path)
    except VaultPolicyMissingError as err:
        hint = "The operator does not permit this mount: the policy leasegate-engine does not name it"
        raise VaultPolicyMissingError(f"{err.message}. {hint}.", path=f"sys/mounts/{path}") from err


def _wanted_marker(mount: Mount | None, wanted: Wanted) -> Marker:
    """Return the marker that the mount gets, with the owner added.

    Raises:
        MountConflictError: The owner may not use the mount.
    """
    owner = wanted.owner
    new = Marker(cluster=owner.cluster_id, owners=(owner.entry,), namespace=owner.namespace, shared=wanted.shared_with)
    if mount is None:
        return new
    if mount.type != DATABASE:
        what = f"an engine of type {mount.type} is mounted at {mount.path}"
        raise MountConflictError(f"{what}: choose another path", path=mount.path, type=mount.type)
    marker = mount.marker
    if marker is None or (marker.adopted and not marker.owners):
        if not wanted.adopt:
            raise MountConflictError(
                f"the mount {mount.path} was not enabled by Leasegate: choose another path, or permit its use with"
                " adopt_mount"
                ' (annotation leasegate.dev/adopt-mount: "true")',
                path=mount.path,
                type=mount.type,
            )
        _check_adoptable(wanted)
        before = mount.description if marker is None else marker.before
        return replace(new, adopted=True, before=before)
    if marker.cluster != owner.cluster_id and marker.cluster == wanted.adopt_from_cluster:
        _check_adoptable(wanted)
        return replace(new, adopted=marker.adopted, before=marker.before)
    if marker.cluster != owner.cluster_id:
        whose = f"cluster {marker.cluster}" if marker.cluster != "-" else "callers outside Kubernetes"
        raise MountConflictError(
            f"the mount {mount.path} belongs to {whose}: choose another path. If that cluster was rebuilt as this one,"
            f" take it over with leasegate.dev/adopt-mount: from-cluster:{marker.cluster}",
            path=mount.path,
            owner=marker.cluster,
        )
    if marker.adopted and not wanted.adopt and owner.entry not in marker.owners:
        raise MountConflictError(
            f"the mount {mount.path} was not enabled by Leasegate, and only {', '.join(marker.owners)} may use it: "
            "set adopt_mount here, too",
            path=mount.path,
            owner=", ".join(marker.owners),
        )
    marker.check_namespace(owner.namespace, path=mount.path)
    if owner.namespace == marker.namespace:
        marker = replace(marker, shared=wanted.shared_with)
    return _bounded(marker.with_owners((*marker.owners, owner.entry)), path=mount.path)


def _check_adoptable(wanted: Wanted) -> None:
    """Refuse to take over a mount without the operator's word: the owner's annotation alone is not enough.

    Raises:
        MountConflictError: The operator does not permit it.
    """
    if not wanted.adoptable:
        who = f"namespace {wanted.owner.namespace}" if wanted.owner.namespace else "callers outside Kubernetes"
        raise MountConflictError(
            f"the operator does not let {who} take over the mount {wanted.mount}: choose another path, or have the"
            " operator add it with this namespace to mounts.adoptable in --vault-config",
            path=wanted.mount,
        )


def _bounded(marker: Marker, *, path: str) -> Marker:
    """Refuse a marker that would take too much of the entry in which Vault keeps all mounts.

    Raises:
        MountConflictError: The mount has too many owners.
    """
    if len(marker.owners) > MOST_OWNERS or len(str(marker).encode()) > MOST_DESCRIPTION_BYTES:
        raise MountConflictError(
            f"the mount {path} has {len(marker.owners) - 1} SecretEngines already: use another path", path=path
        )
    return marker


def _is_abandoned(marker: Marker, owner: ObjectRef) -> bool:
    """Whether nobody uses a mount of the owner's namespace, as a deletion that was interrupted leaves it."""
    return not marker.owners and marker.namespace == owner.namespace


def _write_mount(vault: Vault, wanted: Wanted, *, mount: Mount | None, marker: Marker) -> bool:
    """Enable the mount or write its owners, unless Vault has both; return whether that changed anything."""
    path = wanted.mount
    if mount is None:
        _enable_mount(vault, path, marker)
        _LOG.info("mount enabled", mount=path, owner=wanted.owner.entry)
        return True
    if mount.description == str(marker):
        return False
    with writes_nothing():  # if Vault refuses it
        vault.write(f"sys/mounts/{path}/tune", {"description": str(marker)})
    _LOG.info("owner added to the mount", mount=path, owner=wanted.owner.entry)
    return True


def _enable_mount(vault: Vault, path: str, marker: Marker) -> None:
    """Enable the mount with its marker in the description.

    Raises:
        MountConflictError: Vault cannot mount anything at the path.
        VaultRefusedError: Another call enabled a mount there meanwhile; the next call finds out whose it is.
        LeasegateError: Vault failed.
    """
    try:
        vault.write(f"sys/mounts/{path}", {"type": DATABASE, "description": str(marker)})
    except VaultRefusedError as err:
        if error_texts.is_mount_in_use(err.vault_text, path):
            raise
        with writes_nothing():
            raise MountConflictError(
                f"Vault cannot mount anything at {path}: {err.message}", path=path, type=DATABASE
            ) from err
    except VaultPolicyMissingError:
        with writes_nothing():
            raise
