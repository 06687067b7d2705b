"""The heartbeat of a gRPC holder, who alone renews the lease of a gRPC access request."""

from __future__ import annotations

from services.access.domain import renewal
from services.access.domain.attempt_states import last
from services.access.domain.models import AccessRequest, Attempt, AttemptState, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.leases.renew import LeaseLostError, LeaseRenewal
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.guards import check_approved, owned
from services.access.requests.idempotency import IdempotentCall
from services.common.errors import ConflictError, DbRoleNotReadyError


class Heartbeat:
    """Renews leases when their holders ask for it."""

    def __init__(self, ledger: Ledger, lease_renewal: LeaseRenewal, *, settings: Settings) -> None:
        self._ledger, self._renewal, self._overlap_s = ledger, lease_renewal, settings.overlap_s

    def renew_held(self, call: IdempotentCall, uid: str) -> tuple[Attempt, bool]:
        """Renew the lease of the active credential, once for each request_id.

        Returns:
            The attempt as it is now, and whether the holder should claim another credential.

        Raises:
            AccessRequestNotFoundError: The caller has no such access request.
            ApprovalRequiredError, ApprovalDeniedError, AccessEndedError: Access is not granted.
            DbRoleNotReadyError: The db_role is deleted or something else is granted now; the credential expires.
            ConflictError: No credential is in use, or Vault does not have its lease any more: claim one.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            request = reassess.current(tx, owned(tx, uid, call.caller))
            check_approved(request, now=tx.now)
            active, repeated = last(attempts.open_of(tx, uid), AttemptState.ACTIVE), call.find_earlier(tx)
            db_role = catalog.role_of(tx, request)
            target = catalog.target(tx, active.target) if active else None
        if active is None or active.expired(tx.now):
            raise ConflictError("no credential is in use: claim one")
        if not renewal.still_granted(active, request=request, db_role=db_role):
            raise DbRoleNotReadyError(
                "the role is deleted or has changed: the credential expires without being renewed",
                db_role=request.role_name,
            )
        if repeated is None and renewal.renewable(active):
            active = self._renew(call, active, request, target=target)
        if renewal.rotation_due(active, request=request, overlap_s=self._overlap_s, now=tx.now):
            with self._ledger.write() as tx:
                request = requests.update(tx, request, rotation_due=True)  # so that the holder's claim is accepted
        return active, request.rotation_due

    def _renew(
        self, call: IdempotentCall, active: Attempt, request: AccessRequest, *, target: VaultTargetRow | None
    ) -> Attempt:
        def remember(tx: Tx) -> None:
            if call.find_earlier(tx) is None:
                call.remember_call(tx, request.uid)

        try:
            return self._renewal.renew_lease(active, request, target=target, also=remember)
        except LeaseLostError as err:
            raise ConflictError("Vault does not have the lease of this credential any more: claim another") from err
