"""How a reconcile ends, and what a retry costs. Pure.

Four outcomes: done, again after a time, done until the spec changes, or the rest behind what others wait for. An error of a service says
itself which one it is; what waits for another object is a ``PendingError`` and comes back by that object's event, at the latest by a slow retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from services.common.errors import LeasegateError, PathNotOwnedError, SpecInvalidError
from watcher.kube.client import KubeError

SERVE_COMMAND = "kubectl apply -n {namespace} -f deploy/rbac/enabled-namespace.yaml"


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do until something changes."""


@dataclass(frozen=True, slots=True)
class Again:
    """To be looked at again.

    Attributes:
        after_s: In so many seconds; None for a pause that grows with each failure in a row.
    """

    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Then:
    """What somebody waited for is there; the rest is to be done behind all others who still wait."""


Outcome: TypeAlias = Done | Again | Then
DONE, THEN = Done(), Then()


class PendingError(Exception):
    """Something that the object needs is not there (yet): neither success nor failure.

    Attributes:
        reason: CamelCase word for programs.
        message: What is waited for and what to do.
        after_s: Seconds until the next look; None for a growing pause.
    """

    def __init__(self, message: str, *, reason: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.message, self.reason, self.after_s = message, reason, after_s


class ConnectionConflictError(Exception):
    """Another object has what this one asks for, so that it is not made as long as that is so."""


def namespace_not_enabled(namespace: str) -> PendingError:
    """The watcher has no rights in the namespace."""
    command = SERVE_COMMAND.format(namespace=namespace)
    return PendingError(f"Leasegate does not serve namespace {namespace} yet: {command}", reason="NamespaceNotEnabled")


def refused(err: KubeError, namespace: str) -> PendingError | None:
    """What a 403 of Kubernetes in a namespace means; None if ``err`` is something else."""
    if err.status != 403:
        return None
    if err.is_terminating:
        return PendingError(
            f"Namespace {namespace} is being deleted: nothing can be made in it", reason="NamespaceTerminating"
        )
    return namespace_not_enabled(namespace)


def after(err: LeasegateError) -> Outcome:
    """What to do after a service's error: RetryInfo wins over our own pauses; a wrong spec waits for another one."""
    if isinstance(err, SpecInvalidError | PathNotOwnedError):
        return DONE
    return Again(err.retry_after_s)
