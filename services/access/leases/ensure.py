"""EnsureAccessRequest with the claim that follows from it: the decision and the attempt's `reading` are one commit, and so are call and claim.

It is EnsureAccessRequest followed at once by ClaimCredential, without the call and the commit in between. What was ensured is durable whatever
becomes of the claim, so a claim that fails is no failure of the call: it is answered beside where the request stands, and the watcher says
both in the status. (A call that failed could not say where it stands, and an answer that left the claim to a second call would have Vault
tried twice.) For the servicers of access.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.request_view import AccessRequestView
from services.access.leases.issue import Issued, LeaseIssuer, Start, check_approved
from services.access.ledger.db.database import Tx
from services.access.requests.requests import AccessRequests, DesiredAccess
from services.common.errors import DbRoleNotReadyError, LeasegateError


@dataclass(frozen=True, slots=True)
class Ensured:
    """What came of it.

    Attributes:
        view: Where the request stands, as before the claim.
        issued: The credential that was claimed; None if none was.
        refused: Why the claim failed; None if it did not.
    """

    view: AccessRequestView
    issued: Issued | None = None
    refused: LeasegateError | None = None


class AccessEnsurer:
    """Ensures requests and claims in the same call."""

    def __init__(self, requests: AccessRequests, issuing: LeaseIssuer) -> None:
        self._requests, self._issuing = requests, issuing

    def ensure(self, desired: DesiredAccess, *, owner: str, secret_attempt: int, claim: bool) -> Ensured:
        """Take the desired state of a request of Kubernetes and, if it is to be claimed for now, claim.

        Args:
            desired: The request.
            owner: Who ensures it.
            secret_attempt: Number of the attempt that its Secret holds; 0 for none.
            claim: Whether to claim at all.

        Raises:
            CallerNotAllowed: Somebody else ensured it before.
            LeasegateError: The ledger failed, and nothing was taken or claimed.
        """
        if not claim:
            return Ensured(self._requests.ensure(desired, owner=owner, secret_attempt=secret_attempt))
        begun = _Begun(self._issuing, secret_attempt)
        view = self._requests.ensure(desired, owner=owner, secret_attempt=secret_attempt, claim=begun.begin)
        if begun.start is None:
            return Ensured(view, refused=begun.refused)
        try:
            return Ensured(view, issued=self._issuing.finish(begun.start))
        except LeasegateError as err:
            return Ensured(view, refused=err)


class _Begun:
    """Begins one claim within the transaction that ensures its request; what is refused there must not undo that
    transaction.
    """

    def __init__(self, issuing: LeaseIssuer, secret_attempt: int) -> None:
        self._issuing, self._held = issuing, secret_attempt
        self.start: Start | None = None
        self.refused: LeasegateError | None = None

    def begin(self, tx: Tx, view: AccessRequestView) -> None:
        """Begin; for ``Requests.ensure``."""
        request, role = view.request, view.role
        try:
            check_approved(request, now=tx.now)
            if role is None:
                raise DbRoleNotReadyError(
                    f"the role {request.role_name} is not in the catalogue", db_role=request.role_name
                )
            self.start = self._issuing.begin(tx, request, role=role, opened=view.attempts, secret_attempt=self._held)
        except LeasegateError as err:  # before anything of the claim was written
            self.refused = err
