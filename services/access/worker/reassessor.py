"""The reassessor: brings the access requests of changed db_roles in line, step by step, beside all other work.

Safety does not wait for it (ADR 78): it ends what was begun under a former approval, has changes shown, and has leases
looked at. What is left is in the ledger, so that the next process goes on where this one ends.
"""

from __future__ import annotations

import threading
import time

from services.access.ledger import reassessments
from services.access.ledger.db.database import SOON_S, Ledger, Tx
from services.access.requests import reassess
from services.common import failpoints
from services.common.errors import LeasegateError
from services.common.logs import logger

_LOG = logger(__name__)
_LONGEST_REST_S = 1.0


class Reassessor:
    """One thread; its turns go round the namespaces, and after each it rests for as long as the turn took."""

    def __init__(self, ledger: Ledger) -> None:
        """Nothing runs before ``start``."""
        self._ledger = ledger
        self._left, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="reassessor", daemon=True)
        ledger.listeners.append(self._committed)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the step under way, waiting for it at most five seconds."""
        self._stop.set()
        self._left.set()
        self._thread.join(5.0)

    def take_turns(self) -> bool:
        """Do one step for each namespace that has a changed db_role; return whether any was done."""
        with self._ledger.read() as tx:
            found = reassessments.next_of_each_namespace(tx)
        done = [self._take_turn(db_role) for db_role in found]
        return any(done)

    def _take_turn(self, db_role: int) -> bool:
        """Do one step for a db_role; what fails there keeps no other namespace waiting."""
        if self._stop.is_set():
            return False
        began = time.monotonic()
        try:
            with self._ledger.write() as tx:
                reassess.step(tx, db_role)
        except LeasegateError as err:
            _LOG.error("access requests not reassessed", reason=err.reason)
            return False
        except Exception:  # a defect ends one turn, not all later ones
            _LOG.exception("unhandled exception in reassessor")
            return False
        failpoints.point("reassess.step")
        self._stop.wait(min(time.monotonic() - began, _LONGEST_REST_S))
        return True

    def _committed(self, tx: Tx) -> None:
        if tx.reassessments:
            self._left.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._left.clear()
            try:
                done = self.take_turns()
            except LeasegateError as err:
                _LOG.error("ledger not readable", reason=err.reason)
                done = False
            if not done:
                self._left.wait(SOON_S)
