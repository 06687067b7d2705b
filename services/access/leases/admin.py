"""Operators: which leases are open, renewing one and revoking one."""

from __future__ import annotations

from services.access.domain import names, renewal
from services.access.domain.attempt_states import ENDING
from services.access.domain.models import Attempt, AttemptState
from services.access.leases.renew import LeaseLostError, LeaseRenewal
from services.access.ledger import attempts, catalog
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.requests.idempotency import IdempotentCall
from services.common import failpoints
from services.common.errors import DbRoleNotReadyError, LeaseNotFoundError
from services.common.logs import bounded, logger

_LOG = logger(__name__)
_REASON_CHARS = 200
OPEN = (
    AttemptState.ISSUED,
    AttemptState.ACTIVE,
    AttemptState.RETIRING,
    AttemptState.REPLACED,
    AttemptState.REVOKING,
    AttemptState.RECOVERING,
)


class LeaseAdmin:
    """Lists, renews and revokes leases for operators."""

    def __init__(self, ledger: Ledger, lease_renewal: LeaseRenewal) -> None:
        self._ledger, self._renewal = ledger, lease_renewal

    def list_leases(
        self, states: tuple[AttemptState, ...], *, after: tuple[float, str] | None, limit: int
    ) -> list[Attempt]:
        """Leases of attempts in these states, newest first."""
        with self._ledger.read() as tx:
            return attempts.page(tx, *states, after=after, limit=limit)

    def renew_lease(self, handle: str) -> Attempt:
        """Renew one lease now.

        Raises:
            LeaseNotFoundError: No open lease has this handle, or Vault does not have it any more; then it is replaced.
            DbRoleNotReadyError: It is not in use, not what would be granted now, or cannot be renewed.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            found = _find_by_handle(tx, handle)
            request = reassess.find_current(tx, found.access_request_id)
            db_role = catalog.role_of(tx, request) if request else None
        if (
            request is None
            or found.state is not AttemptState.ACTIVE
            or not renewal.still_granted(found, request=request, db_role=db_role)
            or not renewal.renewable(found)
        ):
            raise DbRoleNotReadyError(
                "the lease is not renewed: it is not in use, not what would be granted now, or at its longest life"
            )
        try:
            return self._renewal.renew_lease(found, request)
        except LeaseLostError as err:
            raise LeaseNotFoundError(
                "Vault does not have this lease any more: its access request gets a new credential", lease=handle
            ) from err

    def revoke_lease(self, call: IdempotentCall, handle: str, *, reason: str) -> Attempt:
        """Revoke one lease; its access request, if it is still approved, gets a new credential.

        Raises:
            LeaseNotFoundError: No open lease has this handle.
        """
        with self._ledger.write() as tx:
            if attempt_id := call.find_earlier(tx):
                return attempts.get(tx, attempt_id)
            found = _find_by_handle(tx, handle)
            call.remember_call(tx, found.id)
            if found.state in ENDING:
                attempts.revoke(
                    tx,
                    found,
                    to=ENDING[found.state],
                    end_reason=f"an operator revoked it: {bounded(reason, _REASON_CHARS)}",
                )
                tx.changed.add(found.access_request_id)
            revoked = attempts.get(tx, found.id)
        failpoints.point("revoke.committed")
        _LOG.info(
            "lease revoked by an operator",
            caller=call.caller,
            handle=handle,
            access_request=found.access_request_id,
            reason=bounded(reason, 1024),
        )
        return revoked


def _find_by_handle(tx: Tx, handle: str) -> Attempt:
    for attempt_id in attempts.ids_with_database_user(tx):
        if names.lease_handle(attempt_id) == handle:
            return attempts.get(tx, attempt_id)
    raise LeaseNotFoundError("no open lease has this handle", lease=bounded(handle, 40))
