"""Database engines: a mount with its owners, and one connection of each owner."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.common.errors import (
    DeadlineTooShortError,
    MountConflictError,
    VaultFailedError,
    VaultPolicyMissingError,
    VaultRefusedError,
)
from services.common.logs import logger
from services.common.rpc import deadline
from services.common.vault.address import Address
from services.common.vault.client import Vault
from services.common.vault.mounts import DATABASE, Marker, Mount, read_mount
from services.common.vault.object_ref import ObjectRef
from services.common.vault.quiesce_report import QuiesceReport, require
from services.common.vault.sessions import Sessions
from services.common.vault.target import VaultTarget
from services.engine import connection as connections
from services.engine.connection import Connection, Existing

_LOG = logger(__name__)
_LONGEST_TURN_S = 60.0  # for callers without a deadline


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine that an owner asks for.

    Attributes:
        owner: The SecretEngine.
        target: The Vault.
        path: Path of the mount.
        connection: Its connection.
        adopt: Whether a mount that we did not make may be used.
        quiesce_report: access' answer, where the database changes.
        same_database_moved: Whether the owner says that a new address leads to the same database.
        last_database: Where the connection led at the owner's last success (``DatabaseUrl.where``); empty if that is
            not known.
    """

    owner: ObjectRef
    target: VaultTarget
    path: str
    connection: Connection
    adopt: bool = False
    quiesce_report: QuiesceReport | None = None
    same_database_moved: bool = False
    last_database: str = ""


@dataclass(frozen=True, slots=True)
class Ensured:
    """What there is now.

    Attributes:
        adopted: Whether the mount was there before us.
        changed: Whether anything was written that tells.
        put_back: Whether somebody else had changed or removed what was written last, and it is there again.
        narrowed: Whether the login had no more than this service's policy.
    """

    adopted: bool
    changed: bool
    put_back: bool
    narrowed: bool


