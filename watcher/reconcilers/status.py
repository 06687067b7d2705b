"""Reports the state of a SecretEngine or PostgresRole in its status and its Events.

Exactly one phase holds: Success, Processing (the message names what is missing) or Failed (the message gives the
cause). A status that is right already is not written.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Generic

from leasegate.types.v1 import types_pb2
from services.common.errors import LeasegateError
from watcher.kube.conditions import Condition, changed_conditions, merged
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, Resource, generation_of, key_of
from watcher.kube.result import PendingError, namespace_not_enabled
from watcher.specs.status import DECISIONS, NOT_IN_FORCE, AnyStatus, PlacedStatus

QUIET = ("EngineNotReady", "Starting", "RoleChanging")
"""Reasons that a first apply or a change passes through, so that they are no warning."""


class StatusWriter(Generic[AnyStatus]):
    """Writes statuses of one kind, and an Event for each condition that is new.

    Args:
        resource: The kind.
        status_type: Its status.
        objects: Where statuses are written.
        events: Where Events are written.
        now: The time.
    """

    def __init__(
        self,
        resource: Resource,
        status_type: type[AnyStatus],
        *,
        objects: Objects,
        events: EventRecorder,
        now: Callable[[], datetime.datetime],
    ) -> None:
        self._resource, self._objects, self._events, self._now = resource, objects, events, now
        self._status_type: type[AnyStatus] = status_type

    def write(
        self,
        obj: Body,
        change: Callable[[AnyStatus], AnyStatus],
        conditions: Sequence[Condition],
        *,
        complete: bool = True,
        repeat: Collection[str] = (),
    ) -> Body:
        """Write status and conditions, unless they are so already.

        Args:
            obj: The object.
            change: Makes the new status of the present one.
            conditions: Conditions to set.
            complete: Whether they are all, so that others of the watcher are removed, but for PoliciesNotInForce.
            repeat: Types of conditions that have an Event although they are not new.

        Returns:
            The object with that status.
        """
        now, generation, fresh = self._now(), generation_of(obj), list[Condition]()

        def change_status(present: Body) -> Body:
            fresh[:] = changed_conditions(present, conditions)
            return merged(
                present,
                fields=change(self._status_type.from_object({"status": present})).fields(),
                conditions=conditions,
                foreign=(*DECISIONS, NOT_IN_FORCE),
                complete=complete,
                now=now,
                generation=generation,
            )

        written = self._objects.write_status(self._resource, obj, change_status)
        for condition in conditions:
            if condition.warning is not None and (condition in fresh or condition.type in repeat):
                self._events.record(
                    obj,
                    reason=condition.reason,
                    message=condition.message,
                    warning=condition.warning,
                    transition=condition in fresh,
                )
        return written


class StatusReporter(Generic[PlacedStatus]):
    """Writes statuses and Events of one kind.

    Args:
        resource: The kind.
        status_type: Its status.
        objects: Where statuses are written.
        events: Where Events are written.
        ready_message: Message of the condition Available.
        now: The time.
        is_refused: Whether a namespace is known not to be enabled, which is reported beside whatever else is missing.
    """

    def __init__(
        self,
        resource: Resource,
        status_type: type[PlacedStatus],
        *,
        objects: Objects,
        events: EventRecorder,
        ready_message: str,
        now: Callable[[], datetime.datetime],
        is_refused: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._status_type: type[PlacedStatus] = status_type
        self._events, self._ready_message, self._is_refused = events, ready_message, is_refused
        self._writer: StatusWriter[PlacedStatus] = StatusWriter(
            resource, status_type, objects=objects, events=events, now=now
        )

    def read_status(self, obj: Body) -> PlacedStatus:
        """The status of an object of this kind."""
        return self._status_type.from_object(obj)

    def record_status(self, obj: Body, status: PlacedStatus) -> Body:
        """Record in the status what is about to be made, so that a deletion finds it whatever happens meanwhile.

        Returns:
            The object with that status.
        """
        return self._writer.write(obj, lambda _: replace(status, phase="Processing"), [], complete=False)

    def amend_status(self, obj: Body, change: Callable[[PlacedStatus], PlacedStatus]) -> Body:
        """Change members of the status; its phase and conditions stay.

        Returns:
            The object with that status.
        """
        return self._writer.write(obj, change, [], complete=False)

    def report_ready(
        self, obj: Body, status: PlacedStatus, *, notices: Iterable[types_pb2.Notice], changed: bool
    ) -> Body:
        """Report that Vault has what the spec asks for.

        Args:
            obj: The object.
            status: Its status; phase and observedGeneration are set here.
            notices: What the service wants to be seen.
            changed: Whether something was written to Vault, which is worth an Event.
        """
        conditions = [
            Condition("Available", status=True, reason="Provisioned", message=self._ready_message, warning=False)
        ]
        conditions += [
            Condition(notice.reason, status=True, reason=notice.reason, message=notice.message, warning=True)
            for notice in notices
        ]
        conditions.append(ready_condition(ready=True, reason="Provisioned", message=self._ready_message))
        done = replace(status, phase="Success", observed_generation=generation_of(obj))
        return self._writer.write(obj, lambda _: done, conditions, repeat=["Available"] if changed else [])

    def report_pending(self, obj: Body, pending: PendingError, *, also: Sequence[Condition] = ()) -> Body:
        """Report what the object needs and is missing; ``also`` says what else holds meanwhile."""
        if pending.is_passing:
            return obj
        conditions = [
            *also,
            Condition(
                "Available",
                status=False,
                reason=pending.reason,
                message=pending.message,
                warning=pending.reason not in QUIET,
            ),
        ]
        if pending.reason == "NamespaceNotEnabled":
            conditions.append(not_enabled_condition(pending))
        elif self._is_refused(key_of(obj).namespace):
            refusal = not_enabled_condition(namespace_not_enabled(key_of(obj).namespace))
            conditions.append(replace(refusal, warning=True))
        conditions.append(ready_condition(ready=False, reason=pending.reason, message=pending.message))
        return self._write_phase(obj, "Processing", conditions)

    def report_failed(self, obj: Body, *, reason: str, message: str, also: Sequence[Condition] = ()) -> Body:
        """Report why the last try failed; ``also`` says what else holds meanwhile."""
        conditions = [
            *also,
            Condition("Available", status=False, reason=reason, message=message),
            Condition("Failed", status=True, reason=reason, message=message, warning=True),
            ready_condition(ready=False, reason=reason, message=message),
        ]
        return self._write_phase(obj, "Failed", conditions, repeat=["Failed"])

    def report_drift_corrected(self, obj: Body, what: str) -> None:
        """Report that something was changed or removed in Vault and is restored."""
        text = f"In Vault {what} was changed or removed by somebody else: it is restored from the spec"
        self.record_event(obj, reason="DriftCorrected", message=text, warning=True)

    def record_event(self, obj: Body, *, reason: str, message: str, warning: bool) -> None:
        """Write an Event without a condition."""
        self._events.record(obj, reason=reason, message=message, warning=warning)

    def _write_phase(self, obj: Body, phase: str, conditions: list[Condition], *, repeat: Collection[str] = ()) -> Body:
        def change(present: PlacedStatus) -> PlacedStatus:
            return replace(present, phase=phase, observed_generation=generation_of(obj))

        return self._writer.write(obj, change, conditions, repeat=repeat)


def ready_condition(*, ready: bool, reason: str, message: str) -> Condition:
    """The standard condition Ready, for ``kubectl wait`` and GitOps health checks; it has no Event of its own."""
    return Condition("Ready", status=ready, reason=reason, message=message)


def not_enabled_condition(pending: PendingError) -> Condition:
    """The condition that names a namespace that is not enabled, and the command that enables it."""
    return Condition("NamespaceNotEnabled", status=True, reason=pending.reason, message=pending.message)


def reason_of(err: LeasegateError, *, kinds: Mapping[str, str] | None = None) -> str:
    """The CamelCase reason of an error, for conditions.

    Args:
        err: The error of a service.
        kinds: KubeVault's reasons for an error that Vault itself answered, by a part of the path such as
            ``/config/``; they take precedence.
    """
    if err.reason in ("VAULT_REFUSED", "VAULT_FAILED"):
        path = err.metadata.get("path", "")
        for part, reason in (kinds or {}).items():
            if part in path:
                return reason
    if err.reason == "SPEC_INVALID":
        return "InvalidSpec"
    return "".join(word.capitalize() for word in err.reason.split("_"))
