"""Reports in an AppBinding's condition Ready whether Leasegate can use it.

The kind is AppsCode's, and other operators create AppBindings, too. So only those that a SecretEngine or PostgresRole
has used get a condition, and a cluster whose CustomResourceDefinition has no status goes without.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

from services.common import logs
from watcher.kube.client import KubeError
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, generation_of, key_of
from watcher.reconcilers.status import StatusWriter, ready_condition
from watcher.specs.kinds import APP_BINDING
from watcher.specs.status import AppBindingStatus

LOG = logs.logger(__name__)
NO_STATUS = (403, 404)
"""HTTP statuses of a write where the CustomResourceDefinition of another operator has no status, or RBAC is older."""


class AppBindingReporter:
    """Writes the statuses of AppBindings.

    Args:
        objects: Where statuses are written.
        events: Where Events are written.
        now: The time.
    """

    def __init__(self, *, objects: Objects, events: EventRecorder, now: Callable[[], datetime.datetime]) -> None:
        self._writer: StatusWriter[AppBindingStatus] = StatusWriter(
            APP_BINDING, AppBindingStatus, objects=objects, events=events, now=now
        )
        self._refusal_logged = False

    def report_ready(self, binding: Body, *, reason: str, message: str) -> None:
        """Report that the AppBinding can be used."""
        self._write(binding, ready=True, reason=reason, message=message)

    def report_not_ready(self, binding: Body, *, reason: str, message: str) -> None:
        """Report what is missing or wrong."""
        self._write(binding, ready=False, reason=reason, message=message)

    def _write(self, binding: Body, *, ready: bool, reason: str, message: str) -> None:
        condition = ready_condition(ready=ready, reason=reason, message=message)
        status = AppBindingStatus(observed_generation=generation_of(binding))
        try:
            self._writer.write(binding, lambda _: status, [condition], complete=False)  # others may have theirs
        except KubeError as err:
            if err.status not in NO_STATUS:
                raise
            if not self._refusal_logged:
                LOG.warning("status of AppBinding not written", appbinding=str(key_of(binding)), problem=err.message)
                self._refusal_logged = True
