"""Vault and PostgreSQL as one attempt sees them, in memory, answering real calls.

Calls go step by step, so that a test decides what happens between: a read of ``creds`` goes on without its client,
breaks off before or after CREATE ROLE (which leaves a user without a lease), or registers its lease under a token that
was revoked meanwhile. Nothing waits. ``tests/contract/test_attempt_vault.py`` asks the same of the real servers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from services.common.errors import VaultFailedError, VaultPolicyMissingError, VaultRefusedError
from services.common.vault.response import Answer, Auth, VaultNotFoundError
from tests.fakes.vault_errors import answered

MOUNT, ROLE = "team/orders", "k8s.-.demo.psql-role"
TTL_S, MAX_TTL_S, CLEANUP_ROLE_TTL_S = 3600.0, 4 * 3600.0, 60.0
_KINDS = {
    "auth/token/create/": "make",
    "auth/token/revoke-accessor": "end",
    "sys/leases/revoke/": "revoke",
    "sys/leases/revoke-force/": "forget",
    "sys/leases/renew/": "renew",
}
How = Literal["team", "cleanup_role", "unowned", "finish"]


@dataclass(slots=True)
class FakeToken:
    """A token, known by its accessor.

    Attributes:
        half_ended: Whether its end was broken off: nobody can use it, nor end it.
    """

    accessor: str
    display: str
    ends_at: float
    alive: bool = True
    half_ended: bool = False


@dataclass(slots=True)
class FakeLease:
    """A lease on a user.

    Attributes:
        accessor: Of the token that it ends with; empty if that was revoked while it was made.
        how: Whose revocation statements it carries.
    """

    id: str
    user: str
    accessor: str
    how: How
    ends_at: float
    max_ends_at: float


@dataclass(slots=True, eq=False)
class Call:
    """One call that Vault is at.

    Attributes:
        awaited: Whether its client still waits for it.
        done: Whether it is over, with ``answer`` or ``error``.
    """

    kind: str
    path: str
    body: Mapping[str, Any]
    token: str
    begun_at: float
    stage: int = 0
    awaited: bool = True
    done: bool = False
    answer: Answer = field(default_factory=Answer)
    error: Exception | None = None


class AttemptVault:
    """One Vault with one database mount and one PostgreSQL.

    Attributes:
        users: The database users, and whether each may log in.
        cleanup_roles: The cleanup roles; whose statements each has.
        owning: Users that own something, so that PostgreSQL refuses to drop them by the usual statements.
        failing: Users on which the team's statements fail, whatever they own.
        revoking: Leases that Vault revokes in the background.
        calls: What it is at.
        definition: Digest of the db_role as Vault has it.
        made_by: What it was when each user was created.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        strict: bool = False,
        absent: bool = True,
        lockout: bool = True,
        most_s: float = 90.0,
    ) -> None:
        """Empty servers.

        Args:
            clock: The time in seconds.
            strict: Whether the team's revocation statements fail on a role that is not there.
            absent: The rule of that name: all revocation statements first make the role NOLOGIN if it is absent.
            lockout: The rule of that name: a cleanup role makes the user NOLOGIN, whatever becomes of its lease.
            most_s: ``default_max_request_duration``.
        """
        self.lockout = lockout
        self.clock, self.strict, self.absent, self.most_s = clock, strict, absent, most_s
        self.tokens: dict[str, FakeToken] = {}
        self.leases: dict[str, FakeLease] = {}
        self.users: dict[str, bool] = {}
        self.cleanup_roles: dict[str, How] = {}
        self.owning, self.failing = set[str](), set[str]()
        self.revoking: set[str] = set()
        self.calls: list[Call] = []
        self.definition, self.made_by = "r1", dict[str, str]()
        self._numbers = itertools.count(1)

    def begin(self, method: str, path: str, body: Mapping[str, Any], token: str) -> Call:
        """A call arrives."""
        kind = next((kind for start, kind in _KINDS.items() if path.startswith(start)), "read")
        call = Call(kind, path, body, token, self.clock())
        self.calls.append(call)
        return call

    def advance(self, call: Call) -> None:
        """Go one step on with a call."""
        steps: dict[str, list[Callable[[Call], None]]] = {
            "make": [self._make],
            "end": [self._end],
            "revoke": [self._revoke],
            "forget": [self._remove],
            "renew": [self._renew],
            "read": [self._admit, self._create, self._register],
        }
        try:
            steps[call.kind][call.stage](call)
        except (VaultFailedError, VaultPolicyMissingError, VaultRefusedError, VaultNotFoundError) as err:
            call.error = err
        call.stage += 1
        if call.error or call.stage == len(steps[call.kind]):
            self.break_off(call)

    def break_off(self, call: Call, error: Exception | None = None) -> None:
        """A call is over; what it has done stays."""
        call.done, call.error = True, error or call.error
        self.calls.remove(call)

    def break_off_end(self, call: Call, error: Exception) -> None:
        """The end of a token is broken off by a seal: its leases stay."""
        if token := self.tokens.get(str(call.body["accessor"])):
            token.alive, token.half_ended = False, True
        self.break_off(call, error)

    def orphans(self) -> list[Call]:
        """The calls whose clients are gone."""
        return [call for call in self.calls if not call.awaited]

    def expire(self) -> None:
        """End what is past its TTL."""
        for token in self.tokens.values():
            if token.alive and token.ends_at <= self.clock():
                self._kill(token)
        self.revoking |= {lease.id for lease in self.leases.values() if lease.ends_at <= self.clock()}

    def revoke_in_background(self, lease_id: str) -> bool:
        """Try to revoke a lease that is to end; answers whether that went well."""
        try:
            self._drop(self.leases[lease_id])
        except VaultRefusedError:
            return False
        self._forget(lease_id)
        return True

    def refuses(self, lease: FakeLease) -> bool:
        """Whether the revocation statements of a lease fail now."""
        if lease.how == "finish":
            return False
        teams = lease.how in ("team", "cleanup_role")
        missing = lease.user not in self.users and self.strict and not self.absent and teams
        return missing or lease.user in self.owning or (teams and lease.user in self.failing)

    def _make(self, call: Call) -> None:
        accessor, ttl_s = f"accessor{next(self._numbers)}", float(str(call.body["ttl"]).removesuffix("s"))
        self.tokens[accessor] = FakeToken(accessor, str(call.body["display_name"]), self.clock() + ttl_s)
        auth = Auth(client_token=f"s.{accessor}", accessor=accessor, lease_duration_s=int(ttl_s), renewable=False)
        call.answer = Answer(auth=auth)

    def _end(self, call: Call) -> None:
        token = self.tokens.get(str(call.body["accessor"]))
        if token is None:
            raise VaultNotFoundError(call.path, no_mount=False)
        if token.half_ended:
            raise answered(400, "token not found", path=call.path)
        self._kill(token)

    def _kill(self, token: FakeToken) -> None:
        token.alive = False
        self.revoking |= {lease.id for lease in self.leases.values() if lease.accessor == token.accessor}

    def _admit(self, call: Call) -> None:
        if not self._token(call).alive:
            raise VaultPolicyMissingError(f"Vault answered 403 for {call.path}", path=call.path)
        if self._role(call) not in (ROLE, *self.cleanup_roles):
            raise answered(400, f"unknown role: {self._role(call)}", path=call.path)

    def _create(self, call: Call) -> None:
        user = self._user_name(call)
        if self._role(call) != ROLE:
            self.users[user] = self.users.get(user, False) and not self.lockout
        elif user in self.users:
            raise answered(500, f'ERROR: role "{user}" already exists (SQLSTATE 42710)', path=call.path)
        else:
            self.users[user] = True
            self.made_by[user] = self.definition

    def _register(self, call: Call) -> None:
        role, now = self._role(call), self.clock()
        how: How = "team" if role == ROLE else self.cleanup_roles.get(role, "cleanup_role")
        ttl_s, most_s = (TTL_S, MAX_TTL_S) if role == ROLE else (CLEANUP_ROLE_TTL_S, CLEANUP_ROLE_TTL_S)
        token = self._token(call)
        accessor = token.accessor if token.alive else ""
        lease = FakeLease(
            f"{call.path}/{next(self._numbers)}", self._user_name(call), accessor, how, now + ttl_s, now + most_s
        )
        self.leases[lease.id] = lease
        data = {"username": lease.user, "password": f"secret of {lease.id}"}
        call.answer = Answer(data=data, lease_id=lease.id, lease_duration_s=int(ttl_s), renewable=True)

    def _renew(self, call: Call) -> None:
        lease = self.leases.get(call.path.removeprefix("sys/leases/renew/"))
        if lease is None or lease.id in self.revoking:
            raise answered(400, "lease not found", path=call.path)
        lease.ends_at = min(self.clock() + float(call.body["increment"]), lease.max_ends_at)
        call.answer = Answer(lease_id=lease.id, lease_duration_s=int(lease.ends_at - self.clock()), renewable=True)

    def _revoke(self, call: Call) -> None:
        if lease := self.leases.get(call.path.removeprefix("sys/leases/revoke/")):
            self._drop(lease)
            self._forget(lease.id)

    def _remove(self, call: Call) -> None:
        """Remove a lease by force, whatever its statements do."""
        if lease := self.leases.get(call.path.removeprefix("sys/leases/revoke-force/")):
            with suppress(VaultRefusedError):
                self._drop(lease)
            self._forget(lease.id)

    def _drop(self, lease: FakeLease) -> None:
        if self.refuses(lease):
            failing = lease.user in self.failing and lease.how in ("team", "cleanup_role")
            code = "2BP01" if lease.user in self.owning and not failing else "42704"
            raise answered(400, f"failed to revoke: ERROR: no (SQLSTATE {code})", path=f"sys/leases/revoke/{lease.id}")
        self.users.pop(lease.user, None)
        self.owning.discard(lease.user)
        self.failing.discard(lease.user)

    def _forget(self, lease_id: str) -> None:
        del self.leases[lease_id]
        self.revoking.discard(lease_id)

    def _token(self, call: Call) -> FakeToken:
        return self.tokens[call.token.removeprefix("s.")]

    def _user_name(self, call: Call) -> str:
        return f"token-{self._token(call).display}"

    def _role(self, call: Call) -> str:
        return call.path.removeprefix(f"{MOUNT}/creds/")
