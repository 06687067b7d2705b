"""Leases that live for seconds: roles with short TTLs, a fake watcher, a client that connects, and gRPC holders.

Several worlds share one pair of servers, each with a mount, a service and a ledger of its own, so that their waits pass
side by side.
"""

from __future__ import annotations

import itertools
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasegate.access.v1 import change_pb2, lease_pb2
from leasegate.access.v1 import operator_service_pb2 as operator
from leasegate.access.v1 import requester_service_pb2 as requester
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import LeasegateError
from tests.eventually import eventually
from tests.integration.access_world import (
    ALICE,
    OPERATOR,
    WATCHER,
    Callee,
    Dar,
    Watcher,
    World,
    approve,
    in_process,
    world,
)
from tests.servers import Servers, real_servers

_OPENING = threading.Lock()


@contextmanager
def serving(made: World, **settings: Any) -> Iterator[Callee]:
    """The service in this process; one begins at a time, as Alembic migrates one ledger at a time."""
    with ExitStack() as stack:
        with _OPENING:
            callee = stack.enter_context(in_process(made, **settings))
        yield callee


def vault_role(name: str) -> str:
    return f"k8s.-.demo.{name}"


def offer(
    made: World,
    callee: Callee,
    name: str,
    *,
    ttl_s: int,
    max_ttl_s: int,
    told_ttl_s: int | None = None,
    told_max_s: int | None = None,
) -> None:
    """A role in Vault, and in the catalog as it is, or with other TTLs."""
    made.write_role(vault_role(name), ttl=f"{ttl_s}s", max_ttl=f"{max_ttl_s}s")
    snapshot = made.snapshot(name=name, ttl_s=told_ttl_s or ttl_s, max_ttl_s=told_max_s or max_ttl_s)
    if not snapshot.definition.max_ttl.seconds:
        snapshot.definition.ClearField("max_ttl")
    callee.as_(WATCHER).watcher.PutDbRoleSnapshot(watcher.PutDbRoleSnapshotRequest(snapshot=snapshot))


def database_users(made: World, role: str) -> set[str]:
    """The database users of one role."""
    return {name for name in made.database_users() if name.startswith(f"token-demo-{role}-")}


def seconds(at: Timestamp) -> float:
    """A Timestamp as seconds."""
    return at.seconds + at.nanos / 1e9


# -- requests of Kubernetes
# --------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """One request with what its Secret holds."""

    dar: Dar
    secret_attempt: int = 0
    credential: lease_pb2.Credential = field(default_factory=lease_pb2.Credential)
    claims: int = 0

    def claim(self) -> None:
        """Claim, write the Secret, acknowledge."""
        got = self.dar.claim(secret_attempt=self.secret_attempt)
        self.secret_attempt, self.credential, self.claims = got.attempt, got, self.claims + 1
        self.dar.acknowledge(got.attempt)

    def reconcile(self) -> bool:
        """What the watcher does with a request, once; answers whether nothing is left to do."""
        answer = self.dar.ensure(secret_attempt=self.secret_attempt)
        if answer.next_step == watcher.NEXT_STEP_CLAIM:
            self.claim()
        elif answer.next_step == watcher.NEXT_STEP_ACKNOWLEDGE:
            self.dar.acknowledge(self.secret_attempt)
        else:
            return not answer.HasField("retry_after")
        return False


class Keeper(Watcher):
    """Keeps Secrets as the watcher does: it claims when the service says so on its feed, and tries again what fails."""

    def __init__(self, made: World, callee: Callee) -> None:
        super().__init__(made, callee)
        self._kept: dict[str, Kept] = {}
        self._open: set[str] = set()
        self._pool = ThreadPoolExecutor(4)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._pool.shutdown()

    def keep(self, kept: Kept) -> Kept:
        """From here on only the keeper uses it; its ``credential`` may be read."""
        self._kept[kept.dar.uid] = kept
        self._open.add(kept.dar.uid)
        return kept

    def forget(self) -> list[Kept]:
        """Keep nothing any more."""
        self.__exit__()
        return list(self._kept.values())

    def _run(self) -> None:
        cursor = ""
        while not self._stop.is_set():
            wait = Duration(nanos=200_000_000) if self._open else Duration(seconds=1)
            try:
                answer = self._stub.WatchChanges(watcher.WatchChangesRequest(cursor=cursor, max_wait=wait))
                for change in answer.changes:
                    self._take(change)
                cursor = answer.next_cursor
            except LeasegateError:
                self._stop.wait(0.1)
            self._settle()

    def _take(self, change: change_pb2.Change) -> None:
        super()._take(change)
        if change.HasField("access_request_changed") and change.access_request_changed.uid in self._kept:
            self._open.add(change.access_request_changed.uid)

    def _settle(self) -> None:
        for uid, settled in self._pool.map(self._reconciled, sorted(self._open)):
            if settled:
                self._open.discard(uid)

    def _reconciled(self, uid: str) -> tuple[str, bool]:
        try:
            return uid, self._kept[uid].reconcile()
        except LeasegateError:
            return uid, False


def approved(callee: Callee, role: str, *, ttl_s: int = 0) -> Kept:
    """A request that is approved and not yet claimed."""
    dar = Dar(callee, role=role, ttl_s=ttl_s)
    dar.ensure()
    dar.decide()
    return Kept(dar)


