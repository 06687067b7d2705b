"""The change feed: what the watcher should look at again, and whoever waits for one request.

It lives in memory and begins anew with each process, as the watcher then says everything again; what the ledger holds (cleanup roles) is
announced from there. Nothing depends on it for safety: it only saves time.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """A request changed."""

    uid: str


@dataclass(frozen=True, slots=True)
class CleanupRoleChanged:
    """A cleanup role is needed, or needed no longer; the ledger says which."""

    name: str
    target: int


@dataclass(frozen=True, slots=True)
class VaultAuthNeeded:
    """A login at a target is missing."""

    target: int


Key: TypeAlias = AccessRequestChanged | CleanupRoleChanged | VaultAuthNeeded


@dataclass(frozen=True, slots=True)
class Batch:
    """What a poll brings.

    Attributes:
        requests: Requests of the caller that changed, oldest first.
        cleanup_roles: CleanupRoles that are needed or needed no longer, with their Vaults.
        logins: Vaults for which a login is missing.
        cursor: For the next poll.
        restarted: Whether the cursor was of an earlier feed.
        waited: False if the poll was not allowed to wait.
    """

    requests: tuple[AccessRequest, ...]
    cleanup_roles: tuple[tuple[CleanupRole, VaultTargetRow], ...]
    logins: tuple[VaultTargetRow, ...]
    cursor: str
    restarted: bool
    waited: bool


@dataclass(slots=True)
class Answer:
    """What an owner is told other than by a poll.

    Attributes:
        number: Of the newest change of the request that it tells of.
    """

    number: int


class ChangeFeed:
    """Remembers the newest change of each thing under a rising number."""

    def __init__(self, ledger: Ledger, polls: LongPolls) -> None:
        self._ledger, self.polls = ledger, polls
        self._epoch = secrets.token_hex(6)
        self._changed = threading.Condition()
        self._number, self._forgotten = 0, 0
        self._keys: dict[Key, int] = {}  # in the order of their numbers
        self._told: dict[Key, float] = {}  # by request, the number up to which an answer tells its owner
        self._missing: set[VaultAuthNeeded] = set()
        self._unread: dict[Key, float] = {}
        self._released: dict[CleanupRoleChanged, int] = {}
        self._owners: OrderedDict[str, str] = OrderedDict()  # of requests that changed of late
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
        """Say that these changed."""
        with self._changed:
            for key in keys:
                self._number += 1
                self._keys.pop(key, None)
                self._keys[key] = self._number
                if isinstance(key, CleanupRoleChanged):
                    self._unread.setdefault(key, time.monotonic())
            while len(self._keys) > _KEPT:
                oldest = next(iter(self._keys))
                self._forgotten = self._keys.pop(oldest)
                self._told.pop(oldest, None)
            self._changed.notify_all()

    def login_missing(self, target: int) -> None:
        """Ask for a login, once until it is given."""
        with self._changed:
            asked = VaultAuthNeeded(target) in self._missing
            self._missing.add(VaultAuthNeeded(target))
        if not asked:
            self.publish(VaultAuthNeeded(target))

    def login_given(self, target: int) -> None:
        """A login was given."""
        with self._changed:
            self._missing.discard(VaultAuthNeeded(target))
            self._keys.pop(VaultAuthNeeded(target), None)

    def unread(self) -> bool:
        """Whether a needed cleanup role has waited for so long that nobody seems to read the feed."""
        with self._changed:
            return any(time.monotonic() - since > UNREAD_S for since in self._unread.values())

    def poll(self, cursor: str, *, owner: str, max_wait_s: float) -> Batch:
        """What changed after ``cursor``; waits for something if the budget of waiting calls allows it.

        Args:
            cursor: Of the batch before; empty to begin anew.
            owner: Whose requests are told of.
            max_wait_s: Longest wait, at most ``LONGEST_WAIT_S``.
        """
        since = self._position(cursor)
        if since is None:
            return self._anew()
        self._dealt_with(since)
        with self.polls.wait() as granted:
            end = time.monotonic() + min(max(max_wait_s, 0.0), LONGEST_WAIT_S)
            found, since = self._look(since, owner=owner, end=end if granted else 0.0)
            while granted and not found and time.monotonic() < end and not self.polls.draining:
                found, since = self._look(since, owner=owner, end=end)
        return self._batch(found, since, owner=owner, waited=granted)

    def _look(self, since: int, *, owner: str, end: float) -> tuple[list[Key], int]:
        """What changed after ``since`` that is of interest to a caller, and the number up to which that is; waits till
        ``end``.
        """
        self._wait(since, end)
        with self._changed:
            found = self._newer(since)
            number = found[-1][1] if found else max(since, self._number)
        return [
            key for key, _ in found if not isinstance(key, AccessRequestChanged) or self._owner(key.uid) == owner
        ], number

    def _owner(self, uid: str) -> str:
        """Whose a request is: others' changes, of which there may be thousands a second, wake nobody's poll."""
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
        """Wait until a request changes after the number ``beyond``, or the time ``end`` (monotonic) has come; answers
        its newest number.
        """
        key = AccessRequestChanged(uid)
        with self._changed:
            while self._keys.get(key, 0) <= beyond and not self.polls.draining and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._keys.get(key, 0)

    @contextmanager
    def answering(self, uid: str, *, since: int) -> Iterator[Answer]:
        """Inside, no poll is told of a request's changes: its owner waits for an answer, which tells of them.

        A change that came too late for the answer is told of afterwards; it is for the caller to say which was the last
        in time.

        Args:
            uid: The request.
            since: Number of the newest change that the answer tells of so far.
        """
        key, answer = AccessRequestChanged(uid), Answer(since)
        with self._changed:
            self._told[key] = math.inf
        try:
            yield answer
        finally:
            with self._changed:
                newest = self._keys.get(key, 0)
                self._told.pop(key, None)  # another call for the same request may have done so
                if newest:
                    self._told[key] = answer.number
            if newest > answer.number:
                self.publish(key)

    def number(self, uid: str) -> int:
        """The number of the newest change of a request; 0 if none is remembered."""
        with self._changed:
            return self._keys.get(AccessRequestChanged(uid), 0)

    def wake(self) -> None:
        """Let everybody who waits go on, as the process stops."""
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
            if number > self._told.get(key, 0):
                found.append((key, number))
        return found[::-1][:_PAGE]

    def _anew(self) -> Batch:
        """Begin with what nobody else will say: the cleanup roles that are wanted and the logins that are missing."""
        with self._changed:
            number, missing = self._number, tuple(self._missing)
        with self._ledger.read() as tx:
            wanted = [CleanupRoleChanged(each.name, each.target) for each in recoveries.pending(tx)]
        return self._batch([*wanted, *missing], number, owner="", restarted=True)

    def _batch(
        self, keys: Sequence[Key], number: int, *, owner: str, restarted: bool = False, waited: bool = True
    ) -> Batch:
        with self._ledger.read() as tx:
            found = requests.find_many(tx, [key.uid for key in keys if isinstance(key, AccessRequestChanged)])
            pairs = [
                (recoveries.find_cleanup_role(tx, key.name, key.target), catalog.target(tx, key.target))
                for key in keys
                if isinstance(key, CleanupRoleChanged)
            ]
            logins = tuple(catalog.target(tx, key.target) for key in keys if isinstance(key, VaultAuthNeeded))
        told = tuple(
            (cleanup_role, target)
            for cleanup_role, target in pairs
            if cleanup_role and cleanup_role.state is not CleanupRoleState.READY
        )
        with self._changed:
            for key in keys:
                self._unread.pop(key, None)
            for cleanup_role, _ in told:
                if cleanup_role.state is CleanupRoleState.UNNEEDED:
                    self._released[CleanupRoleChanged(cleanup_role.name, cleanup_role.target)] = number
        mine = tuple(request for request in found if request.owner == owner)
        return Batch(mine, told, logins, f"{self._epoch}:{number}", restarted, waited)

    def _dealt_with(self, since: int) -> None:
        """A poll with this cursor has dealt with all before it: cleanup roles that it was told may go need no more telling."""
        with self._changed:
            done = [key for key, number in self._released.items() if number <= since]
            for key in done:
                del self._released[key]
        if done:
            with self._ledger.write() as tx:
                for key in done:
                    recoveries.delete_unneeded(tx, key.name, key.target)
