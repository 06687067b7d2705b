"""gRPC callers beside the stack's Kubernetes requests: they ask, claim, renew, release; some are denied meanwhile."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import psycopg

from dev.stack import films_role
from dev.stack.errors import StackError
from dev.stack.stack import LocalStack
from leasegate.access.v1 import approver_service_pb2_grpc as approver_grpc
from leasegate.access.v1 import operator_service_pb2_grpc as operator_grpc
from leasegate.access.v1 import requester_service_pb2_grpc as requester_grpc
from leasegate.access.v1 import watcher_service_pb2_grpc as watcher_grpc
from services.common.config import ClientTls
from services.common.errors import LeasegateError
from services.common.rpc.channel import connect
from tests.chaos.agreement import LOST, Row
from tests.chaos.holders import Holder
from tests.integration.access_world import Callers

MOUNT = films_role.MOUNT
PLAIN, SLOW, BRIEF = films_role.ROLE, "films-slow", "films-brief"
BRIEF_TTL_S, BRIEF_MAX_S = 12, 36
MOST, MOST_SESSIONS = 6, 30
_SLOW = "SELECT pg_sleep(0.6);"


def prepare(stack: LocalStack) -> None:
    """Add a slow role and a brief one to Vault and to the catalog, which access reads at its next start."""
    vault = stack.vault_api()
    role = vault.call("GET", f"{MOUNT}/roles/{PLAIN}").body["data"]
    kept = {name: role[name] for name in ("db_name", "creation_statements", "revocation_statements")}
    slow = kept | {"creation_statements": [*role["creation_statements"], _SLOW], "default_ttl": "1h", "max_ttl": "24h"}
    brief = kept | {"default_ttl": f"{BRIEF_TTL_S}s", "max_ttl": f"{BRIEF_MAX_S}s"}
    file = Path(stack.directory) / "services" / "catalog.yaml"
    catalog = json.loads(file.read_text())
    for path, body in (
        (f"{MOUNT}/config/{films_role.CONNECTION}", {"allowed_roles": "*"}),
        (f"{MOUNT}/roles/{SLOW}", slow),
        (f"{MOUNT}/roles/{BRIEF}", brief),
    ):
        if not (answer := vault.call("POST", path, body)).ok:
            raise StackError(f"{path}: {answer.status} {answer.errors}")
    for name, definition in ((SLOW, slow), (BRIEF, brief)):
        catalog["roles"].append(
            {"name": name, "target": films_role.TARGET, "mount": MOUNT, "vault_role": name, **definition}
        )
    file.write_text(json.dumps(catalog))


class Beside:
    """Them all; a thread that acts for them and one for those who are denied, both until they are stopped.

    Args:
        stack: The running stack.
        rng: Decides what they do.

    Attributes:
        made: How many there were.
        refusing: How many sessions own something, for which PostgreSQL refuses to drop their user.
    """

    def __init__(self, stack: LocalStack, rng: random.Random) -> None:
        self._stack, self._rng = stack, rng
        self._channels: dict[str, grpc.Channel] = {}
        self._holders: list[Holder] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sessions: list[psycopg.Connection[Any]] = []
        self.made = self.refusing = 0

    def as_(self, san: str) -> Callers:
        """The stubs of one of the stack's clients, by name."""
        if san not in self._channels:
            cert, key, ca = self._stack.client_cert(san)
            self._channels[san] = connect(self._stack.addresses["access"], tls=ClientTls(cert, key, ca), timeout_s=15.0)
        channel = self._channels[san]
        return Callers(
            watcher_grpc.WatcherServiceStub(channel),
            requester_grpc.RequesterServiceStub(channel),
            approver_grpc.ApproverServiceStub(channel),
            operator_grpc.OperatorServiceStub(channel),
        )

    def start(self) -> None:
        """Begin to act."""
        self._stop.clear()
        seeds = [self._rng.random() for _ in range(2)]
        steps = (self._act, self._deny_while_claiming)
        self._threads = [
            threading.Thread(target=self._repeat, args=(step, random.Random(seed)), daemon=True)
            for step, seed in zip(steps, seeds, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Act no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Hang up."""
        for session in self._sessions:
            session.close()
        for channel in self._channels.values():
            channel.close()

    def end(self) -> None:
        """All of them give back what they hold."""
        for each in self._holders:
            each.delete()

    def unrest(self, rows: list[Row], works: Callable[[str, str], bool]) -> list[str]:
        """Let each go on, without any mishap; answers who is not at rest, or holds what does not work.

        Args:
            rows: The ledger's open attempts.
            works: Whether one can log in with a name and a password.
        """
        wrong = []
        active = {row.access_request_id: row for row in rows if row.state == "active"}
        for each in tuple(self._holders):
            try:
                done = each.reconcile()
            except LeasegateError as err:
                wrong.append(f"holder {each.uid}: {err.reason}: {err.message}")
                continue
            row = active.get(each.uid)
            if not done:
                wrong.append(f"holder {each.uid} is not at rest")
            elif each.deleted or (each.ended and row is None):
                self._holders.remove(each)
            elif each.approved and (row is None or row.sequence != each.secret_attempt):
                wrong.append(f"holder {each.uid} holds {each.secret_attempt}, active is {row and row.sequence}")
            elif each.approved and not works(each.credential.username, each.credential.password):
                wrong.append(f"{LOST} holder {each.uid}: the credential of attempt {each.secret_attempt} does not work")
        return wrong

    def _repeat(self, step: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._stop.wait(0.05):
            with suppress(LeasegateError):
                step(rng)

    def _new(self, role: str) -> Holder:
        self.made += 1
        every_s = BRIEF_TTL_S / 4 if role == BRIEF else 1200.0
        return Holder(
            self, role=role, target=films_role.TARGET, requester="alice", approver="bob", renew_every_s=every_s
        )

    def _act(self, rng: random.Random) -> None:
        if len(self._holders) < MOST and rng.random() < 0.3:
            self._holders.append(self._new(BRIEF if rng.random() < 0.5 else PLAIN))
        for each in tuple(self._holders):
            chance = rng.random()
            if chance < 0.3 and not each.approved:
                each.approve()
            elif chance > 0.997:
                each.delete()
            elif chance > 0.995:
                each.lose()
            elif chance > 0.985:
                each.former_leader()
            elif chance > 0.975:
                self._own_something(each)
            if each.reconcile(rng) and each.deleted:
                self._holders.remove(each)

    def _own_something(self, each: Holder) -> None:
        """Keep a session open that owns a temporary table."""
        if each.secret_attempt and len(self._sessions) < MOST_SESSIONS:
            with suppress(psycopg.Error):
                user, password = each.credential.username, each.credential.password
                session = psycopg.connect(
                    self._stack.postgres_url, user=user, password=password, autocommit=True, connect_timeout=5
                )
                self._sessions.append(session)
                session.execute("CREATE TEMP TABLE mine (a int)")
                self.refusing += 1

    def _deny_while_claiming(self, rng: random.Random) -> None:
        """Somebody is denied while Vault creates the user."""
        each = self._new(SLOW)
        self._holders.append(each)
        for _ in range(100):
            with suppress(LeasegateError):
                if each.approved:
                    break
                each.approve()
                each.step(None)
            if self._stop.wait(0.05):
                return
        claiming = threading.Thread(target=_quietly, args=(each.claim,), daemon=True)
        claiming.start()
        self._stop.wait(rng.uniform(0.1, 0.5))
        with suppress(LeasegateError):
            each.deny()
        claiming.join()


def _quietly(call: Callable[[], object]) -> None:
    with suppress(LeasegateError):
        call()
