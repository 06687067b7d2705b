"""One access request of the quick path as Kubernetes has it, object and Secret, and what a watcher does with it."""

from __future__ import annotations

import itertools
import random
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Protocol

from leasegate.access.v1 import approval_pb2, lease_pb2
from leasegate.access.v1 import watcher_service_pb2 as watcher
from services.common.errors import LeasegateError
from tests.integration.access_world import WATCHER, Callers, Dar


class Service(Protocol):
    """A running access service."""

    def as_(self, san: str) -> Callers:
        """The stubs of one caller."""


class Wanted(ABC):
    """One request and whoever holds its credential.

    Attributes:
        held: Number of the attempt whose credential is held; 0 for none.
        credential: That credential.
        late: Answers that a paused former holder has in hand.
        approved: Whether the service says so.
        ended: Deleted, released or denied.
        deleted: Deleted or released.
        shaken: Its credential was ended on purpose (by an operator, in Vault, with its approval), so it may be dead
            until it is replaced.
        gone: Nothing is left to be done for it.
        lock: Of whoever works for it.
    """

    def __init__(self) -> None:
        self.secret_attempt, self.credential = 0, lease_pb2.Credential()
        self.late: list[lease_pb2.Credential] = []
        self.approved = self.ended = self.deleted = self.shaken = self.gone = False
        self.lock = threading.Lock()

    @property
    @abstractmethod
    def uid(self) -> str:
        """Its id, empty while the service has not said it."""

    @abstractmethod
    def at(self, service: Service) -> None:
        """The access service was started again."""

    @abstractmethod
    def approve(self) -> None:
        """Somebody approves what is shown."""

    @abstractmethod
    def deny(self) -> None:
        """Somebody denies it."""

    @abstractmethod
    def end(self) -> bool:
        """Tell the service that it is over; answers whether nothing of it is left."""

    @abstractmethod
    def lose(self) -> None:
        """What is held is lost."""

    @abstractmethod
    def acknowledge(self, attempt: int) -> None:
        """Say that the credential is kept."""

    @abstractmethod
    def step(self, rng: random.Random | None) -> bool:
        """What its holder does once while it goes on; answers whether nothing is left to do."""

    def delete(self) -> None:
        """It is over."""
        self.ended = self.deleted = True

    def reconcile(self, rng: random.Random | None = None) -> bool:
        """What its holder does once, and what may come between with ``rng``; answers whether nothing is left to do.

        Raises:
            LeasegateError: The service answered so.
        """
        if not self.deleted:
            return self.step(rng)
        self.secret_attempt = 0
        return self.end()

    def write(self, credential: lease_pb2.Credential) -> bool:
        """Keep a credential, never one of a lower number."""
        if credential.attempt < self.secret_attempt or self.ended:
            return False
        self.secret_attempt, self.credential, self.shaken = credential.attempt, credential, False
        return True

    def take(self, credential: lease_pb2.Credential, rng: random.Random | None) -> None:
        """Keep what was claimed, or what becomes of it."""
        chance = rng.random() if rng else 1.0
        if chance < 0.08:
            return  # its holder dies with the answer in hand
        if chance < 0.14:
            self.late.append(credential)
            return
        if self.write(credential) and chance >= 0.22:  # else it dies before it acknowledges
            self.acknowledge(credential.attempt)

    def former_leader(self) -> None:
        """A paused former holder goes on with what it has in hand."""
        while self.late:
            credential = self.late.pop()
            if self.write(credential):
                with suppress(LeasegateError):
                    self.acknowledge(credential.attempt)


_number = itertools.count()


class Object(Wanted):
    """A DatabaseAccessRequest: what is held is its Secret.

    For every third one a credential is claimed in a call of its own, as by an older watcher; for the others by the call
    that brings the decision.
    """

    def __init__(self, dar: Dar) -> None:
        super().__init__()
        self._dar, self._at_once = dar, next(_number) % 3 != 0

    @property
    def uid(self) -> str:
        return self._dar.uid

    def at(self, service: Service) -> None:
        self._dar.calls = service.as_(WATCHER)

    def approve(self) -> None:
        if not self.ended and self._dar.desired.status_digest:
            self._dar.decided() if self._at_once else self._dar.decide()

    def deny(self) -> None:
        if not self.ended:
            self.ended = True
            self._dar.decide("DENIED")

    def end(self) -> bool:
        return not self._dar.end().open_attempts

    def lose(self) -> None:
        self.secret_attempt = 0  # somebody deletes the Secret

    def acknowledge(self, attempt: int) -> None:
        self._dar.acknowledge(attempt)

    def step(self, rng: random.Random | None) -> bool:
        answer = self._dar.ensure(secret_attempt=self.secret_attempt, claim=self._at_once)
        self.approved = answer.access_request.approval_state == approval_pb2.APPROVAL_STATE_APPROVED
        if answer.next_step == watcher.NEXT_STEP_CLAIM:
            self.take(self._dar.claimed(answer, secret_attempt=self.secret_attempt), rng)
        elif answer.next_step == watcher.NEXT_STEP_ACKNOWLEDGE:
            self.acknowledge(self.secret_attempt)
        elif answer.next_step == watcher.NEXT_STEP_REMOVE and self.secret_attempt:
            self.secret_attempt = 0
        else:
            return not answer.HasField("retry_after")
        return False
