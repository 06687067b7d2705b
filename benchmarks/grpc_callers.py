"""Measures callers outside Kubernetes: create, approve, claim and renew over gRPC, eight clients at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.clients import together
from benchmarks.figures import Figures, Sizes
from benchmarks.place import GRPC, MEMBER, Place
from benchmarks.raw import CLIENTS
from dev.stack.films_role import TARGET
from leasegate.access.v1 import (
    approver_service_pb2,
    approver_service_pb2_grpc,
    requester_service_pb2,
    requester_service_pb2_grpc,
)


@dataclass(frozen=True, slots=True)
class GrpcCaller:
    """A requester and an approver.

    Attributes:
        alice: Asks and holds.
        bob: Approves.
    """

    alice: requester_service_pb2_grpc.RequesterServiceStub
    bob: approver_service_pb2_grpc.ApproverServiceStub

    def create(self, _: object = None) -> str:
        """Make a request; answers its id."""
        request = requester_service_pb2.CreateAccessRequestRequest(
            request_id=_id(), vault_target=TARGET, db_role=GRPC, reason="benchmark"
        )
        return str(self.alice.CreateAccessRequest(request).access_request.id)

    def approve(self, request: str) -> None:
        """Approve it."""
        self.bob.ApproveAccessRequest(
            approver_service_pb2.ApproveAccessRequestRequest(request_id=_id(), access_request_id=request)
        )

    def claim(self, request: str) -> int:
        """Take the credential; answers its attempt's number."""
        return int(
            self.alice.ClaimCredential(
                requester_service_pb2.ClaimCredentialRequest(access_request_id=request)
            ).credential.attempt
        )

    def acknowledge(self, request: str, attempt: int) -> None:
        """Keep it."""
        self.alice.AcknowledgeCredential(
            requester_service_pb2.AcknowledgeCredentialRequest(access_request_id=request, attempt=attempt)
        )

    def take(self, request: str) -> None:
        """Claim and keep."""
        self.acknowledge(request, self.claim(request))

    def renew(self, request: str) -> None:
        """Say that the holder lives."""
        self.alice.RenewLease(requester_service_pb2.RenewLeaseRequest(request_id=_id(), access_request_id=request))

    def release(self, request: str) -> None:
        """Give it back."""
        self.alice.ReleaseAccessRequest(
            requester_service_pb2.ReleaseAccessRequestRequest(request_id=_id(), access_request_id=request)
        )


@contextmanager
def grpc_caller(place: Place) -> Iterator[GrpcCaller]:
    """Both on channels of their own."""
    with place.channel("alice") as alice, place.channel("bob") as bob:
        yield GrpcCaller(
            requester_service_pb2_grpc.RequesterServiceStub(alice), approver_service_pb2_grpc.ApproverServiceStub(bob)
        )


def measure(place: Place, sizes: Sizes) -> Iterator[Figures]:
    """Rates at eight clients over raw Vault's."""
    raw_s, leases = place.raw.burst(MEMBER, sizes.kept)
    with grpc_caller(place) as kept:
        claim_s, requests = _claims(kept, sizes.kept)
        renew_s = _renewals(kept, requests)
        raw_renew_s = together(CLIENTS, place.raw.renew, leases * 3)[0]
        together(CLIENTS, kept.release, requests)
    place.raw.clear(leases)
    yield {
        "claim_vs_raw_rate": raw_s / claim_s,
        "claims_per_s": sizes.kept / claim_s,
        "renew_vs_raw_rate": raw_renew_s / renew_s,
        "renewals_per_s": 3 * sizes.kept / renew_s,
        "raw_renewals_per_s": 3 * sizes.kept / raw_renew_s,
    }


def _claims(kept: GrpcCaller, count: int) -> tuple[float, Sequence[str]]:
    """Create, approve and claim; the tokens are made meanwhile, and counted."""
    kept.release(kept.create())
    began = time.perf_counter()
    _, requests = together(CLIENTS, kept.create, range(count))
    together(CLIENTS, kept.approve, requests)
    _, numbers = together(CLIENTS, kept.claim, requests)
    took = time.perf_counter() - began
    together(CLIENTS, lambda pair: kept.acknowledge(*pair), list(zip(requests, numbers, strict=True)))
    return took, requests


def _renewals(kept: GrpcCaller, requests: Sequence[str]) -> float:
    return together(CLIENTS, kept.renew, [*requests] * 3)[0]


def _id() -> str:
    return secrets.token_hex(16)
