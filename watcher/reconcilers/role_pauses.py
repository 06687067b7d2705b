"""Has access pause db_roles before they, or the connection that they use, change in Vault.

A write to Vault that access does not know of lets a claim run SQL that nobody approved. So engine and roles answer that
a change is due; access pauses the db_roles; the change is made; each db_role's next snapshot ends its own pause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from leasegate.access.v1 import watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common.errors import ChangeDueError, LeasesInUseError
from watcher.clients.stubs import ServiceStubs
from watcher.kube.conditions import Condition
from watcher.kube.result import PendingError
from watcher.reconcilers.failure_window import FailureWindow

Answer = TypeVar("Answer", bound=Message)


class NeedsReports(Protocol):
    """A request of engine or roles that may need reports of access."""

    @property
    def quiesce_report(self) -> types_pb2.QuiesceReport:
        """The report that no lease depends on what changes."""

    @property
    def pause_report(self) -> types_pb2.PauseReport:
        """The report that the db_roles are paused."""


Request = TypeVar("Request", bound=NeedsReports)


def call_with_reports(
    call: Callable[[Request], Answer],
    request: Request,
    *,
    quiesce: Callable[[], types_pb2.QuiesceReport],
    pause: Callable[[], types_pb2.PauseReport],
) -> Answer:
    """Call, with the reports of access that the call says it needs; without a change it needs none.

    Args:
        call: EnsureEngine or EnsureDbRole.
        request: Its request; the reports are put into it.
        quiesce: Asks access to quiesce what changes.
        pause: Asks access to pause the db_roles.

    Raises:
        PendingError: Leases or calls are left.
        LeasegateError: The call failed, or access did.
    """
    try:
        return call(request)
    except LeasesInUseError:
        request.quiesce_report.CopyFrom(quiesce())
    except ChangeDueError:
        request.pause_report.CopyFrom(pause())
        return call(request)
    try:
        return call(request)
    except ChangeDueError:
        request.pause_report.CopyFrom(pause())
        return call(request)


class RolePauses:
    """Asks access for pauses. Safe for threads.

    Args:
        services: The services.
        failures: Since when calls are under way.
    """

    def __init__(self, services: ServiceStubs, failures: FailureWindow) -> None:
        self._services, self._failures = services, failures

    def pause(
        self, uid: str, request: watcher_service_pb2.PauseDbRolesRequest
    ) -> watcher_service_pb2.PauseDbRolesResponse:
        """Pause db_roles.

        Raises:
            PendingError: Calls to Vault that began before are under way.
            LeasegateError: access failed.
        """
        answer = self._services.access.PauseDbRoles(request)
        left = answer.pause_report.calls_under_way
        if left:
            elapsed_s = self._failures.elapsed_s(uid, "pause")
            raise PendingError(
                f"{left} calls to Vault for what is about to change are under way: it is changed when they have ended",
                reason="RoleChanging",
                requeue_after_s=min(1.0, max(0.02, elapsed_s / 4)),
            )
        self._failures.reset_failures(uid, "pause")
        return answer

    def check_revocations(self, uid: str, answer: watcher_service_pb2.PauseDbRolesResponse) -> None:
        """Wait for leases that Vault would end otherwise than it was approved, once the role is written.

        Raises:
            PendingError: There are such leases.
        """
        left = answer.pause_report.leases_revoked_otherwise
        if left:
            elapsed_s = self._failures.elapsed_s(uid, "revocations")
            raise PendingError(
                f"{left} lease(s) were issued with other revocationStatements or on another connection, and Vault would"
                " end them with those of now: the role is changed when they have ended. They are not renewed."
                " Deny or delete their access requests to end them now, or put the role back",
                reason="RoleChanging",
                requeue_after_s=min(15.0, max(0.5, elapsed_s / 8)),
            )
        self._failures.reset_failures(uid, "revocations")


def changing_condition(answer: watcher_service_pb2.PauseDbRolesResponse) -> list[Condition]:
    """What the PostgresRole shows while its change is not made; nothing where access knows no such db_role."""
    return [
        Condition(found.type, status=found.status, reason=found.reason, message=found.message)
        for found in answer.conditions
    ]
