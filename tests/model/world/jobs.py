"""Runs calls and workers of the access service one step at a time, so that a test orders and kills them at any step.

A job is a thread of its own, but only one runs at a time: it stops at each failpoint and at each call to Vault until it
is resumed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from services.common import failpoints
from services.common.errors import LeasegateError
from services.common.vault.response import Answer
from tests.model.world.vault import AttemptVault, Call

_running: Job | None = None


class Killed(BaseException):
    """The process ends here, as by SIGKILL: nothing of it may do anything any more."""


class Job:
    """A call that is handled, or a worker's step.

    Attributes:
        at: Where it stopped.
        call: What it waits for in Vault.
        result: What it came to.
        error: What it failed with.
    """

    def __init__(self, name: str, do: Callable[[], Any]) -> None:
        self.name, self._do = name, do
        self.at = "begun"
        self.call: Call | None = None
        self.lost: LeasegateError | None = None
        self.over = self.killed = False
        self.result: Any = None
        self.error: LeasegateError | None = None
        self._defect: BaseException | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Let it go on to its next stop."""
        global _running
        _running = self
        self._go.release()
        self._back.acquire()
        _running = None
        if self.over:
            self._thread.join()
        if self._defect:
            raise self._defect

    def kill(self) -> None:
        """End it where it stands; what Vault has begun for it goes on."""
        self.killed = True
        if self.call:
            self.call.awaited = False
        if not self.over:
            self.resume()

    def lose(self, error: LeasegateError) -> None:
        """Its call to Vault fails for it, whatever Vault goes on to do."""
        if self.call:
            self.call.awaited, self.lost = False, error

    def pause(self, at: str) -> None:
        """Stop here until resumed; for its own thread.

        Raises:
            Killed: Its process ended meanwhile.
        """
        self.at = at
        self._back.release()
        self._go.acquire()
        if self.killed:
            raise Killed

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                self.result = self._do()
        except Killed:
            pass
        except LeasegateError as err:
            self.error = err
        except BaseException as err:
            self._defect = err
        finally:
            self.over = True
            self._back.release()


class Stops(failpoints.Failpoints):
    """Stops the running job at each crash point, but for those within a transaction."""

    def __init__(self, inside: Callable[[], bool]) -> None:
        super().__init__()
        self._inside = inside

    def pass_by(self, name: str) -> None:
        """Stop here."""
        if _running and not self._inside():
            _running.pause(name)


class Port:
    """The port ``services.common.vault.client.Vault`` to the Vault in memory."""

    address = "https://vault.test:8200"

    def __init__(self, vault: AttemptVault) -> None:
        self._vault = vault

    def read(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """GET."""
        return self._send("GET", path, {}, token)

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """POST."""
        return self._send("POST", path, body or {}, token)

    def delete(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        """DELETE."""
        return self._send("DELETE", path, {}, token)

    def _send(self, method: str, path: str, body: Mapping[str, Any], token: str | None) -> Answer:
        job = _running
        if job is None or job.killed:
            raise Killed
        job.call, job.lost = self._vault.begin(method, path, body, token or ""), None
        while not (job.call.done or job.lost):
            job.pause(f"vault: {job.call.kind} {job.call.stage}")
        call, job.call = job.call, None
        if job.lost:
            raise job.lost
        if call.error:
            raise call.error
        return call.answer
