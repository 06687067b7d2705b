"""How often an object may change something that concerns many others: a few times at once, then once in a while.

One PostgresRole may have 10,000 access requests, each of which is reconciled and reassessed when it changes.
"""

from __future__ import annotations

from collections.abc import Callable

from services.common.bounded import BoundedMap
from watcher.kube.resources import Body, uid_of

AT_ONCE = 3
EACH_S = 0.05
"""The pause grows with what a change has reconciled: a role with a thousand access requests changes less often. One
reconcile and its status take 24 ms of processor time, most of it in the API server (ADR 75): half of one processor.
"""
_MOST = 20_000


class ChangePace:
    """When each object changed last.

    Args:
        clock: Monotonic seconds.
        pause_s: Time between two changes, after ``AT_ONCE`` of them.
    """

    def __init__(self, clock: Callable[[], float], *, pause_s: float) -> None:
        self._clock, self._pause_s = clock, pause_s
        self._known = BoundedMap[str, tuple[int, float]](_MOST)  # what it says, and when its changes are worked off

    def wait_s(self, obj: Body) -> float:
        """How long a changed object has to wait before it is applied; 0 for one that did not change."""
        says, worked_off_at = self._known.get(uid_of(obj), (_says(obj), 0.0))
        if says == _says(obj):
            return 0.0
        return max(0.0, worked_off_at - self._pause_s * (AT_ONCE - 1) - self._clock())

    def note_applied(self, obj: Body, *, concerned: int = 0) -> None:
        """Note that an object is applied as it is now, which has so many other objects reconciled."""
        now = self._clock()
        says, worked_off_at = self._known.get(uid_of(obj), (0, now))
        if says != _says(obj):
            self._known[uid_of(obj)] = _says(obj), max(worked_off_at, now) + self._pause_s + concerned * EACH_S


def _says(obj: Body) -> int:
    """Differs whenever the spec or an annotation does, such as the owner's consent."""
    meta = obj["metadata"]
    return hash((meta.get("generation", 0), *sorted((meta.get("annotations") or {}).items())))
