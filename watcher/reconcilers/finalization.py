"""Records where in Vault an object's things are before they are made, and removes them when the object is deleted.

A status names the place before anything is made there, so that no crash leaves a thing that nobody knows of. Where a
service's error proves that nothing was made, the place is removed again, so that an object with a mistyped path is
deleted at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Generic

from leasegate.types.v1 import types_pb2
from services.common import errors
from services.common.errors import LeasegateError
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Resource, has_finalizer, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.specs.kinds import FINALIZER
from watcher.specs.status import PlacedStatus, TargetStatus

ANSWERED = (
    errors.VaultSealedError,
    errors.VaultRefusedError,
    errors.VaultFailedError,
    errors.VaultThrottledError,
    errors.VaultPolicyMissingError,
)
"""Errors that come from a Vault that exists, so that a deletion waits for it."""


def record_place(
    obj: Body, reporter: StatusReporter[PlacedStatus], *, target: types_pb2.VaultTarget, place: PlacedStatus
) -> tuple[Body, bool]:
    """Record in the status where things are about to be made, unless it names the place already.

    Args:
        obj: The object.
        reporter: Writes the status.
        target: The Vault.
        place: The status that names the place; an empty connection is not compared.

    Returns:
        The object with that status, and whether no place was recorded before.
    """
    known = reporter.read_status(obj)
    if known.is_at(target, place.path) and place.connection in ("", known.connection):
        return obj, False
    return reporter.record_status(obj, place), known.target is None


def record_failure(obj: Body, reporter: StatusReporter[PlacedStatus], err: LeasegateError, *, first_try: bool) -> None:
    """Record what a failed try proves about the place: that nothing was made there, or that its Vault answers.

    Args:
        obj: The object.
        reporter: Writes the status.
        err: The error.
        first_try: Whether this was the first try at the place; only then "made nothing" means that nothing is there.
    """
    known = reporter.read_status(obj)
    if first_try and err.changed_nothing:
        reporter.record_status(obj, known.without_place())
    elif isinstance(err, ANSWERED) and known.target and not known.target.answered:
        reporter.record_status(obj, replace(known, target=replace(known.target, answered=True)))


class Finalizer(Generic[PlacedStatus]):
    """Removes an object's things from Vault when it is deleted or moves, then its finalizer.

    Args:
        resource: The kind.
        objects: The objects.
        reporter: Reports what the deletion waits for.
        failures: Since when it fails.
        kinds: Reasons of Vault's own errors, as ``reason_of`` takes them.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        objects: Objects,
        reporter: StatusReporter[PlacedStatus],
        failures: FailureWindow,
        kinds: Mapping[str, str],
    ) -> None:
        self._resource, self._objects, self._failures, self._kinds = resource, objects, failures, kinds
        self._reporter: StatusReporter[PlacedStatus] = reporter

    def finalize(self, obj: Body, clean_up: Callable[[Body, PlacedStatus, TargetStatus], None]) -> Result:
        """Remove what an object that is being deleted has in Vault, and its finalizer.

        Args:
            obj: The object.
            clean_up: Removes what the status names at its target; called with the newest object.
        """
        if not has_finalizer(obj, FINALIZER):
            return DONE
        if self._reporter.read_status(obj).target is None:
            # An interrupted try may have recorded a place that the cache does not have yet.
            newest = self._objects.read_object(self._resource, key_of(obj))
            if newest is None or uid_of(newest) != uid_of(obj):
                return DONE
            obj = newest
        status = self._reporter.read_status(obj)
        if (target := status.target) is not None:
            result = self._try(obj, lambda: clean_up(obj, status, target))
            if result is not None:
                return result
        self._objects.remove_finalizer(self._resource, obj)
        self._failures.reset_failures(uid_of(obj))
        return DONE

    def leave_former_place(self, obj: Body, clean_up: Callable[[], None]) -> None:
        """Remove what an object has at a former place. A former Vault that does not answer is given up after a while.

        Raises:
            PendingError: Something is left there.
            LeasegateError: It could not be removed, and is not given up yet.
        """
        try:
            clean_up()
        except LeasegateError as err:
            answered = self._reporter.read_status(obj).answered
            if not self._failures.is_given_up(uid_of(obj), err, answered=answered, former_place=True):
                raise
            self._report_skipped(obj, err, what="moves to another place")
        self._failures.reset_failures(uid_of(obj), "not permitted")

    def _try(self, obj: Body, clean_up: Callable[[], None]) -> Result | None:
        """Clean up once; None if that is done or given up."""
        try:
            clean_up()
        except PendingError as pending:
            self._reporter.report_pending(obj, pending)
            return pending.result
        except LeasegateError as err:
            if self._failures.is_given_up(uid_of(obj), err, answered=self._reporter.read_status(obj).answered):
                self._report_skipped(obj, err, what="is deleted")
                return None
            if not self._failures.is_unreported(uid_of(obj), err):
                text = f"{err.message} The deletion is tried again until Vault is cleaned up."
                self._reporter.report_failed(obj, reason=reason_of(err, kinds=self._kinds), message=text)
            result = result_of(err)
            return Result(requeue=True) if result == DONE else result  # a deletion is tried until it succeeds
        return None

    def _report_skipped(self, obj: Body, err: LeasegateError, *, what: str) -> None:
        where = self._reporter.read_status(obj).path
        whole = f"{self._resource.kind} {key_of(obj)} {what} without a cleanup in Vault"
        text = f"{whole}: what it made below {where} may still be there, remove it by hand. {err.message}"
        self._reporter.record_event(obj, reason="VaultCleanupSkipped", message=text, warning=True)
        namespace: Body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": key_of(obj).namespace, "uid": ""},
        }
        self._reporter.record_event(namespace, reason="VaultCleanupSkipped", message=text, warning=True)
