"""Reports the state of a DatabaseAccessRequest in its status and its Events; decisions there are never touched."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from leasegate.access.v1 import access_request_pb2
from watcher.delivery.manifests import secret_name
from watcher.kube.conditions import Condition
from watcher.kube.objects import Objects
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import Body, generation_of, key_of
from watcher.kube.result import PendingError
from watcher.reconcilers.status import StatusWriter, not_enabled_condition, ready_condition
from watcher.specs.access_answer import WAITING, answered_conditions, answered_status
from watcher.specs.kinds import ACCESS_REQUEST
from watcher.specs.status import RequestStatus, conditions_of

ISSUED = Condition(
    "Available",
    status=True,
    reason="SuccessfullyIssuedCredential",
    message="The requested credentials successfully issued.",
    warning=False,
)
STILL_READY = ("FailedToGetCredential",)
"""Reasons of failures that leave the credential in the Secret in use: only its replacement failed."""
NOT_APPROVABLE = ("NotAllowedFrom", "SubjectsForbidden", "RoleNotReady", "RoleDeleted")
"""Conditions of access that an approval does not help against: what has to be done first is in their messages."""
NOT_ISSUABLE = (*NOT_APPROVABLE, "RoleChanging", "IssuancePaused")
"""Conditions of access because of which an approved access request gets no credential now."""


class AccessRequestReporter:
    """Writes statuses and Events of access requests.

    Args:
        objects: Where statuses are written.
        events: Where Events are written.
        now: The time.
    """

    def __init__(self, *, objects: Objects, events: EventRecorder, now: Callable[[], datetime.datetime]) -> None:
        self._events = events
        self._writer = StatusWriter(ACCESS_REQUEST, RequestStatus, objects=objects, events=events, now=now)

    def report_state(self, obj: Body, answer: access_request_pb2.AccessRequest, *, secret_attempt: int) -> None:
        """Report what access answered.

        Args:
            obj: The object.
            answer: The access request as access has it.
            secret_attempt: Number of the attempt that its Secret holds; 0 for none.
        """
        conditions, status = answered_conditions(answer), _status(obj, answer)
        if secret_attempt and any(condition.type == "IssuancePaused" for condition in conditions):
            # The ledger may not know the credential in the Secret, which is in use: the status keeps it.
            known = RequestStatus.from_object(obj)
            status = replace(status, lease=known.lease, secret=known.secret, attempt=known.attempt)
        elif secret_attempt and status.lease:
            status = replace(status, secret=secret_name(obj), attempt=secret_attempt)
            conditions += [] if any(condition.type == "Available" for condition in conditions) else [ISSUED]
        else:
            status = status.without_credential()
        delivered = bool(secret_attempt) and status.attempt == secret_attempt
        conditions.append(_ready(obj, status, conditions, delivered=delivered))
        self._writer.write(obj, lambda _: status, conditions)

    def report_issued(
        self, obj: Body, answer: access_request_pb2.AccessRequest, *, attempt: int, previous: int
    ) -> None:
        """Report that a credential is in the Secret and acknowledged.

        Args:
            obj: The object.
            answer: The access request as access has it.
            attempt: Number of the attempt that the Secret holds now.
            previous: Number of the attempt that it held before; 0 if it held none unharmed.
        """
        recreated = not previous and bool(RequestStatus.from_object(obj).attempt)
        self.report_state(obj, answer, secret_attempt=attempt)
        if previous:
            text = f"Secret {secret_name(obj)} holds a new credential; the previous one is revoked soon."
            self._events.record(obj, reason="CredentialRotated", message=text, warning=False)
        elif recreated:
            text = f"Secret {secret_name(obj)} was removed or changed by somebody: it holds a new credential now."
            self._events.record(obj, reason="SecretRecreated", message=text, warning=True)

    def report_removed(self, obj: Body, answer: access_request_pb2.AccessRequest) -> None:
        """Report that access has ended: Secret, Role and RoleBinding are removed."""
        had_secret = bool(RequestStatus.from_object(obj).secret)
        conditions, status = answered_conditions(answer), _status(obj, answer).without_credential()
        conditions.append(_ready(obj, status, conditions, delivered=False))
        self._writer.write(obj, lambda _: status, conditions)
        if had_secret:
            text = (
                f"Access has ended ({status.phase}): Secret {secret_name(obj)} is removed, its lease is being revoked."
            )
            self._events.record(obj, reason="AccessEnded", message=text, warning=False)

    def report_pending(
        self,
        obj: Body,
        pending: PendingError,
        answer: access_request_pb2.AccessRequest | None,
        *,
        secret_attempt: int | None,
    ) -> None:
        """Report what the object needs and is missing; see ``report_failed``."""
        if pending.is_passing or pending.reason == "Starting":
            return
        failed = [Condition("Failed", status=True, reason=pending.reason, message=pending.message, warning=True)]
        if pending.reason == "NamespaceNotEnabled":
            failed.append(not_enabled_condition(pending))
        self._report_unfinished(obj, failed, answer, secret_attempt=secret_attempt)

    def report_failed(
        self,
        obj: Body,
        answer: access_request_pb2.AccessRequest | None,
        *,
        reason: str,
        message: str,
        secret_attempt: int | None,
    ) -> None:
        """Report why the last try failed.

        Args:
            obj: The object.
            answer: The access request as access has it; None if access did not answer.
            reason: CamelCase word for programs.
            message: What failed and what to do.
            secret_attempt: Number of the attempt that its Secret holds; 0 for none, None if that is not known.
        """
        failed = [Condition("Failed", status=True, reason=reason, message=message, warning=True)]
        self._report_unfinished(obj, failed, answer, secret_attempt=secret_attempt)

    def report_revocation_pending(self, obj: Body, *, open_attempts: int, why: str) -> None:
        """Report that the object is deleted before its database users are dropped, which access continues."""
        text = f"{open_attempts} database users of this request are not dropped yet; Leasegate tries until they are"
        condition = Condition(
            "RevocationPending",
            status=True,
            reason="RevocationPending",
            message=text + (f": {why}" if why else "."),
            warning=True,
        )
        self._writer.write(obj, lambda present: present, [condition], complete=False)

    def _report_unfinished(
        self,
        obj: Body,
        failed: Sequence[Condition],
        answer: access_request_pb2.AccessRequest | None,
        *,
        secret_attempt: int | None,
    ) -> None:
        reason, message = failed[0].reason, failed[0].message
        not_ready = ready_condition(ready=False, reason=reason, message=message)
        if answer is None:
            stays_ready = _is_ready(obj) and secret_attempt != 0 and reason != "InvalidSpec"
            ready = [] if stays_ready else [not_ready]
            self._writer.write(
                obj,
                lambda present: replace(
                    present, phase=present.phase or WAITING, observed_generation=generation_of(obj)
                ),
                [*failed, *ready],
                complete=False,
                repeat=["Failed"],
            )
            return
        status, delivered = _status(obj, answer), bool(secret_attempt) and secret_attempt == answer.active_attempt
        ready = [_ready(obj, status, [], delivered=True) if delivered and reason in STILL_READY else not_ready]
        changes: dict[str, Any] = {
            "phase": status.phase,
            "digest": status.digest,
            "grant": status.grant,
            "observed_generation": status.observed_generation,
        }
        if delivered and status.lease:  # it is in the Secret, whatever else failed
            changes |= {"lease": status.lease, "secret": secret_name(obj), "attempt": secret_attempt}
        self._writer.write(
            obj,
            lambda present: replace(present, **changes),
            [*answered_conditions(answer), *failed, *ready],
            repeat=["Failed"],
        )


def _status(obj: Body, answer: access_request_pb2.AccessRequest) -> RequestStatus:
    return replace(answered_status(answer), observed_generation=generation_of(obj))


def _is_ready(obj: Body) -> bool:
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions_of(obj)
    )


def _ready(obj: Body, status: RequestStatus, conditions: Sequence[Condition], *, delivered: bool) -> Condition:
    """The condition Ready: whether the credential is in the Secret and acknowledged, and what to do if it is not."""
    if delivered:
        return ready_condition(
            ready=True, reason=ISSUED.reason, message=f"Secret {secret_name(obj)} has the credential."
        )
    obstacles = {WAITING: NOT_APPROVABLE, "Approved": NOT_ISSUABLE}.get(status.phase, ())
    if obstacle := next((each for each in conditions if each.type in obstacles and each.status), None):
        return ready_condition(ready=False, reason=obstacle.reason, message=obstacle.message)
    if unavailable := next((each for each in conditions if each.type == "Available" and not each.status), None):
        return ready_condition(ready=False, reason=unavailable.reason, message=unavailable.message)
    if status.phase == WAITING:
        namespace, name = key_of(obj)
        text = f"An approver has to decide: kubectl vault approve databaseaccessrequest {name} -n {namespace}"
        return ready_condition(ready=False, reason="ApprovalRequired", message=text)
    if status.phase == "Approved":
        return ready_condition(ready=False, reason="CredentialPending", message="No credential is in the Secret yet.")
    return ready_condition(ready=False, reason=status.phase, message=f"The access request is {status.phase.lower()}.")
