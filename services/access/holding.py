"""The holder's heartbeat: a gRPC request is renewed by whoever holds its credential, and by nobody else (design, section 3)."""

from __future__ import annotations

from services.access import attempts as rules
from services.access import leases
from services.access.issuing import check_approved, owned
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.database import Ledger, Tx
from services.access.records import Attempt, Request, State, TargetRow
from services.access.renewal import Renewal, kept, renews_itself, rotation_at
from services.access.requests import Call
from services.access.settings import Settings
from services.common.errors import LeasegateError, RoleNotReady, Superseded


class Holding:
    """Renews for holders."""

    def __init__(self, ledger: Ledger, renewal: Renewal, *, settings: Settings) -> None:
        self._ledger, self._renewal, self._settings = ledger, renewal, settings

    def renew(self, call: Call, uid: str) -> tuple[Attempt, bool]:
        """Prolong the lease of the active credential, once for each request_id.

        Returns:
            The attempt as it is now, and whether the holder should claim anew.

        Raises:
            RequestNotFound: No such request of the caller.
            ApprovalRequired, ApprovalDenied, AccessEnded: Access is not granted (any longer).
            RoleNotReady: The role is gone or another one was approved; the credential runs to its end.
            Superseded: No credential is in use, or Vault has its lease no longer: claim one.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            request = owned(tx, uid, call.caller)
            check_approved(request, now=tx.now)
            active, repeated = rules.last(attempts.open_of(tx, uid), State.ACTIVE), call.earlier(tx)
            role = catalog.role_of(tx, request)
            at = catalog.target(tx, active.target) if active else None
        if active is None or active.over(tx.now):
            raise Superseded("no credential is in use: claim one")
        if not kept(active, request=request, role=role):
            raise RoleNotReady("the role is gone or has changed: the credential runs to its end", role=request.role_name)
        if repeated is None and renews_itself(active):
            active = self._prolong(call, active, request, at=at)
        rotate_at = rotation_at(active, request=request, settings=self._settings)
        anew = request.due or (rotate_at is not None and tx.now >= rotate_at)
        if anew and not request.due:
            with self._ledger.write() as tx:
                requests.update(tx, request, due=True)  # so that a claim of its holder is not refused
        return active, anew

    def _prolong(self, call: Call, active: Attempt, request: Request, *, at: TargetRow | None) -> Attempt:
        def keep(tx: Tx) -> None:
            if call.earlier(tx) is None:
                call.keep(tx, request.uid)

        try:
            return self._renewal.renew(active, request, at=at, also=keep)
        except LeasegateError as err:
            if not leases.is_gone(err):
                raise
            self._renewal.lost(active, request)
            raise Superseded("Vault has the lease of this credential no longer: claim anew") from err
