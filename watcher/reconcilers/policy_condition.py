"""Shows on every object in an enabled namespace that the admission policies are not in force.

It is a condition beside all others: what an object is Ready for stays so, and only what is new is not issued. The
condition depends on no service, so that it shows in an outage, too.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from watcher.kube.client import KubeError
from watcher.kube.conditions import Condition, merged, without_condition
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Key, Resource, generation_of, has_finalizer
from watcher.reconcilers.appbinding_status import NO_STATUS
from watcher.specs.kinds import APP_BINDING, FINALIZER
from watcher.specs.status import DECISIONS, NOT_IN_FORCE, conditions_of


class PolicyReporter:
    """Writes the condition and takes it away again. Safe for threads, as ``Objects`` is.

    Args:
        objects: Where statuses are written.
        what_is_wrong: Says why the policies are not in force: empty if they are, None if that is not known yet.
        is_refused: Whether a namespace is known not to be enabled, which is what its objects say.
        now: The time.
    """

    def __init__(
        self,
        *,
        objects: Objects,
        what_is_wrong: Callable[[], str | None],
        is_refused: Callable[[str], bool],
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._objects, self._what_is_wrong, self._is_refused, self._now = objects, what_is_wrong, is_refused, now
        self._text = ""

    def begin_pass(self) -> None:
        """Take the text for all objects from here on.

        While somebody applies one policy after the other the difference is another one every ten seconds. No object
        is written again for that: its text changes once a resync.
        """
        self._text = self._what_is_wrong() or ""

    def report(self, resource: Resource, key: Key) -> None:
        """Write the condition on an object, or take it away; an object that is right already is not written.

        Raises:
            KubeError: Kubernetes failed.
        """
        obj, wrong = self._objects.get(resource, key), self._what_is_wrong()
        if obj is None or wrong is None:
            return
        is_there = any(condition.get("type") == NOT_IN_FORCE for condition in conditions_of(obj))
        is_wanted = bool(wrong) and not self._is_refused(key.namespace) and _has_status(resource, obj)
        if not is_there and not is_wanted:
            return
        text = self._text or wrong
        condition = Condition("PoliciesNotInForce", status=True, reason="PoliciesNotInForce", message=text)

        def change(status: Body) -> Body:
            if not is_wanted:
                return without_condition(status, NOT_IN_FORCE)
            return merged(
                status,
                fields={},
                conditions=[condition],
                foreign=DECISIONS,
                complete=False,
                now=self._now(),
                generation=generation_of(obj),
            )

        try:
            self._objects.write_status(resource, obj, change)
        except KubeError as err:
            if err.status != 404 and not (resource is APP_BINDING and err.status in NO_STATUS):
                raise


def _has_status(resource: Resource, obj: Body) -> bool:
    """Whether the watcher writes a status of the object: of an AppBinding only while something uses it."""
    return resource is not APP_BINDING or has_finalizer(obj, FINALIZER)
