"""Real outages around the stack's processes: Vault killed, stopped, sealed, refusing, throttling; PostgreSQL; disk.

That Vault answers 500 after it did the work, or that its answer is lost, is in the quick path (``weather``), where the
test controls the wire.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from deploy.vault.api import VaultError
from dev.stack.errors import StackError
from dev.stack.stack import LocalStack
from tests.chaos.agreement import Eyes
from tests.chaos.disk import FullDisk
from tests.eventually import eventually

HANG_S = (1.0, 4.0)
_QUOTA = "sys/quotas/rate-limit/chaos"
_POLICY = "sys/policies/acl/leasegate-access"


class Outages:
    """Each is a context; after it all is well again.

    Args:
        stack: Whose servers fail.
        eyes: Root's.
        rng: Decides which, and how long a hang lasts.
    """

    def __init__(self, stack: LocalStack, eyes: Eyes, rng: random.Random) -> None:
        self._stack, self._eyes, self._rng = stack, eyes, rng
        self._all: dict[str, Callable[[], object]] = {
            "connection reset": self._killed,
            "hang": self._stopped,
            "503 sealed": self._sealed,
            "403": self._denied,
            "429": self._throttled,
            "PostgreSQL down": self._postgres_down,
            "PostgreSQL cut": self._postgres_cut,
            "disk full": self._disk_full,
        }
        self._next = self._order()

    def _order(self) -> Iterator[str]:
        while True:
            yield from self._rng.sample(tuple(self._all), len(self._all))

    @contextmanager
    def one(self) -> Iterator[str]:
        """The next one, while inside; answers its name."""
        name = next(self._next)
        with self._all[name]():  # type: ignore[attr-defined]
            yield name

    @contextmanager
    def _killed(self) -> Iterator[None]:
        vault = self._stack.process("bao")
        vault.kill()
        try:
            yield
        finally:
            self._stack.start_vault()

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        vault = self._stack.process("bao").identity()
        assert vault is not None
        vault.signal(signal.SIGSTOP)
        try:
            yield
            time.sleep(self._rng.uniform(*HANG_S))  # calls hang for so long
        finally:
            vault.signal(signal.SIGCONT)

    @contextmanager
    def _sealed(self) -> Iterator[None]:
        self._stack.seal()
        try:
            yield
        finally:
            self._stack.unseal()

    @contextmanager
    def _denied(self) -> Iterator[None]:
        vault = self._stack.vault_api()
        known = vault.call("GET", _POLICY).body["data"]["policy"]
        self._must("POST", _POLICY, {"policy": 'path "auth/token/renew-self" { capabilities = ["update"] }'})
        try:
            yield
        finally:
            self._must("POST", _POLICY, {"policy": known})

    @contextmanager
    def _throttled(self) -> Iterator[None]:
        self._must("POST", _QUOTA, {"path": "auth/token/", "rate": 1, "interval": "1s"})
        try:
            yield
        finally:
            self._must("DELETE", _QUOTA)

    @contextmanager
    def _postgres_down(self) -> Iterator[None]:
        self._stack.stop_postgres()
        try:
            yield
        finally:
            self._stack.start_postgres()

    @contextmanager
    def _postgres_cut(self) -> Iterator[None]:
        self._eyes.cut_postgres()
        yield
        self._eyes.cut_postgres()

    @contextmanager
    def _disk_full(self) -> Iterator[None]:
        """For the access service as it runs now."""
        access = self._stack.process("access").identity()
        if access is None:
            yield
            return
        with suppress(ProcessLookupError):
            disk = FullDisk(access.pid)
            disk.fill()
            try:
                yield
            finally:
                disk.clear()

    def _must(self, method: str, path: str, body: dict[str, object] | None = None) -> None:
        def done() -> bool:
            with suppress(VaultError):
                return self._stack.vault_api().call(method, path, body).ok
            return False

        if not eventually(done, timeout_s=30, what=f"{method} {path}"):
            raise StackError(f"{method} {path} was refused")