@dataclass(frozen=True, slots=True)
class Unwanted:
    """The engine that an owner needs no longer.

    Attributes:
        owner: The SecretEngine.
        target: The Vault.
        path: Path of the mount.
        connection: Name of its connection; empty if it never had one.
        connection_shared: Whether another owner uses that connection too.
        connection_only: Whether the owner stays, as it uses another connection from now on.
        quiesce_report: access' answer.
    """

    owner: ObjectRef
    target: VaultTarget
    path: str
    connection: str = ""
    connection_shared: bool = False
    connection_only: bool = False
    quiesce_report: QuiesceReport | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is left."""

    unmounted: bool
    remaining_owners: tuple[str, ...] = ()


class SecretEngines:
    """Makes and removes engines; safe for many threads, one at a time for each mount."""

    def __init__(self, sessions: Sessions, *, now: Callable[[], float] = time.time) -> None:
        """Nothing is sent.

        Args:
            sessions: Logins at Vaults, within the engine's scope.
            now: Unix time, seconds.
        """
        self._sessions = sessions
        self._now = now
        self._guard = threading.Lock()
        self._locks: dict[tuple[Address, str, str], threading.Lock] = {}
        self._written: dict[
            tuple[Address, str, str, str], bytes
        ] = {}  # by connection: digest of what this process wrote last
        self._key = secrets.token_bytes(32)

    def ensure(self, wanted: Wanted) -> Ensured:
        """Make mount and connection as asked for; nothing is written before everything has been found permitted.

        Raises:
            MountConflictError: Something else is at the path, or somebody else's.
            LeasesInUse: The database would change, and leases may depend on it.
            SpecInvalid: Neither the spec nor Vault names a user for the connection.
            LeasegateError: Login or Vault failed.
        """
        vault = self._sessions.team(wanted.target)
        with self._alone(wanted.target, wanted.path):
            mount = _read_mount(vault, wanted.path)
            marker = _permitted(mount, wanted)
            existing = connections.read(vault, wanted.path, wanted.connection.name) if mount else None
            self._check(wanted, existing)
            marked = _mark(vault, wanted, mount=mount, marker=marker)
            written, put_back = self._configure(vault, wanted, existing)
        narrowed = self._sessions.narrowed(wanted.target)
        return Ensured(adopted=marker.adopted, changed=marked or written, put_back=put_back, narrowed=narrowed)

    def delete(self, unwanted: Unwanted) -> Deleted:
        """Take the owner off; with the last one goes a mount that we made. What is not ours is left alone.

        Raises:
            LeasesInUse: Leases may depend on what would go.
            VaultFailedError: Vault could not unmount, for instance because it cannot revoke at the database.
            LeasegateError: Login or Vault failed.
        """
        vault = self._sessions.ending(unwanted.target)
        with self._alone(unwanted.target, unwanted.path):
            mount = _read_mount(vault, unwanted.path)
            if mount is None:
                return Deleted(unmounted=True)
            marker = mount.marker
            if marker is None or marker.cluster != unwanted.owner.cluster_id:
                return Deleted(unmounted=False)
            if unwanted.connection_only:
                self._remove_connection(vault, unwanted)
                return Deleted(unmounted=False, remaining_owners=marker.owners)
            left = marker.with_owners(owner for owner in marker.owners if owner != unwanted.owner.entry)
            if not left.owners and not left.adopted:
                self._unmount(vault, unwanted)
                return Deleted(unmounted=True)
            if left != marker:
                self._leave(vault, unwanted, left)
            return Deleted(unmounted=False, remaining_owners=left.owners)

    @contextmanager
    def _alone(self, target: VaultTarget, mount: str) -> Iterator[None]:
        """Held while owners are read and written, which Vault cannot do in one step.

        Raises:
            DeadlineTooShortError: Others at work on the mount left no time.
        """
        with self._guard:
            lock = self._locks.setdefault(_place(target, mount), threading.Lock())
        if not lock.acquire(timeout=deadline.timeout_s(_LONGEST_TURN_S)):
            raise DeadlineTooShortError(f"others are still at work on the mount {mount}")
        try:
            yield
        finally:
            lock.release()

    def _check(self, wanted: Wanted, existing: Existing | None) -> None:
        """Refuse what leases forbid. A database that is asked for as before is the leases' own, whatever somebody wrote
        in Vault.
        """
        wanted.connection.check_user(existing)
        if existing is None or wanted.same_database_moved or not wanted.connection.moves(existing):
            return
        if wanted.last_database == wanted.connection.url.where:
            return
        require(
            wanted.quiesce_report,
            wanted.target,
            mount=wanted.path,
            connection=wanted.connection.name,
            now=self._now(),
            what=f"host, port or database of the connection {wanted.connection.name} can change",
        )

    def _configure(self, vault: Vault, wanted: Wanted, existing: Existing | None) -> tuple[bool, bool]:
        """Write the connection unless Vault is known to have it so.

        Returns:
            Whether that changed anything that can be told, and whether it put back what this process had written
            before.
        """
        key = (*_place(wanted.target, wanted.path), wanted.connection.name)
        digest, before = self._digest(wanted.connection), self._written.get(key)
        differs = existing is None or wanted.connection.differs(existing)
        if not differs and before == digest:
            return False, False
        self._written.pop(key, None)
        connections.write(vault, wanted.path, wanted.connection, existing=existing)
        self._written[key] = digest
        put_back = differs and before == digest
        what = "connection put back" if put_back else "connection written"
        _LOG.info(what, mount=wanted.path, connection=wanted.connection.name, owner=wanted.owner.entry)
        return differs or before is not None, put_back

    def _digest(self, connection: Connection) -> bytes:
        """Of all that is written, the password too, which Vault never shows."""
        content = json.dumps([connection.visible(), connection.password], sort_keys=True)
        return hmac.digest(self._key, content.encode(), hashlib.sha256)

    def _unmount(self, vault: Vault, unwanted: Unwanted) -> None:
        mount = unwanted.path
        require(
            unwanted.quiesce_report, unwanted.target, mount=mount, now=self._now(), what=f"the mount {mount} can go"
        )
        try:
            vault.delete(f"sys/mounts/{mount}")
        except (VaultRefusedError, VaultFailedError) as err:
            why = "Vault has to end the leases of a mount first, which needs the database; it is tried again"
            raise VaultFailedError(
                f"Vault could not remove the mount {mount}: {err.message}. {why}.", path=f"sys/mounts/{mount}"
            ) from err
        self._forget(unwanted.target, mount)
        _LOG.info("mount removed", mount=mount, owner=unwanted.owner.entry)

    def _leave(self, vault: Vault, unwanted: Unwanted, left: Marker) -> None:
        """Remove the owner's connection, then the owner, so that a crash between the two repeats both."""
        self._remove_connection(vault, unwanted)
        vault.write(f"sys/mounts/{unwanted.path}/tune", {"description": str(left)})
        _LOG.info("owner left the mount", mount=unwanted.path, owner=unwanted.owner.entry)

    def _remove_connection(self, vault: Vault, unwanted: Unwanted) -> None:
        mount, name = unwanted.path, unwanted.connection
        if not name or unwanted.connection_shared:
            return
        what = f"the connection {name} can go"
        require(unwanted.quiesce_report, unwanted.target, mount=mount, connection=name, now=self._now(), what=what)
        connections.delete(vault, mount, name)
        self._written.pop((*_place(unwanted.target, mount), name), None)
        _LOG.info("connection removed", mount=mount, connection=name, owner=unwanted.owner.entry)

    def _forget(self, target: VaultTarget, mount: str) -> None:
        place = _place(target, mount)
        for key in [key for key in self._written if key[:3] == place]:
            self._written.pop(key, None)


