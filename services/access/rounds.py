"""Has the finder look from time to time, so that its figure tells of what nobody asked for."""

from __future__ import annotations

import threading

from services.access.finder import Finder
from services.common.errors import LeasegateError
from services.common.logs import logger

_LOG = logger(__name__)


class Rounds:
    """One thread that looks every ``every_s`` seconds until it is stopped."""

    def __init__(self, finder: Finder, *, every_s: float) -> None:
        self._finder, self._every_s = finder, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="finder", daemon=True)

    def start(self) -> None:
        """Begin; the first look is after one pause."""
        self._thread.start()

    def stop(self) -> None:
        """End, at most some seconds after what is under way."""
        self._stop.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                found = self._finder.find()
            except LeasegateError as err:
                _LOG.error("leases were not compared", reason=err.reason)
            except Exception:  # a defect ends one look, not all that follow
                _LOG.exception("the finder met a defect")
            else:
                if found.orphans:
                    _LOG.warning("leases that are not explained: see `leasegate orphans`", count=len(found.orphans))