def many(callee: Callee, role: str, count: int) -> list[Kept]:
    """So many requests, each with its credential, made by eight at once."""

    def one(_: int) -> Kept:
        kept = approved(callee, role)
        kept.claim()
        return kept

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def end_all(made: World, role: str, kept: Sequence[Kept]) -> None:
    """End them; no database user of the role is left."""
    for each in kept:
        each.dar.end()
    eventually(lambda: not database_users(made, role), timeout_s=60, what=f"no database user of {role}")
    eventually(lambda: not made.leases(vault_role(role)), timeout_s=60, what=f"no lease of {role}")


class Client:
    """An application that logs in again and again with what the Secrets hold at that moment."""

    def __init__(self, made: World, kept: Sequence[Kept], *, pause_s: float = 0.1) -> None:
        self.count, self.failed = 0, list[str]()
        self._made, self._kept, self._pause_s = made, kept, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        for each in itertools.cycle(self._kept):
            if self._stop.wait(self._pause_s):
                return
            credential, read_at = each.credential, time.time()
            try:
                self._made.connect(credential).close()
                self.count += 1
            except psycopg.OperationalError as err:
                late_s = time.time() - read_at
                now = f"{late_s:.2f} s after it was read; the Secret holds attempt {each.secret_attempt} now"
                self.failed.append(f"attempt {credential.attempt} of {each.dar.uid} at {read_at:.2f}, {now}: {err}")


# -- holders over gRPC
# --------------------------------------------------------------------------------------------------


class Holder:
    """A program that holds a credential over gRPC."""

    def __init__(self, callee: Callee, role: str) -> None:
        self._calls = callee.as_(ALICE).requester
        message = requester.CreateAccessRequestRequest(
            request_id=secrets.token_hex(8), vault_target="prod", db_role=role
        )
        self.id = self._calls.CreateAccessRequest(message).access_request.id
        approve(callee, self.id)
        self.credential = lease_pb2.Credential()

    def claim(self) -> lease_pb2.Credential:
        """Take a credential, or another one, into use."""
        message = requester.ClaimCredentialRequest(access_request_id=self.id, known_attempt=self.credential.attempt)
        self.credential = self._calls.ClaimCredential(message).credential
        self._calls.AcknowledgeCredential(
            requester.AcknowledgeCredentialRequest(access_request_id=self.id, attempt=self.credential.attempt)
        )
        return self.credential

    def renew(self) -> requester.RenewLeaseResponse:
        """The heartbeat."""
        return self._calls.RenewLease(
            requester.RenewLeaseRequest(request_id=secrets.token_hex(8), access_request_id=self.id)
        )

    def release(self) -> None:
        """Give access back."""
        self._calls.ReleaseAccessRequest(
            requester.ReleaseAccessRequestRequest(request_id=secrets.token_hex(8), access_request_id=self.id)
        )


def lease_shown(callee: Callee, handle: str) -> lease_pb2.Lease:
    """A lease as the operator sees it, ended or not."""
    calls = callee.as_(OPERATOR).operator
    states = (lease_pb2.LEASE_STATE_UNSPECIFIED, lease_pb2.LEASE_STATE_CLOSED)
    pages = [calls.ListLeases(operator.ListLeasesRequest(state=state, page_size=500)).leases for state in states]
    found = [lease for lease in itertools.chain(*pages) if lease.handle == handle]
    assert found, f"the operator sees no lease {handle}"
    return found[0]


def audited(servers: Servers, what: str) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """The entries of Vault's audit log that contain ``what``: time, ``request`` or ``response``, and the request."""
    log = Path(servers.must("GET", "sys/audit")["data"]["canary/"]["options"]["file_path"])
    for line in log.read_text().splitlines():
        if what in line:
            entry = json.loads(line)
            at = datetime.fromisoformat(entry["time"][:26].rstrip("Z") + "+00:00").timestamp()
            yield at, entry["type"], entry["request"]


def tokens_of(made: World, uid: str) -> list[str]:
    """Accessors of the valid tokens of an access request; several if a claim comes before its token is prepared."""
    found = []
    for accessor in made.servers.must("LIST", "auth/token/accessors")["data"]["keys"]:
        status, body = made.servers.vault("POST", "auth/token/lookup-accessor", accessor=accessor)
        if status == 200 and (body["data"].get("meta") or {}).get("access_request") == uid:
            found.append(str(accessor))
    return found


# -- scenes
# --------------------------------------------------------------------------------------------------

Scene = Callable[[World], object]


class Scenes:
    """What is played side by side; a test asks for the end of its own."""

    def __init__(self, played: dict[Scene, Future[object]]) -> None:
        self._played = played

    def of(self, scene: Scene) -> Any:
        """What the scene answered, once it is over; what it raised is raised here."""
        return self._played[scene].result(timeout=280)


@contextmanager
def playing(folder: Path, *scenes: Scene, apart: Sequence[Scene] = ()) -> Iterator[Scenes]:
    """Play scenes at once, each in a world of its own.

    Args:
        folder: For their files.
        scenes: Those that share a pair of servers.
        apart: Those that seal or change theirs, and so have a pair each. All servers start before any gRPC, which minds
            a fork.
    """
    with ExitStack() as stack:
        together = stack.enter_context(real_servers())
        places = [(scene, together) for scene in scenes] + [
            (scene, stack.enter_context(real_servers())) for scene in apart
        ]
        worlds = {scene: stack.enter_context(_world(scene, servers, folder)) for scene, servers in places}
        with ThreadPoolExecutor(len(worlds)) as pool:
            yield Scenes({scene: pool.submit(scene, made) for scene, made in worlds.items()})


def _world(scene: Scene, servers: Servers, folder: Path) -> AbstractContextManager[World]:
    mine = folder / scene.__name__
    mine.mkdir()
    return world(servers, mine, mount=f"team/{scene.__name__.replace('_', '-')}")
