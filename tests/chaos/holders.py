"""A caller without Kubernetes: asks, claims, renews and releases over gRPC, in the quick path and beside the stack."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress

from leasegate.access.v1 import access_request_pb2, approval_pb2
from leasegate.access.v1 import approver_service_pb2 as approver
from leasegate.access.v1 import requester_service_pb2 as requester
from services.common.errors import AccessEndedError, AlreadyDecidedError, ConflictError
from tests.chaos.wanted import Service, Wanted

RENEW_EVERY_S = 1000.0
"""Less than a third of the TTL of an hour, and than each leap of the calm, so that a heartbeat follows each."""


class Holder(Wanted):
    """One access request over gRPC; each change carries an id, so that it can be repeated until it is answered.

    Args:
        service: The running service.
        role: Of the catalog.
        target: Of the catalog.
        requester: SAN of who asks.
        approver: SAN of who decides.
        renew_every_s: Between two renewals, in the time of ``clock``.
        clock: The time.
    """

    def __init__(
        self,
        service: Service,
        *,
        role: str,
        target: str,
        requester: str,
        approver: str,
        renew_every_s: float = RENEW_EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self._role, self._target, self._requester, self._approver = role, target, requester, approver
        self._clock, self._renew_every_s = clock, renew_every_s
        self._id, self._digest, self._renewed_at, self._acknowledged = "", "", 0.0, 0
        self._denied = False
        self._keys = {name: secrets.token_hex(8) for name in ("create", "deny", "release")}
        self.at(service)

    @property
    def uid(self) -> str:
        return self._id

    def at(self, service: Service) -> None:
        self._mine = service.as_(self._requester).requester
        self._theirs = service.as_(self._approver).approver

    def approve(self) -> None:
        if self._digest and not self.ended:
            message = approver.ApproveAccessRequestRequest(
                request_id=secrets.token_hex(8), access_request_id=self._id, digest=self._digest
            )
            with suppress(AlreadyDecidedError):
                self._theirs.ApproveAccessRequest(message)

    def deny(self) -> None:
        if self._id and not self.ended:
            self.ended = True
            self._deny()

    def _deny(self) -> None:
        with suppress(AlreadyDecidedError, AccessEndedError):
            self._theirs.DenyAccessRequest(
                approver.DenyAccessRequestRequest(request_id=self._keys["deny"], access_request_id=self._id)
            )
        self._denied = True

    def end(self) -> bool:
        if not self._id:
            self._create()
        message = requester.ReleaseAccessRequestRequest(request_id=self._keys["release"], access_request_id=self._id)
        return not self._mine.ReleaseAccessRequest(message).access_request.open_attempts

    def lose(self) -> None:
        self.secret_attempt = 0  # its process dies

    def acknowledge(self, attempt: int) -> None:
        try:
            self._mine.AcknowledgeCredential(
                requester.AcknowledgeCredentialRequest(access_request_id=self._id, attempt=attempt)
            )
        except ConflictError:
            self.secret_attempt = 0 if self.secret_attempt == attempt else self.secret_attempt
            raise
        self._acknowledged, self._renewed_at = attempt, self._clock()

    def step(self, rng: random.Random | None) -> bool:
        if not self._id:
            self._create()
            return False
        shown = self._mine.GetAccessRequest(
            requester.GetAccessRequestRequest(access_request_id=self._id)
        ).access_request
        self.approved, self._digest = shown.approval_state == approval_pb2.APPROVAL_STATE_APPROVED, shown.digest
        if self.ended and not self._denied:
            self._deny()
            return False
        if not self.approved:
            return not (self.ended and shown.open_attempts)
        return self._hold(shown, rng)

    def _create(self) -> None:
        message = requester.CreateAccessRequestRequest(
            request_id=self._keys["create"], vault_target=self._target, db_role=self._role, reason="chaos"
        )
        self._id = self._mine.CreateAccessRequest(message).access_request.id

    def _hold(self, shown: access_request_pb2.AccessRequest, rng: random.Random | None) -> bool:
        """Bring the credential that is held up to date."""
        if self.secret_attempt and self._acknowledged != self.secret_attempt:
            self.acknowledge(self.secret_attempt)
        elif not self.secret_attempt or shown.active_attempt != self.secret_attempt:
            self._claim(rng)
        elif self._clock() - self._renewed_at > self._renew_every_s:
            self._renew(rng)
        else:
            return True
        return False

    def claim(self) -> None:
        """Claim without any mishap."""
        self._claim(None)

    def _claim(self, rng: random.Random | None) -> None:
        message = requester.ClaimCredentialRequest(access_request_id=self._id, known_attempt=self.secret_attempt)
        self.take(self._mine.ClaimCredential(message).credential, rng)

    def _renew(self, rng: random.Random | None) -> None:
        asked_at = self._clock()
        try:
            should_claim = self._mine.RenewLease(
                requester.RenewLeaseRequest(request_id=secrets.token_hex(8), access_request_id=self._id)
            ).should_claim
        except ConflictError:
            should_claim = True
        self._renewed_at = asked_at
        if should_claim:
            self._claim(rng)
