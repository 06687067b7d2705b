"""EnsureAccessRequest, with the claim that follows from it in the same call.

A decision and the beginning of its claim are one commit. What was ensured is durable whatever becomes of the claim, so
a claim that fails does not fail the call: its error is a part of the answer, and the watcher writes both into the
status.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.decide import Claim, NextStep
from services.access.domain.request_view import AccessRequestView
from services.access.leases.issue import ClaimStart, Issued, LeaseIssuer, check_room
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests.requests import AccessRequests, DesiredAccess
from services.common import failpoints
from services.common.errors import LeasegateError, QuotaExceededError


@dataclass(frozen=True, slots=True)
class Ensured:
    """What EnsureAccessRequest answers.

    Attributes:
        view: Where the access request stands, as before the claim.
        next_step: What was due then.
        issued: The credential that was claimed; None if none was.
        refused: Why the claim failed; None if it did not.
    """

    view: AccessRequestView
    next_step: NextStep
    issued: Issued | None = None
    refused: LeasegateError | None = None


class AccessEnsurer:
    """Takes in access requests of Kubernetes, and claims in the same call."""

    def __init__(self, ledger: Ledger, requests: AccessRequests, issuer: LeaseIssuer) -> None:
        self._ledger, self._requests, self._issuer = ledger, requests, issuer

    def ensure_request(self, desired: DesiredAccess, *, owner: str, secret_attempt: int, claim: bool) -> Ensured:
        """Take in the desired state; if a claim is due then, claim. A state that brings nothing new writes nothing.

        Args:
            desired: The desired state.
            owner: Who ensures it.
            secret_attempt: Sequence of the attempt that its Secret holds; 0 for none.
            claim: Whether the caller takes a credential in this call.

        Raises:
            CallerNotAllowedError: Somebody else ensured it before.
            LeasegateError: The ledger failed; nothing was taken in or claimed.
        """
        view = self._requests.view_unchanged(desired, owner=owner, secret_attempt=secret_attempt)
        if view:
            step = view.next_step(secret_attempt)
            if not (claim and isinstance(step, Claim)):
                return Ensured(view, step)
        start: ClaimStart | None = None
        refused: LeasegateError | None = None
        with self._ledger.write() as tx:
            view = self._requests.take_in(tx, desired, owner=owner, secret_attempt=secret_attempt)
            step = view.next_step(secret_attempt)
            if claim and isinstance(step, Claim) and view.db_role:
                refused = _no_room(tx, view)
            if claim and isinstance(step, Claim) and view.db_role and refused is None:
                start = self._issuer.begin_claim(
                    tx, view.request, step, db_role=view.db_role, secret_attempt=secret_attempt
                )
        failpoints.point("ensure.committed")
        if start is None:
            return Ensured(view, step, refused=refused)
        try:
            return Ensured(view, step, issued=self._issuer.complete_claim(start))
        except LeasegateError as err:
            return Ensured(view, step, refused=err)


def _no_room(tx: Tx, view: AccessRequestView) -> QuotaExceededError | None:
    """Why nothing is claimed now although it is due; what was ensured is stored nevertheless."""
    try:
        check_room(tx, view.request, view.attempts)
    except QuotaExceededError as err:
        return err
    return None
