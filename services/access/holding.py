"""The holder's heartbeat: a gRPC request is renewed by whoever holds its credential, and by nobody else (design, section 3)."""

from __future__ import annotations

from services.access import attempts as rules
from services.access.issuing import check_approved, owned
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.database import Ledger
from services.access.records import Attempt, State
from services.access.renewal import Renewal, kept, renews_itself, rotation_at
from services.access.requests import Call
from services.access.settings import Settings
from services.common.errors import RoleNotReady, Superseded


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
            Superseded: No credential is in use: claim one.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            request = owned(tx, uid, call.caller)
            check_approved(request, now=tx.now)
            active, repeated = rules.last(attempts.open_of(tx, uid), State.ACTIVE), call.earlier(tx)
            role = catalog.role_of(tx, request)
        if active is None or active.over(tx.now):
            raise Superseded("no credential is in use: claim one")
        if not kept(active, request=request, role=role):
            raise RoleNotReady("the role is gone or has changed: the credential runs to its end", role=request.role_name)
        if repeated is None and renews_itself(active):
            active = self._renewal.renew(active, request, also=lambda tx: call.keep(tx, uid) if call.earlier(tx) is None else None)
        rotate_at = rotation_at(active, settings=self._settings)
        anew = request.due or (rotate_at is not None and tx.now >= rotate_at)
        if anew and not request.due:
            with self._ledger.write() as tx:
                requests.update(tx, request, due=True)  # so that a claim of its holder is not refused
        return active, anew