def _place(target: VaultTarget, mount: str) -> tuple[Address, str, str]:
    return Address.parse(target.address), target.vault_namespace, mount


def _read_mount(vault: Vault, path: str) -> Mount | None:
    try:
        return read_mount(vault, path)
    except VaultPolicyMissingError as err:
        hint = "Either the operator does not permit this mount, or the login's role lacks the policy leasegate-engine"
        raise VaultPolicyMissingError(f"{err.message}. {hint}.", path=f"sys/mounts/{path}") from err


def _permitted(mount: Mount | None, wanted: Wanted) -> Marker:
    """The marker that the mount is to have.

    Raises:
        MountConflictError: It may not be used.
    """
    owner = wanted.owner
    if mount is None:
        return Marker(cluster=owner.cluster_id, owners=(owner.entry,))
    if mount.type != DATABASE:
        what = f"an engine of type {mount.type} is mounted at {mount.path}"
        raise MountConflictError(f"{what}: choose another path", path=mount.path, type=mount.type)
    marker = mount.marker
    if marker is None or (marker.adopted and not marker.owners):
        if not wanted.adopt:
            raise MountConflictError(
                f"the mount {mount.path} was not made by Leasegate: choose another path, or let it be used with adopt_mount"
                ' (annotation leasegate.dev/adopt-mount: "true")',
                path=mount.path,
                type=mount.type,
            )
        before = mount.description if marker is None else marker.before
        return Marker(cluster=owner.cluster_id, owners=(owner.entry,), adopted=True, before=before)
    if marker.cluster != owner.cluster_id:
        whose = f"cluster {marker.cluster}" if marker.cluster != "-" else "callers outside Kubernetes"
        raise MountConflictError(
            f"the mount {mount.path} belongs to {whose}: choose another path", path=mount.path, owner=marker.cluster
        )
    if marker.adopted and not wanted.adopt and owner.entry not in marker.owners:
        raise MountConflictError(
            f"the mount {mount.path} was not made by Leasegate, and only {', '.join(marker.owners)} may use it: set adopt_mount here too",
            path=mount.path,
            owner=", ".join(marker.owners),
        )
    return marker.with_owners((*marker.owners, owner.entry))


def _mark(vault: Vault, wanted: Wanted, *, mount: Mount | None, marker: Marker) -> bool:
    """Enable the mount, or write its owners, unless they stand there; answers whether that changed anything."""
    path = wanted.path
    if mount is None:
        try:
            vault.write(f"sys/mounts/{path}", {"type": DATABASE, "description": str(marker)})
        except VaultRefusedError as err:
            if f"in use at {path}/" in err.message:  # somebody was faster: the next try sees who
                raise
            raise MountConflictError(
                f"Vault cannot mount anything at {path}: {err.message}", path=path, type=DATABASE
            ) from err
        _LOG.info("mount enabled", mount=path, owner=wanted.owner.entry)
        return True
    if mount.description == str(marker):
        return False
    vault.write(f"sys/mounts/{path}/tune", {"description": str(marker)})
    _LOG.info("owner joined the mount", mount=path, owner=wanted.owner.entry)
    return True
