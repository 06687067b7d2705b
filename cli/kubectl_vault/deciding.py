"""One request from reading it to writing the decision.

Waits for the watcher's first look, and tries again when somebody else wrote meanwhile. Knows the cluster by the two calls that it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cli.kubectl_vault.decisions import Decision, Json, Verdict, check, decided, not_seen_yet
from cli.kubectl_vault.problem import ConflictError
from cli.kubectl_vault.resource import Named

_TRIES = 10
_POLL_S = 0.2


class Requests(Protocol):
    """What is needed of the cluster."""

    def read(self, named: Named) -> Json:
        """Read one request."""

    def write_conditions(self, named: Named, request: Json, conditions: list[Json]) -> None:
        """Replace the conditions of a request that is still as it was read, else raise Conflict."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as far as deciding needs it."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


def decide(requests: Requests, named: Named, decision: Decision, *, clock: Clock, wait_s: float) -> None:
    """Write the decision.

    Args:
        requests: The cluster.
        named: The request.
        decision: What is decided and by whom.
        clock: Time.
        wait_s: Longest wait in seconds for the watcher to publish what would be granted, where that is approved.

    Raises:
        Problem: It may not be decided so, or the cluster refused.
    """
    for attempt in range(1, _TRIES + 1):
        request = _read(requests, named, decision.verdict, clock=clock, wait_s=wait_s)
        check(request, decision.verdict)
        try:
            return requests.write_conditions(named, request, decided(request, decision, clock.now()))
        except ConflictError:
            if attempt == _TRIES:
                raise
            clock.sleep(0.02 * attempt)
    return None


def _read(requests: Requests, named: Named, verdict: Verdict, *, clock: Clock, wait_s: float) -> Json:
    end = clock.monotonic() + wait_s
    while True:
        request = requests.read(named)
        if verdict is not Verdict.APPROVE or not not_seen_yet(request) or clock.monotonic() >= end:
            return request
        clock.sleep(_POLL_S)
