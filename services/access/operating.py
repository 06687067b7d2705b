"""The operators' view: what is issued, and the means to end one lease."""

from __future__ import annotations

from services.access import crash, leases, naming
from services.access.attempts import ENDING
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.database import Ledger, Tx
from services.access.records import Attempt, State
from services.access.renewal import Renewal, kept, renews_itself
from services.access.requests import Call
from services.common.errors import LeasegateError, LeaseNotFound, RoleNotReady
from services.common.logs import bounded, logger

_LOG = logger(__name__)
_REASON_CHARS = 200
OPEN = (State.ISSUED, State.ACTIVE, State.OLD, State.SUPERSEDED, State.END, State.UNDOING)


class Operating:
    """Lists and ends leases."""

    def __init__(self, ledger: Ledger, renewal: Renewal) -> None:
        self._ledger, self._renewal = ledger, renewal

    def leases(self, states: tuple[State, ...], *, after: tuple[float, str] | None, limit: int) -> list[Attempt]:
        """Leases in these states, newest first."""
        with self._ledger.read() as tx:
            return attempts.page(tx, *states, after=after, limit=limit)

    def renew(self, handle: str) -> Attempt:
        """Prolong one lease now.

        Raises:
            LeaseNotFound: No open lease has this handle, or Vault has it no longer; then it is replaced.
            RoleNotReady: It is not in use, or not what would be granted now, or cannot be prolonged.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            found = _by_handle(tx, handle)
            request = requests.find(tx, found.request)
            role = catalog.role_of(tx, request) if request else None
        if request is None or found.state is not State.ACTIVE or not kept(found, request=request, role=role) or not renews_itself(found):
            raise RoleNotReady("the lease is not prolonged: it is not in use, not what would be granted now, or at its longest life")
        try:
            return self._renewal.renew(found, request)
        except LeasegateError as err:
            if not leases.is_gone(err):
                raise
            self._renewal.lost(found, request)
            raise LeaseNotFound("Vault has this lease no longer: its request gets a new credential", lease=handle) from err

    def revoke(self, call: Call, handle: str, *, reason: str) -> Attempt:
        """End one lease for good; its request, if it is still approved, gets a new credential.

        Raises:
            LeaseNotFound: No open lease has this handle.
        """
        with self._ledger.write() as tx:
            if attempt_id := call.earlier(tx):
                return attempts.get(tx, attempt_id)
            found = _by_handle(tx, handle)
            call.keep(tx, found.id)
            if found.state in ENDING:
                attempts.end(tx, found, to=ENDING[found.state], why=f"an operator revoked it: {bounded(reason, _REASON_CHARS)}")
                tx.changed.add(found.request)
            ended = attempts.get(tx, found.id)
        crash.point("end.committed")
        _LOG.info("lease revoked by an operator", caller=call.caller, handle=handle, request=found.request, why=bounded(reason, 1024))
        return ended


def _by_handle(tx: Tx, handle: str) -> Attempt:
    for attempt_id in attempts.ids_with_login(tx):
        if naming.lease_handle(attempt_id) == handle:
            return attempts.get(tx, attempt_id)
    raise LeaseNotFound("no open lease has this handle", lease=bounded(handle, 40))
