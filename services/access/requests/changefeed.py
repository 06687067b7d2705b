"""The change feed: which access requests, cleanup roles and Vault auths the watcher should look at again.

It lives in memory and restarts with the process, as the watcher then repeats everything; cleanup roles are announced
from the ledger. Safety does not depend on it: it saves time. What the answer of a call says to the owner already is
not announced (``Tx.answer_change``).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from services.access.domain.models import AccessRequest, CleanupRole, CleanupRoleState, VaultTargetRow
from services.access.ledger import catalog, recoveries, requests
from services.access.ledger.db.database import Ledger, Tx
from services.common.rpc.limit import LongPolls

LONGEST_WAIT_S = 30.0
UNREAD_S = 60.0
POLL_AFTER_S = 1.0
_PAGE = 500
_KEPT = 100_000
_OWNERS = 20_000


@dataclass(frozen=True, slots=True)
class AccessRequestChanged:
    """An access request changed."""

    uid: str


@dataclass(frozen=True, slots=True)
class CleanupRoleChanged:
    """A cleanup role is needed, or not any more; the ledger says which."""

    name: str
    target: int


@dataclass(frozen=True, slots=True)
class VaultAuthNeeded:
    """The auth at a VaultTarget is missing."""

    target: int


Key: TypeAlias = AccessRequestChanged | CleanupRoleChanged | VaultAuthNeeded


@dataclass(frozen=True, slots=True)
class Batch:
    """What a poll answers.

    Attributes:
        requests: Access requests of the caller that changed, oldest first.
        cleanup_roles: Cleanup roles that are needed, or not any more, with their Vaults.
        missing_auths: Vaults whose auth is missing.
        cursor: For the next poll.
        restarted: Whether the cursor is of an earlier feed.
        waited: False if the poll was not allowed to wait.
    """

    requests: tuple[AccessRequest, ...]
    cleanup_roles: tuple[tuple[CleanupRole, VaultTargetRow], ...]
    missing_auths: tuple[VaultTargetRow, ...]
    cursor: str
    restarted: bool
    waited: bool


class ChangeFeed:
    """Numbers the changes, and remembers the newest change of each thing."""

    def __init__(self, ledger: Ledger, polls: LongPolls) -> None:
        self._ledger, self.polls = ledger, polls
        self._epoch = secrets.token_hex(6)
        self._changed = threading.Condition()
        self._number, self._forgotten = 0, 0
        self._keys: dict[Key, int] = {}  # in the order of their numbers
        self._missing: set[VaultAuthNeeded] = set()
        self._unread: dict[Key, float] = {}
        self._released: dict[CleanupRoleChanged, int] = {}
        self._owners: OrderedDict[str, str] = OrderedDict()  # of access requests that changed recently
        ledger.listeners.append(self._committed)
        with ledger.read() as tx:
            self.publish(*(CleanupRoleChanged(a.name, a.target) for a in recoveries.pending(tx)))

    def _committed(self, tx: Tx) -> None:
        if tx.changed or tx.cleanup_roles:
            self.publish(
                *(AccessRequestChanged(uid) for uid in sorted(tx.changed)),
                *(CleanupRoleChanged(*key) for key in sorted(tx.cleanup_roles)),
            )

    def publish(self, *keys: Key) -> None:
        """Announce that these changed."""
        with self._changed:
            for key in keys:
                self._number += 1
                self._keys.pop(key, None)
                self._keys[key] = self._number
                if isinstance(key, CleanupRoleChanged):
                    self._unread.setdefault(key, time.monotonic())
            while len(self._keys) > _KEPT:
                self._forgotten = self._keys.pop(next(iter(self._keys)))
            self._changed.notify_all()

    def request_auth(self, target: int) -> None:
        """Ask for the auth of a VaultTarget, once until it arrives."""
        with self._changed:
            asked = VaultAuthNeeded(target) in self._missing
            self._missing.add(VaultAuthNeeded(target))
        if not asked:
            self.publish(VaultAuthNeeded(target))

    def auth_arrived(self, target: int) -> None:
        """Stop asking for the auth of a VaultTarget."""
        with self._changed:
            self._missing.discard(VaultAuthNeeded(target))
            self._keys.pop(VaultAuthNeeded(target), None)

    def unread(self) -> bool:
        """Whether a needed cleanup role has been announced for so long that nobody seems to read the feed."""
        with self._changed:
            return any(time.monotonic() - since > UNREAD_S for since in self._unread.values())

    def poll(self, cursor: str, *, owner: str, cluster_uid: str, max_wait_s: float) -> Batch:
        """What changed after ``cursor``; waits for something if the budget of waiting calls allows it.

        Args:
            cursor: Of the batch before; empty to start over.
            owner: Whose access requests are of interest.
            cluster_uid: uid of the caller's cluster; Vaults of other clusters do not concern it, those of the
                operator's catalog file do.
            max_wait_s: Longest wait, at most ``LONGEST_WAIT_S``.
        """
        since = self._position(cursor)
        if since is None:
            return self._start_over(cluster_uid)
        self._confirm(since, cluster_uid)
        with self.polls.waiting() as granted:
            end = time.monotonic() + min(max(max_wait_s, 0.0), LONGEST_WAIT_S)
            found, since = self._changes(since, owner=owner, cluster_uid=cluster_uid, end=end if granted else 0.0)
            while granted and not found and time.monotonic() < end and not self.polls.draining:
                found, since = self._changes(since, owner=owner, cluster_uid=cluster_uid, end=end)
        return self._batch(found, since, owner=owner, waited=granted)

    def _changes(self, since: int, *, owner: str, cluster_uid: str, end: float) -> tuple[list[Key], int]:
        """What changed after ``since`` and concerns a caller, and up to which number that is; waits until ``end``."""
        self._wait(since, end)
        with self._changed:
            found = self._newer(since)
            number = found[-1][1] if found else max(since, self._number)
        mine = [key for key, _ in found if self._concerns(key, owner=owner, cluster_uid=cluster_uid)]
        return mine, number

    def _concerns(self, key: Key, *, owner: str, cluster_uid: str) -> bool:
        if isinstance(key, AccessRequestChanged):
            return self._owner(key.uid) == owner
        with self._ledger.read() as tx:
            target = catalog.find_target_by_id(tx, key.target)
        return target is None or target.cluster_uid in ("", cluster_uid)

    def _owner(self, uid: str) -> str:
        """Owner of an access request: changes of others, of which there may be thousands a second, end no poll."""
        if found := self._owners.get(uid):
            return found
        with self._ledger.read() as tx:
            request = requests.find(tx, uid)
        if request is None:
            return ""
        self._owners[uid] = request.owner
        if len(self._owners) > _OWNERS:
            self._owners.popitem(last=False)
        return request.owner

    def wait_for(self, uid: str, *, beyond: int, end: float) -> int:
        """Wait until an access request changes after the number ``beyond``, or until ``end`` (monotonic).

        Returns:
            The number of its newest change.
        """
        key = AccessRequestChanged(uid)
        with self._changed:
            while self._keys.get(key, 0) <= beyond and not self.polls.draining and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._keys.get(key, 0)

    def last_change(self, uid: str) -> int:
        """The number of the newest change of an access request; 0 if none is remembered."""
        with self._changed:
            return self._keys.get(AccessRequestChanged(uid), 0)

    def wake(self) -> None:
        """End all waits, as the process stops."""
        with self._changed:
            self._changed.notify_all()

    def _position(self, cursor: str) -> int | None:
        epoch, _, number = cursor.partition(":")
        if epoch != self._epoch or not number.isdigit() or not self._forgotten <= int(number) <= self._number:
            return None
        return int(number)

    def _wait(self, since: int, end: float) -> None:
        with self._changed:
            while self._number <= since and not self.polls.draining and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)

    def _newer(self, since: int) -> list[tuple[Key, int]]:
        found: list[tuple[Key, int]] = []
        for key, number in reversed(self._keys.items()):
            if number <= since:
                break
            found.append((key, number))
        return found[::-1][:_PAGE]

    def _start_over(self, cluster_uid: str) -> Batch:
        """Start with what nobody else announces: the cleanup roles that are needed and the auths that are missing."""
        with self._changed:
            number, missing = self._number, tuple(self._missing)
        with self._ledger.read() as tx:
            wanted = [CleanupRoleChanged(each.name, each.target) for each in recoveries.pending(tx)]
        keys: list[Key] = [*wanted, *missing]
        mine = [key for key in keys if self._concerns(key, owner="", cluster_uid=cluster_uid)]
        return self._batch(mine, number, owner="", restarted=True)

    def _batch(
        self, keys: Sequence[Key], number: int, *, owner: str, restarted: bool = False, waited: bool = True
    ) -> Batch:
        with self._ledger.read() as tx:
            found = requests.find_many(tx, [key.uid for key in keys if isinstance(key, AccessRequestChanged)])
            pairs = [
                (recoveries.find_cleanup_role(tx, key.name, key.target), catalog.find_target_by_id(tx, key.target))
                for key in keys
                if isinstance(key, CleanupRoleChanged)
            ]
            wanted = [catalog.find_target_by_id(tx, key.target) for key in keys if isinstance(key, VaultAuthNeeded)]
            missing_auths = tuple(row for row in wanted if row)
        announced = tuple(
            (cleanup_role, target)
            for cleanup_role, target in pairs
            if cleanup_role and target and cleanup_role.state is not CleanupRoleState.READY
        )
        with self._changed:
            for key in keys:
                self._unread.pop(key, None)
            for cleanup_role, _ in announced:
                if cleanup_role.state is CleanupRoleState.UNNEEDED:
                    self._released[CleanupRoleChanged(cleanup_role.name, cleanup_role.target)] = number
        mine = tuple(request for request in found if request.owner == owner)
        return Batch(mine, announced, missing_auths, f"{self._epoch}:{number}", restarted, waited)

    def _confirm(self, since: int, cluster_uid: str) -> None:
        """Forget unneeded cleanup roles that the caller has handled, as its cursor is beyond their announcement."""
        with self._changed:
            done = [key for key, number in self._released.items() if number <= since]
        done = [key for key in done if self._concerns(key, owner="", cluster_uid=cluster_uid)]
        with self._changed:
            for key in done:
                self._released.pop(key, None)
        if done:
            with self._ledger.write() as tx:
                for key in done:
                    recoveries.delete_unneeded(tx, key.name, key.target)
