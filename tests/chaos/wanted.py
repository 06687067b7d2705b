"""What Kubernetes holds of one request in the quick path: the object and its Secret, and what a watcher does with them, step by step."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from leasegate.access.v1 import approval_pb2, lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import LeasegateError
from tests.chaos.life import Life
from tests.integration.access_world import WATCHER, Dar


@dataclass
class Wanted:
    """One request.

    Attributes:
        dar: The object.
        held: Number of the attempt in the Secret; 0 for none.
        credential: What the Secret holds.
        late: Answers that a paused former leader has in hand.
        ended: Deleted or denied.
        shaken: Its credential was ended on purpose (by an operator, in Vault, with its approval), so it may be dead until it is replaced.
    """

    dar: Dar
    held: int = 0
    credential: lease_pb2.Credential = field(default_factory=lease_pb2.Credential)
    late: list[lease_pb2.Credential] = field(default_factory=list)
    approved: bool = False
    ended: bool = False
    deleted: bool = False
    shaken: bool = False
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def uid(self) -> str:
        return self.dar.uid

    def at(self, life: Life) -> None:
        """The access service was started again."""
        self.dar.calls = life.as_(WATCHER)

    def approve(self) -> None:
        """Somebody approves what the status says."""
        if not self.ended and self.dar.desired.status_digest:
            self.dar.decide()

    def deny(self) -> None:
        """Somebody denies it."""
        if not self.ended:
            self.ended = True
            self.dar.decide("DENIED")

    def delete(self) -> None:
        """The object is deleted."""
        self.ended = self.deleted = True

    def write(self, credential: lease_pb2.Credential) -> bool:
        """Write the Secret, never by a lower number."""
        if credential.attempt < self.held or self.ended:
            return False
        self.held, self.credential, self.shaken = credential.attempt, credential, False
        return True

    def reconcile(self, rng: random.Random | None = None) -> bool:
        """What a watcher does once, and what may come between with ``rng``; answers whether nothing is left to do.

        Raises:
            LeasegateError: The service answered so.
        """
        if self.deleted:
            self.held = 0
            return not self.dar.end().open_attempts
        answer = self.dar.ensure(held=self.held)
        self.approved = answer.request.approval == approval_pb2.APPROVAL_STATE_APPROVED
        if answer.next_step == watcher.NEXT_STEP_CLAIM:
            self._claim(rng)
        elif answer.next_step == watcher.NEXT_STEP_ACKNOWLEDGE:
            self.dar.acknowledge(self.held)
        elif answer.next_step == watcher.NEXT_STEP_REMOVE and self.held:
            self.held = 0
        else:
            return not answer.HasField("retry_after")
        return False

    def _claim(self, rng: random.Random | None) -> None:
        credential = self.dar.claim(held=self.held)
        chance = rng.random() if rng else 1.0
        if chance < 0.08:
            return  # the watcher dies with the answer in hand
        if chance < 0.14:
            self.late.append(credential)
            return
        if self.write(credential) and chance >= 0.22:  # else it dies before it acknowledges
            self.dar.acknowledge(credential.attempt)

    def former_leader(self) -> None:
        """A paused former leader goes on with what it has in hand."""
        while self.late:
            credential = self.late.pop()
            if self.write(credential):
                with suppress(LeasegateError):
                    self.dar.acknowledge(credential.attempt)
