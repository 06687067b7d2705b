"""Says how a SecretEngine or PostgresRole stands, in its status and its Events.

Exactly one of three: Success (Available), Processing (what is waited for), Failed (why). A status that is true already is not written
again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from services.common.errors import LeasegateError
from watcher.kube.conditions import Condition, changed_conditions, merged
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, Resource, generation_of, key_of
from watcher.kube.result import PendingError, namespace_not_enabled
from watcher.specs.status import DECISIONS

QUIET = ("EngineNotReady", "Starting")
"""What every first apply passes through is no warning."""


class StatusReporter:
    """Writes statuses and Events of one kind.

    Args:
        resource: The kind.
        objects: Where statuses are written.
        events: Where Events are written.
        ready: Message of success.
        now: The time.
        unserved: Whether a namespace is known not to be served, which is said beside whatever else is waited for.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        objects: Objects,
        events: EventRecorder,
        ready: str,
        now: Callable[[], datetime.datetime],
        unserved: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._resource, self._objects, self._events, self._ready, self._now = resource, objects, events, ready, now
        self._unserved = unserved

    def intend(self, obj: Body, fields: Mapping[str, Any]) -> Body:
        """Write down what is about to be made, before it is made: whatever happens then, a deletion knows where to
        look.
        """
        return self._write(obj, {"phase": "Processing", **fields}, [], complete=False)

    def success(self, obj: Body, fields: Mapping[str, Any], *, notices: Iterable[Any], changed: bool) -> Body:
        """It is as the spec says.

        Args:
            obj: The object.
            fields: Members of the status besides phase, conditions and observedGeneration.
            notices: ``leasegate.types.v1.Notice`` of the service.
            changed: Whether something was written to Vault, which is worth an Event.
        """
        facts = [Condition("Available", status=True, reason="Provisioned", message=self._ready, warning=False)]
        facts += [
            Condition(notice.reason, status=True, reason=notice.reason, message=notice.message, warning=True)
            for notice in notices
        ]
        fields = {"phase": "Success", "observedGeneration": generation_of(obj), **fields}
        return self._write(obj, fields, facts, again=["Available"] if changed else [])

    def waiting(self, obj: Body, waiting: PendingError) -> Body:
        """Something that it needs is not there."""
        facts = [
            Condition(
                "Available",
                status=False,
                reason=waiting.reason,
                message=waiting.message,
                warning=waiting.reason not in QUIET,
            )
        ]
        if waiting.reason == "NamespaceNotEnabled":
            facts.append(not_served_fact(waiting))
        elif self._unserved(key_of(obj).namespace):
            facts.append(replace(not_served_fact(namespace_not_enabled(key_of(obj).namespace)), warning=True))
        return self._write(obj, {"phase": "Processing", "observedGeneration": generation_of(obj)}, facts)

    def failed(self, obj: Body, *, reason: str, message: str) -> Body:
        """The last try failed."""
        facts = [
            Condition("Available", status=False, reason=reason, message=message),
            Condition("Failed", status=True, reason=reason, message=message, warning=True),
        ]
        return self._write(obj, {"phase": "Failed", "observedGeneration": generation_of(obj)}, facts, again=["Failed"])

    def put_back(self, obj: Body, what: str) -> None:
        """Something that had been changed or removed in Vault is there again as the spec says."""
        text = f"In Vault {what} was not as it had been written, or was gone: it is as the spec says again"
        self.event(obj, reason="DriftCorrected", message=text, warning=True)

    def event(self, obj: Body, *, reason: str, message: str, warning: bool) -> None:
        """Write an Event alone."""
        self._events.record(obj, reason=reason, message=message, warning=warning)

    def _write(
        self,
        obj: Body,
        fields: Mapping[str, Any],
        facts: list[Condition],
        *,
        complete: bool = True,
        again: Iterable[str] = (),
    ) -> Body:
        now, generation, fresh = self._now(), generation_of(obj), list[Condition]()

        def change(status: Body) -> Body:
            fresh[:] = changed_conditions(status, facts)
            return merged(
                status,
                fields=fields,
                conditions=facts,
                foreign=DECISIONS,
                complete=complete,
                now=now,
                generation=generation,
            )

        written = self._objects.write_status(self._resource, obj, change)
        for fact in facts:
            if fact.warning is not None and (fact in fresh or fact.type in again):
                self._events.record(
                    obj, reason=fact.reason, message=fact.message, warning=fact.warning, transition=fact in fresh
                )
        return written


def not_served_fact(waiting: PendingError) -> Condition:
    """The condition that names a namespace that is not served, and the command that serves it."""
    return Condition("NamespaceNotEnabled", status=True, reason=waiting.reason, message=waiting.message)


def reason_of(err: LeasegateError, *, kinds: Mapping[str, str] | None = None) -> str:
    """The CamelCase reason of an error, for conditions.

    Args:
        err: The error of a service.
        kinds: Reasons that KubeVault has for an error of Vault's own at a path with this in it, such as ``/config/``;
            they win.
    """
    if err.reason in ("VAULT_REFUSED", "VAULT_FAILED"):
        path = err.metadata.get("path", "")
        for part, reason in (kinds or {}).items():
            if part in path:
                return reason
    if err.reason == "SPEC_INVALID":
        return "InvalidSpec"
    return "".join(word.capitalize() for word in err.reason.split("_"))
