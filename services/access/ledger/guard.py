"""Pauses issuance while the ledger is not the known one (docs/adr/0024-unknown-ledger-pauses-issuance.md).

A lost ledger looks like a first start, and an old copy looks like the present. Neither may lead to new credentials
beside those that nobody remembers: a watcher that knows another ledger's id pauses all issuance of its cluster, a
Secret with an attempt that the ledger does not know pauses its own access request. Both last until an operator accepts
the loss; renewals and revocations go on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from services.access.domain.models import AccessRequest
from services.access.ledger import meta, requests
from services.access.ledger.db.database import Ledger
from services.common.errors import FieldViolation, LedgerMismatchError, SpecInvalidError
from services.common.logs import bounded, logger

_LOG = logger(__name__)
_PAUSED, _ACCEPTED, _ACCEPTED_AT = "paused_for:", "accepted:", "loss_accepted_at"
_ID_CHARS = 64


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Which ledger is in use, and what is paused.

    Attributes:
        id: Its id.
        known_id: The other ledger that a watcher knows, for which issuance of its cluster is paused; empty if none.
        paused_access_requests: Number of access requests with an attempt that the ledger does not know.
        accepted_at: When a loss was accepted last, seconds since 1970; None if never.
    """

    id: str
    known_id: str
    paused_access_requests: int
    accepted_at: float | None


class LedgerGuard:
    """Remembers what watchers know of this or another ledger, and refuses to issue meanwhile. Safe for threads.

    Other ledgers' ids are stored; unknown attempts are reported again after a restart.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._unknown: dict[str, int] = {}  # by uid: the attempt in the Secret that the ledger does not know
        with ledger.read() as tx:
            # uid of a cluster and the other ledger's id, which its watcher knows
            self._others = {_pair(name) for name in meta.names(tx, _PAUSED)}

    @property
    def ledger_id(self) -> str:
        """Id of the ledger in use."""
        return self._ledger.id

    @property
    def known_id(self) -> str:
        """Another ledger's id that any watcher knows, for which issuance of its cluster is paused; empty if none."""
        with self._lock:
            return min((ledger_id for _, ledger_id in self._others), default="")

    def known_id_of(self, cluster_uid: str) -> str:
        """The other ledger's id that the watcher of a cluster knows; empty if none, and outside Kubernetes."""
        with self._lock:
            return min((ledger_id for uid, ledger_id in self._others if uid == cluster_uid), default="")

    @property
    def paused_access_requests(self) -> int:
        """How many access requests have an attempt that the ledger does not know."""
        with self._lock:
            return len(self._unknown)

    def observe_ledger_id(self, known_id: str, *, cluster_uid: str) -> bool:
        """Take the ledger id that the watcher of a cluster knows.

        Returns:
            Whether it is another one whose loss nobody has accepted: issuance of that cluster is paused.
        """
        known_id = bounded(known_id, _ID_CHARS)
        if known_id in ("", self._ledger.id):
            return False
        other = (cluster_uid, known_id)
        with self._lock:
            if other in self._others:
                return True
        with self._ledger.read() as tx:
            if meta.get(tx, _ACCEPTED + known_id) is not None:
                return False
        with self._ledger.write() as tx:
            if meta.get(tx, _ACCEPTED + known_id) is not None:  # meanwhile
                return False
            meta.put(tx, _PAUSED + ":".join(other), str(tx.now))
            tx.changed.update(requests.open_uids(tx, cluster_uid=cluster_uid))
        with self._lock:
            self._others |= {other}
        _LOG.error(
            "issuance paused: the ledger is not the one that is known",
            known=known_id,
            cluster_uid=cluster_uid,
            found=self._ledger.id,
            do=LedgerMismatchError.advice,
        )
        return True

    def observe_attempt(self, request: AccessRequest, *, secret_attempt: int) -> bool:
        """Return whether the Secret has an attempt that the ledger does not know; remember it for ``accept_loss``."""
        unknown = not request.ended and secret_attempt > request.last_sequence
        with self._lock:
            if unknown:
                self._unknown[request.uid] = secret_attempt
            else:
                self._unknown.pop(request.uid, None)
        return unknown

    def check_issuance(self, request: AccessRequest, *, secret_attempt: int) -> None:
        """Refuse to issue while issuance is paused.

        Raises:
            LedgerMismatchError: It is paused, for all or for this access request.
        """
        if known := self.known_id_of(request.cluster_uid):
            text = f"the ledger is not the one that is known ({known}): {LedgerMismatchError.advice}"
            raise LedgerMismatchError(text, ledger=self._ledger.id)
        if secret_attempt > request.last_sequence:
            raise LedgerMismatchError(
                f"the ledger does not know attempt {secret_attempt} of this request: {LedgerMismatchError.advice}",
                ledger=self._ledger.id,
            )

    def accept_loss(self, ledger_id: str, *, caller: str, reason: str) -> LedgerState:
        """Accept that what is not known is lost: sequences go on above those in Secrets, and issuance resumes.

        Args:
            ledger_id: The ledger in use, which the operator has to have seen.
            caller: The caller, for the log.
            reason: Why, for the log.

        Raises:
            SpecInvalidError: Another ledger is in use.
        """
        if ledger_id != self._ledger.id:
            raise SpecInvalidError.of(
                FieldViolation("ledger_id", f"is not the ledger in use, which is {self._ledger.id}")
            )
        with self._lock:
            others, unknown = set(self._others), dict(self._unknown)
        with self._ledger.write() as tx:
            for other in others:
                meta.put(tx, _ACCEPTED + other[1], str(tx.now))
                meta.drop(tx, _PAUSED + ":".join(other))
            for uid, secret_attempt in unknown.items():
                requests.raise_sequence(tx, uid, secret_attempt)
            meta.put(tx, _ACCEPTED_AT, str(tx.now))
            tx.changed.update(requests.open_uids(tx))
        with self._lock:
            self._others -= others
            self._unknown = {
                uid: secret_attempt
                for uid, secret_attempt in self._unknown.items()
                if unknown.get(uid) != secret_attempt
            }
        end_reason = bounded(reason, 1024)
        _LOG.warning(
            "ledger loss accepted",
            caller=caller,
            others=sorted({ledger_id for _, ledger_id in others}),
            access_requests=len(unknown),
            end_reason=end_reason,
        )
        return self.state()

    def state(self) -> LedgerState:
        """Return which ledger is in use and what is paused."""
        with self._ledger.read() as tx:
            accepted = meta.get(tx, _ACCEPTED_AT)
        return LedgerState(
            self._ledger.id, self.known_id, self.paused_access_requests, float(accepted) if accepted else None
        )


def _pair(name: str) -> tuple[str, str]:
    cluster_uid, _, ledger_id = name.partition(":")
    return cluster_uid, ledger_id
