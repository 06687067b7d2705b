"""Where in Vault an object's things are: written down before they are made, and cleaned up when the object goes.

A status names the place before anything is made there, so that a crash between the two leaves nothing that nobody knows of. Where a
service's error says that nothing was made, the place is taken out again, so that an object with a mistyped path goes at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from leasegate.types.v1 import types_pb2
from services.common import errors
from services.common.errors import LeasegateError
from watcher.kube.objects import Objects
from watcher.kube.resources import Body, Resource, has_finalizer, key_of, uid_of
from watcher.kube.result import DONE, PendingError, Result, result_of
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.status import StatusReporter, reason_of
from watcher.reconcilers.vault_targets import same_vault, status_target
from watcher.specs.appbinding import auth_mount
from watcher.specs.kinds import FINALIZER
from watcher.specs.status import status_of

MADE_NOTHING = (
    errors.SpecInvalidError,
    errors.PathNotOwnedError,
    errors.MountConflictError,
    errors.RoleNotReadyError,
    errors.VaultAuthMissingError,
    errors.VaultAuthRefusedError,
    errors.CallerNotAllowedError,
    errors.DeadlineTooShortError,
    errors.OverloadedError,
)
"""Errors that a service raises before it has written anything."""
ANSWERED = (
    errors.VaultSealedError,
    errors.VaultRefusedError,
    errors.VaultFailedError,
    errors.VaultThrottledError,
    errors.VaultPolicyMissingError,
)
"""Errors that come from a Vault that is really there, so that a deletion has to wait for it."""


def target_digest(target: types_pb2.VaultTarget) -> str:
    """Digest of address, Vault namespace and auth mount, as the services make it (leasegate.types.v1.VaultTargetRef)."""
    parts = (target.address.lower().rstrip("/"), target.vault_namespace.strip("/"), auth_mount(target))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def target_ref(target: types_pb2.VaultTarget) -> types_pb2.VaultTargetRef:
    """A target without its login."""
    return types_pb2.VaultTargetRef(
        cluster=target.source.cluster,
        namespace=target.source.namespace,
        name=target.source.name,
        digest=target_digest(target),
        address=target.address,
        vault_namespace=target.vault_namespace,
    )


def intended(
    obj: Body, reporter: StatusReporter, *, target: types_pb2.VaultTarget, path: str, **fields: Any
) -> tuple[Body, bool]:
    """Write the place into the status, unless it stands there.

    Returns:
        The object as it is then, and whether nothing stood there before.
    """
    status = status_of(obj)
    known = status.get("target") or {}
    same_connection = fields.get("connection") in (None, status.get("connection"))
    if known and same_vault(target, known) and status.get("path") == path and same_connection:
        return obj, False
    place = {"target": status_target(target, digest=target_digest(target)), "path": path, **fields}
    return reporter.intend(obj, place), not known


def settled(obj: Body, reporter: StatusReporter, err: LeasegateError, *, fresh: bool) -> None:
    """After a try failed: note what its error says of the place.

    Args:
        obj: The object.
        reporter: Writes the status.
        err: The error.
        fresh: Whether this was the first try at the place; if nothing was made then, it is taken out of the status
            again.
    """
    known = status_of(obj).get("target") or {}
    if fresh and _made_nothing(err):
        reporter.intend(obj, {"target": None, "path": None, "connection": None, "database": None})
    elif isinstance(err, ANSWERED) and known and not known.get("answered"):
        reporter.intend(obj, {"target": {**known, "answered": True}})


def _made_nothing(err: LeasegateError) -> bool:
    if isinstance(err, errors.VaultPolicyMissingError):
        return err.metadata.get("path", "").startswith(("sys/mounts", "auth/"))  # which come before all else
    return isinstance(err, MADE_NOTHING)


class Finalizer:
    """The end of an object that has things in Vault: they go first, then our finalizer.

    Args:
        resource: The kind.
        objects: The objects.
        reporter: Says what is waited for.
        patience: For how long.
        kinds: Reasons of Vault's own errors, as ``reason_of`` takes them.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        objects: Objects,
        reporter: StatusReporter,
        patience: FailureWindow,
        kinds: Mapping[str, str],
    ) -> None:
        self._resource, self._objects, self._reporter, self._patience, self._kinds = (
            resource,
            objects,
            reporter,
            patience,
            kinds,
        )

    def end(self, obj: Body, release: Callable[[Body], None]) -> Result:
        """Release what is there and let the object go; what keeps it is in its status and Events.

        Args:
            obj: The object.
            release: Takes down what the status names; called with the newest object.
        """
        if not has_finalizer(obj, FINALIZER):
            return DONE
        if not status_of(obj).get("target"):
            newest = self._objects.read_object(
                self._resource, key_of(obj)
            )  # what an unfinished try made is written there, if not yet known here
            if newest is None or uid_of(newest) != uid_of(obj):
                return DONE
            obj = newest
        if status_of(obj).get("target"):
            result = self._try(obj, lambda: release(obj))
            if result is not None:
                return result
        self._objects.remove_finalizer(self._resource, obj)
        self._patience.forget(uid_of(obj))
        return DONE

    def leave(self, obj: Body, release: Callable[[], None]) -> None:
        """Release what is at a former place. A former Vault that does not answer is given up, too: it may have been
        taken down.

        Raises:
            Waiting: Something is left there.
            LeasegateError: It could not be done, and it is not given up yet.
        """
        try:
            release()
        except LeasegateError as err:
            if not self._patience.is_over(uid_of(obj), err, made_nothing=not _answered(obj), unreached=True):
                raise
            self._abandon(obj, err, what="leaves its former place")
        self._patience.forget(uid_of(obj), "no login")

    def _try(self, obj: Body, release: Callable[[], None]) -> Result | None:
        try:
            release()
        except PendingError as waiting:
            self._reporter.waiting(obj, waiting)
            return waiting.result
        except LeasegateError as err:
            if self._patience.is_over(uid_of(obj), err, made_nothing=not _answered(obj)):
                self._abandon(obj, err, what="goes")
                return None
            if not self._patience.hides(uid_of(obj), err):
                text = f"{err.message} It is tried again; the object goes as soon as that is done."
                self._reporter.failed(obj, reason=reason_of(err, kinds=self._kinds), message=text)
            result = result_of(err)
            return Result(requeue=True) if result == DONE else result  # a deletion is tried until it succeeds
        return None

    def _abandon(self, obj: Body, err: LeasegateError, *, what: str) -> None:
        where = status_of(obj).get("path", "")
        whole = f"{self._resource.kind} {key_of(obj)} {what} although Vault cannot be asked"
        text = f"{whole}: what it may have made below {where} stays there. {err.message}"
        self._reporter.event(obj, reason="VaultCleanupSkipped", message=text, warning=True)
        namespace: Body = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": key_of(obj).namespace, "uid": ""},
        }
        self._reporter.event(namespace, reason="VaultCleanupSkipped", message=text, warning=True)


def _answered(obj: Body) -> bool:
    return bool((status_of(obj).get("target") or {}).get("answered"))
