"""Decides one access request: reads it, waits until the watcher has processed it, and writes the decision.

A conflicting write is retried. The cluster is known by the two calls that this needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cli.kubectl_vault.decisions import Decision, Json, Verdict, check, check_digest, decided, not_seen_yet
from cli.kubectl_vault.errors import ConflictError
from cli.kubectl_vault.resource import Named

_TRIES = 10
_POLL_S = 0.2


class Requests(Protocol):
    """The calls to the cluster."""

    def get_request(self, named: Named) -> Json:
        """Read one access request."""

    def write_conditions(self, named: Named, request: Json, conditions: list[Json]) -> None:
        """Replace the conditions of an access request; raise ConflictError if it has changed since it was read."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time, monotonic time and sleep."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]


def decide(
    requests: Requests,
    named: Named,
    decision: Decision,
    *,
    clock: Clock,
    wait_s: float,
    digest: str = "",
    show: Callable[[Json], None] = lambda _: None,
) -> None:
    """Write the decision. An approval is for what was shown, or for the digest that the caller names.

    Args:
        requests: The cluster.
        named: The access request.
        decision: What is decided and by whom.
        clock: Time.
        wait_s: Longest wait in seconds for the watcher to publish what an approval would grant.
        digest: Digest of the grant that the approver has looked at before; empty for what is shown now.
        show: Called once with an access request that is about to be approved.

    Raises:
        CommandError: The decision is not allowed, something else would be granted, or the cluster refused it.
    """
    shown = False
    for attempt in range(1, _TRIES + 1):
        request = _read(requests, named, decision.verdict, clock=clock, wait_s=wait_s)
        check(request, decision.verdict)
        if decision.verdict is Verdict.APPROVE:
            digest = check_digest(request, digest)
            if not shown:
                show(request)
            shown = True
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
        request = requests.get_request(named)
        if verdict is not Verdict.APPROVE or not not_seen_yet(request) or clock.monotonic() >= end:
            return request
        clock.sleep(_POLL_S)
