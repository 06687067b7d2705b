"""The holder's heartbeat: a gRPC request is renewed by whoever holds its credential, and by nobody else (design, section 3)."""

from __future__ import annotations

from services.access.domain import attempt_states as rules
from services.access.domain.models import AccessRequest, Attempt, AttemptState, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.leases.issue import check_approved, owned
from services.access.leases.renew import LeaseRenewal, kept, renews_itself, rotation_at
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests.requests import IdempotentCall
from services.access.vault import leases
from services.common.errors import ConflictError, DbRoleNotReadyError, LeasegateError


class Heartbeat:
    """Renews for holders."""

    def __init__(self, ledger: Ledger, renewal: LeaseRenewal, *, settings: Settings) -> None:
        self._ledger, self._renewal, self._settings = ledger, renewal, settings

    def renew(self, call: IdempotentCall, uid: str) -> tuple[Attempt, bool]:
        """Prolong the lease of the active credential, once for each request_id.

        Returns:
            The attempt as it is now, and whether the holder should claim anew.

        Raises:
            RequestNotFound: No such request of the caller.
            ApprovalRequired, ApprovalDenied, AccessEnded: Access is not granted (any longer).
            DbRoleNotReadyError: The role is gone or another one was approved; the credential runs to its end.
            Superseded: No credential is in use, or Vault has its lease no longer: claim one.
            LeasegateError: Vault failed.
        """
        with self._ledger.read() as tx:
            request = owned(tx, uid, call.caller)
            check_approved(request, now=tx.now)
            active, repeated = rules.last(attempts.open_of(tx, uid), AttemptState.ACTIVE), call.earlier(tx)
            role = catalog.role_of(tx, request)
            at = catalog.target(tx, active.target) if active else None
        if active is None or active.expired(tx.now):
            raise ConflictError("no credential is in use: claim one")
        if not kept(active, request=request, role=role):
            raise DbRoleNotReadyError(
                "the role is gone or has changed: the credential runs to its end", db_role=request.role_name
            )
        if repeated is None and renews_itself(active):
            active = self._prolong(call, active, request, at=at)
        rotate_at = rotation_at(active, request=request, settings=self._settings)
        anew = request.rotation_due or (rotate_at is not None and tx.now >= rotate_at)
        if anew and not request.rotation_due:
            with self._ledger.write() as tx:
                requests.update(tx, request, rotation_due=True)  # so that a claim of its holder is not refused
        return active, anew

    def _prolong(
        self, call: IdempotentCall, active: Attempt, request: AccessRequest, *, at: VaultTargetRow | None
    ) -> Attempt:
        def keep(tx: Tx) -> None:
            if call.earlier(tx) is None:
                call.keep(tx, request.uid)

        try:
            return self._renewal.renew(active, request, at=at, also=keep)
        except LeasegateError as err:
            if not leases.is_gone(err):
                raise
            self._renewal.lost(active, request)
            raise ConflictError("Vault has the lease of this credential no longer: claim anew") from err
