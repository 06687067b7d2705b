"""What a reconcile returns, and what it raises when something that the object needs is missing. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from services.common.errors import LeasegateError, PathNotOwnedError, SpecInvalidError
from watcher.kube.client import KubeError

ENABLE_COMMAND = "kubectl apply -n {namespace} -f deploy/rbac/enabled-namespace.yaml"


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile returns, as controller-runtime's Result. An exception requeues with a growing pause, too.

    Attributes:
        requeue: Whether the key comes back after a pause that grows with each failure in a row.
        requeue_after_s: Seconds after which the key comes back, in place of the growing pause.
        follow_up: Whether the key comes back at once, behind all keys for which something changed.
    """

    requeue: bool = False
    requeue_after_s: float | None = None
    follow_up: bool = False


DONE = Result()
"""Nothing to do until something changes."""


class PendingError(Exception):
    """Something that the object needs is missing: neither success nor failure.

    Attributes:
        reason: CamelCase word for programs.
        message: What is missing and what to do.
        requeue_after_s: Seconds until the next try; None for a growing pause.
        is_passing: Whether it is over in a moment, so that no status reports it.
    """

    def __init__(
        self, message: str, *, reason: str, requeue_after_s: float | None = None, is_passing: bool = False
    ) -> None:
        super().__init__(message)
        self.is_passing = is_passing
        self.message, self.reason, self.requeue_after_s = message, reason, requeue_after_s

    @property
    def result(self) -> Result:
        """What a reconcile returns that met this."""
        return Result(requeue=True, requeue_after_s=self.requeue_after_s)


def namespace_not_enabled(namespace: str) -> PendingError:
    """The error for a namespace in which the watcher has no rights."""
    command = ENABLE_COMMAND.format(namespace=namespace)
    return PendingError(f"Leasegate is not enabled in namespace {namespace}: {command}", reason="NamespaceNotEnabled")


def pending_refusal(err: KubeError, namespace: str) -> PendingError | None:
    """What a 403 of Kubernetes in a namespace means; None for any other error, and for one of an admission policy."""
    if err.status != 403 or err.is_policy_refusal:
        return None
    if err.is_terminating:
        return PendingError(
            f"Namespace {namespace} is being deleted: nothing can be created in it", reason="NamespaceTerminating"
        )
    return namespace_not_enabled(namespace)


def raise_refused(err: KubeError, namespace: str) -> NoReturn:
    """Raise ``PendingError`` for a 403 of Kubernetes in a namespace, and any other error as it is."""
    if pending := pending_refusal(err, namespace):
        raise pending from err
    raise err


def result_of(err: LeasegateError) -> Result:
    """The result of a reconcile that met a service's error.

    A wrong spec waits for another one. RetryInfo of the service wins over the growing pause.
    """
    if isinstance(err, SpecInvalidError | PathNotOwnedError):
        return DONE
    return Result(requeue=True, requeue_after_s=err.retry_after_s)
