"""The operators' view: what is issued, and the means to end one lease."""

from __future__ import annotations

from services.access.domain import names
from services.access.domain.attempt_states import ENDING
from services.access.domain.models import Attempt, AttemptState
from services.access.leases.renew import LeaseRenewal, kept, renews_itself
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests.requests import IdempotentCall
from services.access.vault import leases
from services.common import failpoints
from services.common.errors import DbRoleNotReadyError, LeasegateError, LeaseNotFoundError
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
    """Lists and ends leases."""

    def __init__(self, ledger: Ledger, renewal: LeaseRenewal) -> None:
        self._ledger, self._renewal = ledger, renewal

    def leases(self, states: tuple[AttemptState, ...], *, after: tuple[float, str] | None, limit: int) -> list[Attempt]:
        """Leases in these states, newest first."""
        with self._ledger.read() as tx:
            return attempts.page(tx, *states, after=after, limit=limit)

    def renew(self, handle: str) -> Attempt:
        """Prolong one lease now.

        Raises:
            LeaseNotFoundError: No open lease has this handle, or Vault has it no longer; then it is replaced.
            DbRoleNotReadyError: It is not in use, or not what would be granted now, or cannot be prolonged.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            found = _by_handle(tx, handle)
            request = requests.find(tx, found.access_request_id)
            role = catalog.role_of(tx, request) if request else None
        if (
            request is None
            or found.state is not AttemptState.ACTIVE
            or not kept(found, request=request, role=role)
            or not renews_itself(found)
        ):
            raise DbRoleNotReadyError(
                "the lease is not prolonged: it is not in use, not what would be granted now, or at its longest life"
            )
        try:
            return self._renewal.renew(found, request)
        except LeasegateError as err:
            if not leases.is_gone(err):
                raise
            self._renewal.lost(found, request)
            raise LeaseNotFoundError(
                "Vault has this lease no longer: its request gets a new credential", lease=handle
            ) from err

    def revoke(self, call: IdempotentCall, handle: str, *, reason: str) -> Attempt:
        """End one lease for good; its request, if it is still approved, gets a new credential.

        Raises:
            LeaseNotFoundError: No open lease has this handle.
        """
        with self._ledger.write() as tx:
            if attempt_id := call.earlier(tx):
                return attempts.get(tx, attempt_id)
            found = _by_handle(tx, handle)
            call.keep(tx, found.id)
            if found.state in ENDING:
                attempts.revoke(
                    tx,
                    found,
                    to=ENDING[found.state],
                    end_reason=f"an operator revoked it: {bounded(reason, _REASON_CHARS)}",
                )
                tx.changed.add(found.access_request_id)
            ended = attempts.get(tx, found.id)
        failpoints.point("end.committed")
        _LOG.info(
            "lease revoked by an operator",
            caller=call.caller,
            handle=handle,
            request=found.access_request_id,
            why=bounded(reason, 1024),
        )
        return ended


def _by_handle(tx: Tx, handle: str) -> Attempt:
    for attempt_id in attempts.ids_with_database_user(tx):
        if names.lease_handle(attempt_id) == handle:
            return attempts.get(tx, attempt_id)
    raise LeaseNotFoundError("no open lease has this handle", lease=bounded(handle, 40))
