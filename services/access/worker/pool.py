"""The worker pool: threads that take due work from the ledger, the most urgent first, until they are stopped."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection

from services.access.ledger import due_work
from services.access.ledger.db.database import SOON_S, Ledger, Tx
from services.access.ledger.due_work import Job, RenewalQueue
from services.access.requests import reassess
from services.access.vault.circuit_breaker import FIRST_PAUSE_S
from services.access.worker.dispatch import AttemptDispatcher
from services.access.worker.pacing import RateLimiter
from services.common.errors import LeasegateError
from services.common.logs import logger
from services.common.rpc import deadline

_LOG = logger(__name__)
_PAUSE_S = 2.0
_SHORTEST_SLEEP_S = 0.01
LONGEST_JOB_S = 12.0
"""Deadline of one piece of work: a Vault that never answers blocks a worker for so long, until its circuit opens."""


class WorkerPool:
    """Workers over the ledger's rows. The rows say what is due and when, so that no work is lost with the process."""

    def __init__(
        self,
        ledger: Ledger,
        dispatcher: AttemptDispatcher,
        *,
        workers: int,
        max_renewals_per_second: float = 0.0,
        pausing: Callable[[], Collection[tuple[str, str]]] = tuple[tuple[str, str]],
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            ledger: The ledger.
            dispatcher: Processes the attempts.
            workers: How many threads; a quarter of them never renews, and one tenant has at most three quarters.
            max_renewals_per_second: Most renewals that begin in a second; 0 for no limit.
            pausing: The Vaults, by server and namespace, whose circuit is open: their work is passed over.
        """
        self._ledger, self._dispatcher, self._pausing = ledger, dispatcher, pausing
        self._choosing = threading.Lock()  # guards what follows: one worker chooses at a time
        self._rate_limiter, self._renewals = RateLimiter(max_renewals_per_second), RenewalQueue()
        self._busy: dict[str, str] = {}  # the tenant by what a worker is at
        self._most_of_tenant = workers - workers // 4
        self._paused: dict[str, float] = {}
        self._lock = threading.Lock()  # guards what follows
        self._sleeping = {renews: threading.Condition(self._lock) for renews in (False, True)}
        self._sleepers = Counter[bool]()
        self._wakes_at = dict.fromkeys(self._sleeping, math.inf)  # when the first sleeper of a kind wakes by itself
        self._commits, self._stopping = 0, False
        never = max(1, workers // 4) if workers > 1 else 0
        self._threads = [
            threading.Thread(target=self._run, kwargs={"renews": number >= never}, name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]
        ledger.listeners.append(self._committed)

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, within_s: float = 10.0) -> None:
        """Take no more work and wait for what is under way; the next process finds the rest in the ledger."""
        with self._lock:
            self._stopping = True
            for condition in self._sleeping.values():
                condition.notify_all()
        end = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _committed(self, tx: Tx) -> None:
        if tx.work:
            self._wake()

    def _wake(self) -> None:
        """Wake one worker: one that renews, as it takes any work, unless all of those are busy."""
        with self._lock:
            self._commits += 1
            self._sleeping[self._sleepers[True] > 0].notify()

    def _run(self, *, renews: bool) -> None:
        while (job := self._next_job(renews=renews)) is not None:
            key = job.attempt or job.request
            try:
                self._process(job)
            except Exception as err:
                self._pause(key, err)
            finally:
                with self._choosing:
                    tenants = Counter(self._busy.values())
                    tenant = self._busy.pop(key, "")
                if tenants[tenant] >= self._most_of_tenant:
                    self._wake()  # the limit may have kept back more of this tenant

    def _process(self, job: Job) -> None:
        if job.attempt:
            with deadline.within(LONGEST_JOB_S):
                self._dispatcher.process_attempt(job.attempt)
        else:
            with self._ledger.write() as tx:
                reassess.expire(tx, job.request)

    def _pause(self, key: str, err: Exception) -> None:
        """Pass work over for a while whose failure could not be stored, or that raised an unhandled exception."""
        if isinstance(err, LeasegateError):
            _LOG.error("work failed and could not be requeued", key=key, reason=err.reason)
        else:
            _LOG.error("unhandled exception in worker", key=key, exc_info=err)
        with self._choosing:
            self._paused[key] = time.monotonic() + _PAUSE_S

    def _next_job(self, *, renews: bool) -> Job | None:
        """Wait for a piece of work; None once stopped."""
        while True:
            with self._lock:
                if self._stopping:
                    return None
                commits = self._commits
            job, pause_s = self._choose(renews=renews)
            if job:
                self._wake()  # there may be more for others
                return job
            with self._lock:
                if commits == self._commits and not self._stopping:
                    self._sleep(pause_s, renews=renews)

    def _sleep(self, pause_s: float, *, renews: bool) -> None:
        """Sleep until woken, or until the pause is over unless another worker wakes by then.

        So one worker reads the ledger when work becomes due, and wakes the next if it finds some. One that does not
        renew cannot keep the time for those that do.
        """
        wakes_at, others_wake_at = time.monotonic() + pause_s, self._wakes_at[True]
        if not renews:
            others_wake_at = min(self._wakes_at.values())
        self._sleepers[renews] += 1
        if wakes_at > others_wake_at - _SHORTEST_SLEEP_S:
            self._sleeping[renews].wait()
        else:
            self._wakes_at[renews] = wakes_at
            self._sleeping[renews].wait(pause_s)
            if self._wakes_at[renews] == wakes_at:  # else another wakes earlier
                self._wakes_at[renews] = math.inf
        self._sleepers[renews] -= 1

    def _choose(self, *, renews: bool) -> tuple[Job | None, float]:
        """Choose a piece of work, or how long to sleep at most."""
        try:
            with self._choosing, self._ledger.read() as tx:
                now = time.monotonic()
                self._paused = {key: until for key, until in self._paused.items() if until > now}
                pausing = self._pausing()
                throttled_s = self._rate_limiter.wait_s() if renews else 0.0
                busy = self._busy.keys() | self._paused.keys()
                job = due_work.next_job(
                    tx,
                    busy=busy,
                    renews=renews,
                    throttled=throttled_s > 0,
                    renewals=self._renewals,
                    without=pausing,
                    tenants=Counter(self._busy.values()),
                    most_of_tenant=self._most_of_tenant,
                )
                if job:
                    self._begin(job)
                    return job, 0.0
                at = due_work.next_due_at(tx)
                longest = throttled_s or (FIRST_PAUSE_S if pausing else SOON_S)
                return None, longest if at is None else min(max(at - tx.now, _SHORTEST_SLEEP_S), longest)
        except LeasegateError as err:
            _LOG.error("ledger not readable", reason=err.reason)
            return None, _PAUSE_S
        except Exception:  # a defect ends one choice, not the worker
            _LOG.exception("unhandled exception in worker")
            return None, _PAUSE_S

    def _begin(self, job: Job) -> None:
        self._busy[job.attempt or job.request] = job.tenant
        if job.renewal:
            self._rate_limiter.count_begun()
