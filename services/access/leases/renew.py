"""Keeping the credential in use alive, and having it replaced in time. All times come from the ledger, none from a timer in memory.

A request of Kubernetes is renewed here, as its object is its heartbeat; a gRPC request by its holder alone (``RenewLease``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from services.access.domain import durations
from services.access.domain.models import AccessRequest, Attempt, AttemptState, DbRole, Origin, VaultTargetRow
from services.access.domain.settings import Settings
from services.access.ledger import attempts, catalog, requests
from services.access.ledger.db.database import Ledger, Tx
from services.access.vault import leases
from services.access.vault.clients import VaultClients
from services.common import failpoints
from services.common.errors import LeasegateError, VaultRefusedError
from services.common.logs import logger

_LOG = logger(__name__)
SHORTENED_S = 2.0
"""Vault answers whole seconds; a grant shorter than asked for by more than this was cut at the longest life."""


class LeaseRenewal:
    """Looks at active attempts when something is due for them."""

    def __init__(self, ledger: Ledger, vaults: VaultClients, *, settings: Settings, jitter: durations.Jitter) -> None:
        self._ledger, self._vaults, self._settings, self._jitter = ledger, vaults, settings, jitter

    def look(self, attempt: Attempt) -> None:
        """Renew, have replaced or end an active attempt, whichever is due, and say when to look again; for a worker."""
        with self._ledger.read() as tx:
            attempt, request = attempts.get(tx, attempt.id), requests.find(tx, attempt.access_request_id)
            if request is None or attempt.state is not AttemptState.ACTIVE:
                return
            role, at = catalog.role_of(tx, request), catalog.target(tx, attempt.target)
        if not self._ends_or_rotates(attempt, request, now=tx.now) and _to_renew(
            attempt, request, role=role, now=tx.now
        ):
            self._renew_in_time(
                attempt, request, at=at
            )  # nothing has to be written before: writers would wait for their turn
        else:
            self._write_down(attempt, at=at)

    def _ends_or_rotates(self, attempt: Attempt, request: AccessRequest, *, now: float) -> bool:
        return attempt.expired(now) or (
            not request.rotation_due and _reached(rotation_at(attempt, request=request, settings=self._settings), now)
        )

    def _write_down(self, attempt: Attempt, *, at: VaultTargetRow) -> None:
        with self._ledger.write() as tx:
            attempt, request = attempts.get(tx, attempt.id), requests.find(tx, attempt.access_request_id)
            if request is None or attempt.state is not AttemptState.ACTIVE:
                return
            role = catalog.role_of(tx, request)
            if attempt.expired(tx.now):
                attempts.revoke(
                    tx, attempt, to=AttemptState.REVOKING, end_reason=_why_over(attempt, request=request, role=role)
                )
                tx.changed.add(request.uid)
                return
            alive = kept(attempt, request=request, role=role)
            if alive and self._ends_or_rotates(attempt, request, now=tx.now):
                request = requests.update(tx, request, rotation_due=True)
                failpoints.point("rotate.due")
            if not _to_renew(attempt, request, role=role, now=tx.now):
                due_at = next_look(attempt, request=request, settings=self._settings, alive=alive)
                attempts.schedule(tx, attempt.id, due_at=due_at)
                return
        self._renew_in_time(attempt, request, at=at)

    def _renew_in_time(self, attempt: Attempt, request: AccessRequest, *, at: VaultTargetRow) -> None:
        try:
            self.renew(attempt, request, at=at)
        except LeasegateError as err:
            self._failed(attempt, request, err)

    def renew(
        self,
        attempt: Attempt,
        request: AccessRequest,
        *,
        at: VaultTargetRow | None = None,
        also: Callable[[Tx], None] = lambda _tx: None,
    ) -> Attempt:
        """Prolong a lease, never past the end of the access.

        Args:
            attempt: Whose lease it is.
            request: Its request.
            at: Its Vault, if that was read already.
            also: What is to be committed with it.

        Returns:
            The attempt as it is now.

        Raises:
            LeasegateError: It was not prolonged.
        """
        asked_at = self._ledger.clock()
        increment_s = attempt.default_ttl_s or attempt.lease_ttl_s
        if request.ends_at is not None:
            increment_s = min(increment_s, max(1.0, request.ends_at - asked_at))
        with self._vaults.at(at or self._target(attempt)) as vault:
            answer = leases.renew(vault, attempt.lease_id, increment_s=increment_s)
        failpoints.point("renew.asked")
        ttl_s = float(answer.lease_duration_s)
        ends_at = min(asked_at + ttl_s, attempt.token_ends_at or asked_at + ttl_s)
        max_ends_at = ends_at if ttl_s < increment_s - SHORTENED_S else attempt.max_ends_at
        with self._ledger.write() as tx:
            renewed = replace(attempt, lease_ttl_s=ttl_s, renewed_at=tx.now, ends_at=ends_at, max_ends_at=max_ends_at)
            renewed = replace(renewed, due_at=next_look(renewed, request=request, settings=self._settings))
            if not attempts.commit_renewal(tx, renewed):
                renewed = attempts.get(tx, attempt.id)
            also(tx)
        failpoints.point("renew.committed")
        return renewed

    def _target(self, attempt: Attempt) -> VaultTargetRow:
        with self._ledger.read() as tx:
            return catalog.target(tx, attempt.target)

    def _failed(self, attempt: Attempt, request: AccessRequest, err: LeasegateError) -> None:
        """Try again soon; a lease that Vault does not have any more is replaced."""
        say = (
            _LOG.warning if (attempt.renewal_failures + 1).bit_count() == 1 else _LOG.debug
        )  # each time that the tries have doubled
        say("a lease was not renewed", request=request.uid, attempt=attempt.sequence, reason=err.reason)
        if leases.is_gone(err):
            return self.lost(attempt, request)
        with self._ledger.write() as tx:
            most_s = (
                durations.longest_renewal_pause_s(attempt)
                if isinstance(err, VaultRefusedError)
                else durations.LONGEST_PAUSE_S
            )
            again = tx.now + durations.backoff_s(attempt.renewal_failures + 1, spread=self._jitter(), most_s=most_s)
            attempts.schedule(tx, attempt.id, due_at=min(again, attempt.ends_at or again), renew_failed=True)
        return None

    def lost(self, attempt: Attempt, request: AccessRequest) -> None:
        """Have a credential replaced whose lease Vault does not have any more."""
        with self._ledger.write() as tx:
            if attempts.get(tx, attempt.id).state is AttemptState.ACTIVE:  # else it was replaced meanwhile
                requests.update(tx, request, rotation_due=True)
                attempts.schedule(tx, attempt.id, due_at=attempt.ends_at)


def _why_over(attempt: Attempt, *, request: AccessRequest, role: DbRole | None) -> str:
    if not kept(attempt, request=request, role=role):
        return "it was not renewed, as it was not what is granted any more"
    if not renews_itself(attempt):
        return "it reached its longest life"
    return "its holder did not renew it" if request.origin is Origin.GRPC else "it could not be renewed in time"


def kept(attempt: Attempt, *, request: AccessRequest, role: DbRole | None) -> bool:
    """Whether a credential in use is still what is granted: else it runs to its end, neither renewed nor replaced
    beforehand.
    """
    return request.approved and role is not None and not role.deleted and attempt.grant == request.digest


def _to_renew(attempt: Attempt, request: AccessRequest, *, role: DbRole | None, now: float) -> bool:
    """Whether it is the service that has to renew a lease, now."""
    ours = request.origin is Origin.KUBERNETES and renews_itself(attempt) and kept(attempt, request=request, role=role)
    return ours and durations.renew_at(attempt) <= now


def renews_itself(attempt: Attempt) -> bool:
    """Whether a renewal can prolong the lease: Vault allows it, and it does not last to its longest life already."""
    return attempt.renewable and (
        attempt.max_ends_at is None or attempt.ends_at is None or attempt.ends_at < attempt.max_ends_at - 1
    )


def rotation_at(attempt: Attempt, *, request: AccessRequest, settings: Settings) -> float | None:
    """When the replacement of an active attempt is to begin; None if that is not known yet, or if it outlives the
    access.

    For a lease that cannot be renewed its end is its longest life.
    """
    longest_at = attempt.max_ends_at if attempt.renewable else attempt.ends_at
    if longest_at is not None and request.ends_at is not None and request.ends_at <= longest_at:
        return None
    overlap = durations.overlap_s(settings.overlap_s, max_ttl_s=attempt.longest_s)
    if not attempt.renewable and attempt.ends_at is not None:
        return attempt.ends_at - min(2 * overlap, attempt.lease_ttl_s / 4)
    return durations.rotate_at(attempt, overlap=overlap)


def next_look(attempt: Attempt, *, request: AccessRequest, settings: Settings, alive: bool = True) -> float:
    """When something is due for an active attempt next: its renewal, its replacement or its end."""
    times = [attempt.ends_at]
    if alive and request.origin is Origin.KUBERNETES and renews_itself(attempt):
        times.append(durations.renew_at(attempt))
    if alive and not request.rotation_due:
        times.append(rotation_at(attempt, request=request, settings=settings))
    return min((at for at in times if at is not None), default=attempt.begun_at + durations.LONGEST_TTL_S)


def _reached(at: float | None, now: float) -> bool:
    return at is not None and now >= at
