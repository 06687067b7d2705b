"""Renewing leases and having credentials replaced in time. All times come from the ledger, none from a timer in memory.

Workers renew for access requests of Kubernetes, whose object is their heartbeat. The holder of a gRPC access request
renews by itself (``services.access.leases.heartbeat``), and operators renew one lease
(``services.access.leases.admin``).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from services.access.domain import durations, renewal
from services.access.domain.models import AccessRequest, Attempt, AttemptState, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.requests import reassess
from services.access.vault import leases
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import DbRoleNotReadyError, LeasegateError, VaultRefusedError
from services.common.logs import bound, logger

_LOG = logger(__name__)


class LeaseLostError(VaultRefusedError):
    """Vault does not have the lease any more: it was revoked by somebody else, or its token was."""


class LeaseRenewal:
    """Renews leases of active and of retiring attempts."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, *, settings: Settings, jitter: durations.Jitter) -> None:
        self._ledger, self._vaults, self._overlap_s, self._jitter = ledger, vaults, settings.overlap_s, jitter
        self._under_way: Counter[tuple[str, str, str]] = Counter()  # renewals by mount, connection, db_role in Vault
        self._lock = threading.Lock()

    def count_under_way(self, mount: str, connection: str, vault_role: str) -> int:
        """How many renewals Vault may be carrying out there; an empty connection or db_role stands for any."""
        with self._lock:
            return sum(
                count
                for (at_mount, at_connection, name), count in self._under_way.items()
                if at_mount == mount and connection in ("", at_connection) and vault_role in ("", name)
            )

    def renew_active(self, attempt: Attempt) -> None:
        """Renew an active attempt, have it replaced or revoked, whichever is due; for a worker."""
        with self._ledger.read() as tx:
            attempt, request = attempts.get(tx, attempt.id), reassess.find_current(tx, attempt.access_request_id)
            if request is None or attempt.state is not AttemptState.ACTIVE:
                return
            db_role, target = catalog.role_of(tx, request), catalog.target(tx, attempt.target)
        now = tx.now
        rotates = renewal.rotation_due(attempt, request=request, overlap_s=self._overlap_s, now=now)
        renews = renewal.renewal_due(attempt, request=request, db_role=db_role, now=now)
        if attempt.expired(now) or rotates or not renews:
            found = self._note_due(attempt)
            if found is None:
                return
            attempt, request = found
        try:
            self.renew_lease(attempt, request, target=target)
        except LeaseLostError:
            return
        except LeasegateError as err:
            self._note_failure(attempt, request, err)

    def _note_due(self, attempt: Attempt) -> tuple[Attempt, AccessRequest] | None:
        """Commit that an active attempt has ended, that its rotation is due, or when to look again.

        Returns:
            The attempt and its access request if its lease has to be renewed now all the same; else None.
        """
        with self._ledger.write() as tx:
            attempt, request = attempts.get(tx, attempt.id), reassess.find_current(tx, attempt.access_request_id)
            if request is None or attempt.state is not AttemptState.ACTIVE:
                return None
            db_role = catalog.role_of(tx, request)
            if attempt.expired(tx.now):
                reason = renewal.expiry_reason(attempt, request=request, db_role=db_role)
                attempts.revoke(tx, attempt, to=AttemptState.REVOKING, end_reason=reason)
                tx.changed.add(request.uid)
                return None
            granted = renewal.still_granted(attempt, request=request, db_role=db_role)
            if granted and renewal.rotation_due(attempt, request=request, overlap_s=self._overlap_s, now=tx.now):
                request = requests.update(tx, request, rotation_due=True)
                failpoints.point("rotate.due")
            if renewal.renewal_due(attempt, request=request, db_role=db_role, now=tx.now):
                return attempt, request
            due_at = renewal.next_due_at(attempt, request=request, overlap_s=self._overlap_s, granted=granted)
            attempts.schedule(tx, attempt.id, due_at=due_at)
        return None

    def renew_retiring(self, attempt: Attempt) -> bool:
        """Renew the lease of a retiring attempt if it ends before the overlap; for a worker.

        Returns:
            Whether the attempt has to be revoked now instead.
        """
        with self._ledger.read() as tx:
            request = reassess.find_current(tx, attempt.access_request_id)
            db_role = catalog.role_of(tx, request) if request else None
        overlap_ends_at = attempt.overlap_ends_at
        if request is None or overlap_ends_at is None or tx.now >= overlap_ends_at or attempt.expired(tx.now):
            return True
        if not renewal.overlap_renewal_due(attempt, request=request, db_role=db_role):
            due_at = min(overlap_ends_at, attempt.ends_at or overlap_ends_at)
            with self._ledger.write() as tx:
                attempts.keep_retiring(tx, replace(attempt, due_at=due_at))
            return False
        try:
            self.renew_lease(attempt, request)
        except LeaseLostError:
            return True
        except LeasegateError as err:
            self._note_failure(attempt, request, err)
        return False

    def renew_lease(
        self,
        attempt: Attempt,
        request: AccessRequest,
        *,
        target: VaultTargetRow | None = None,
        also: Callable[[Tx], None] = lambda _tx: None,
    ) -> Attempt:
        """Renew a lease, never past the end of access or of the overlap.

        Args:
            attempt: The attempt, active or retiring.
            request: Its access request.
            target: Its Vault, if that was read already.
            also: What has to be committed with the renewal.

        Returns:
            The attempt as it is now.

        Raises:
            LeaseLostError: Vault does not have the lease any more; an active attempt is due for replacement.
            DbRoleNotReadyError: Its db_role is about to change, and with it the statements that a renewal runs; or the
                credential is not what is granted now.
            LeasegateError: It was not renewed.
        """
        with self._begun(attempt, request):
            return self._renew(attempt, request, target=target, also=also)

    @contextmanager
    def _begun(self, attempt: Attempt, request: AccessRequest) -> Iterator[None]:
        """Count a renewal, and refuse what may not be renewed now; in this order, so that each pause sees it.

        What the caller read of its db_role and approval may be from before a pause that has ended since.
        """
        key = (attempt.mount, attempt.db_name, attempt.vault_role)
        with self._lock:
            self._under_way[key] += 1
        try:
            with self._ledger.read() as tx:
                now, db_role = reassess.find_current(tx, request.uid), catalog.role_of(tx, request)
            if db_role is not None and db_role.paused:
                raise DbRoleNotReadyError(
                    "the role or its connection is about to change: no lease is renewed now",
                    db_role=request.role_name,
                )
            if now is None or not renewal.still_granted(attempt, request=now, db_role=db_role):
                raise DbRoleNotReadyError(
                    "its credential is not what is granted now: it expires without being renewed",
                    db_role=request.role_name,
                )
            yield
        finally:
            with self._lock:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]

    def _renew(
        self,
        attempt: Attempt,
        request: AccessRequest,
        *,
        target: VaultTargetRow | None,
        also: Callable[[Tx], None],
    ) -> Attempt:
        asked_at = self._ledger.clock()
        increment_s = renewal.increment_s(attempt, request=request, now=asked_at)
        with bound(object=request.label), self._vaults.at(target or self._target(attempt)) as vault:
            try:
                answer = leases.renew(vault, attempt.lease_id, increment_s=increment_s)
            except LeasegateError as err:
                if not leases.is_gone(err):
                    raise
                self.note_lost(attempt, request)
                raise LeaseLostError("Vault does not have this lease any more", path=attempt.mount) from err
        failpoints.point("renew.asked")
        ttl_s = float(answer.lease_duration_s)
        with self._ledger.write() as tx:
            renewed = renewal.renewed(attempt, ttl_s=ttl_s, increment_s=increment_s, asked_at=asked_at, now=tx.now)
            if not self._store(tx, renewed, request):
                renewed = attempts.get(tx, attempt.id)
            also(tx)
        failpoints.point("renew.committed")
        return renewed

    def _store(self, tx: Tx, renewed: Attempt, request: AccessRequest) -> bool:
        if renewed.overlap_ends_at is not None:
            due_at = renewal.next_retiring_at(renewed, overlap_ends_at=renewed.overlap_ends_at, now=tx.now)
            return attempts.keep_retiring(tx, replace(renewed, due_at=due_at))
        due_at = renewal.next_due_at(renewed, request=request, overlap_s=self._overlap_s)
        return attempts.commit_renewal(tx, replace(renewed, due_at=due_at))

    def _target(self, attempt: Attempt) -> VaultTargetRow:
        with self._ledger.read() as tx:
            return catalog.target(tx, attempt.target)

    def _note_failure(self, attempt: Attempt, request: AccessRequest, err: LeasegateError) -> None:
        """Schedule the next try."""
        tries = attempt.renewal_failures + 1
        log = _LOG.warning if tries.bit_count() == 1 else _LOG.debug  # each time that the tries have doubled
        log("lease not renewed", access_request=request.uid, attempt=attempt.sequence, reason=err.reason, tries=tries)
        refused = isinstance(err, VaultRefusedError)
        with self._ledger.write() as tx:
            due_at = renewal.retry_at(attempt, refused=refused, spread=self._jitter(), now=tx.now)
            if attempt.overlap_ends_at is not None:
                attempts.keep_retiring(tx, replace(attempt, renewal_failures=tries, due_at=due_at))
            else:
                attempts.schedule(tx, attempt.id, due_at=due_at, renew_failed=True)

    def note_lost(self, attempt: Attempt, request: AccessRequest) -> None:
        """Have an active credential replaced whose lease Vault does not have any more."""
        with self._ledger.write() as tx:
            if attempts.get(tx, attempt.id).state is AttemptState.ACTIVE:  # else it was replaced meanwhile
                requests.update(tx, request, rotation_due=True)
                attempts.schedule(tx, attempt.id, due_at=attempt.ends_at)
