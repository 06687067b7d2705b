"""Says how a DatabaseAccessRequest stands, in its status and its Events. What approvers wrote there is never touched."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from watcher.delivery.manifests import secret_name
from watcher.kube.conditions import Condition, changed_conditions, merged
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, generation_of
from watcher.kube.result import PendingError
from watcher.reconcilers.request_status import RequestStatus
from watcher.reconcilers.status import not_served_fact
from watcher.specs.kinds import ACCESS_REQUEST
from watcher.specs.status import DECISIONS

ISSUED = Condition(
    "Available",
    status=True,
    reason="SuccessfullyIssuedCredential",
    message="The requested credentials successfully issued.",
    warning=False,
)
NOTHING: Mapping[str, Any] = {"lease": None, "secret": None, "attempt": None}


class AccessRequestReporter:
    """Writes statuses and Events of requests.

    Args:
        objects: Where statuses are written.
        events: Where Events are written.
        now: The time.
    """

    def __init__(self, *, objects: Objects, events: EventRecorder, now: Callable[[], datetime.datetime]) -> None:
        self._objects, self._events, self._now = objects, events, now

    def stands(self, obj: Body, standing: RequestStatus, *, secret_attempt: int) -> None:
        """It stands as access says.

        Args:
            obj: The request.
            standing: Where it stands.
            secret_attempt: Number of the attempt that its Secret holds; 0 for none.
        """
        fields: dict[str, Any] = dict(NOTHING)
        facts = list(standing.facts)
        if secret_attempt and any(fact.type == "IssuancePaused" for fact in facts):
            fields = {}  # access knows nothing of the credential in the Secret, which may well be in use
        elif secret_attempt and standing.lease:
            fields = {"lease": standing.lease, "secret": {"name": secret_name(obj)}, "attempt": secret_attempt}
            facts += [] if any(fact.type == "Available" for fact in facts) else [ISSUED]
        self._write(obj, _fields(obj, standing) | fields, facts)

    def issued(self, obj: Body, standing: RequestStatus, *, attempt: int, before: int) -> None:
        """A credential was put into the Secret.

        Args:
            obj: The request.
            standing: Where it stands.
            attempt: Number of the attempt that the Secret holds now.
            before: Number of the attempt that it held before; 0 if it held none unharmed.
        """
        lost = not before and bool((obj.get("status") or {}).get("attempt"))
        self.stands(obj, standing, secret_attempt=attempt)
        if before:
            text = f"Secret {secret_name(obj)} holds a new credential; the one before ends soon."
            self._events.record(obj, reason="CredentialRotated", message=text, warning=False)
        elif lost:
            text = f"Secret {secret_name(obj)} was removed or changed by somebody: it holds a new credential."
            self._events.record(obj, reason="SecretRecreated", message=text, warning=True)

    def ended(self, obj: Body, standing: RequestStatus) -> None:
        """Nothing is granted (any more): Secret, Role and RoleBinding are gone."""
        had = bool((obj.get("status") or {}).get("secret"))
        self._write(obj, _fields(obj, standing) | dict(NOTHING), standing.facts)
        if had:
            text = f"Access has ended ({standing.phase}): Secret {secret_name(obj)} is removed, and its login goes."
            self._events.record(obj, reason="AccessEnded", message=text, warning=False)

    def waiting(self, obj: Body, waiting: PendingError, standing: RequestStatus | None) -> None:
        """Something that it needs is not there."""
        if waiting.reason == "Starting":
            return
        facts = [Condition("Failed", status=True, reason=waiting.reason, message=waiting.message, warning=True)]
        if waiting.reason == "NamespaceNotEnabled":
            facts.append(not_served_fact(waiting))
        self._unfinished(obj, facts, standing)

    def failed(self, obj: Body, standing: RequestStatus | None, *, reason: str, message: str) -> None:
        """The last try failed."""
        self._unfinished(
            obj, [Condition("Failed", status=True, reason=reason, message=message, warning=True)], standing
        )

    def revoke_pending(self, obj: Body, *, open_attempts: int, why: str) -> None:
        """The object goes before its login is gone, which access sees to."""
        text = f"{open_attempts} logins of this request are not known to be dropped yet; Leasegate drops them as soon as Vault lets it"
        fact = Condition(
            "RevocationPending",
            status=True,
            reason="RevocationPending",
            message=text + (f": {why}" if why else "."),
            warning=True,
        )
        self._write(obj, {}, [fact], complete=False)

    def _unfinished(self, obj: Body, facts: list[Condition], standing: RequestStatus | None) -> None:
        if standing is None:
            status = obj.get("status") or {}
            fields = {"phase": status.get("phase") or "WaitingForApproval", "observedGeneration": generation_of(obj)}
            self._write(obj, fields, facts, complete=False)
        else:
            self._write(obj, _fields(obj, standing), [*standing.facts, *facts])

    def _write(
        self, obj: Body, fields: Mapping[str, Any], facts: Iterable[Condition], *, complete: bool = True
    ) -> None:
        now, generation, fresh, wanted = self._now(), generation_of(obj), list[Condition](), list(facts)

        def change(status: Body) -> Body:
            fresh[:] = changed_conditions(status, wanted)
            return merged(
                status,
                fields=fields,
                conditions=wanted,
                foreign=DECISIONS,
                complete=complete,
                now=now,
                generation=generation,
            )

        self._objects.write_status(ACCESS_REQUEST, obj, change)
        self._tell(obj, wanted, fresh)

    def _tell(self, obj: Body, facts: Sequence[Condition], fresh: Sequence[Condition]) -> None:
        for fact in facts:
            if fact.warning is not None and (fact in fresh or fact.type == "Failed"):
                self._events.record(
                    obj, reason=fact.reason, message=fact.message, warning=fact.warning, transition=fact in fresh
                )


def _fields(obj: Body, standing: RequestStatus) -> dict[str, Any]:
    return {"observedGeneration": generation_of(obj), "phase": standing.phase, "digest": standing.digest or None}
