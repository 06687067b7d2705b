"""Whom the owner of an AppBinding, SecretEngine or PostgresRole lets use it from another namespace. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from services.common.sharing import ALLOW_FROM, MOST_NAMESPACES, SHARED_WITH, listed_namespaces
from watcher.kube.resources import Body, Key, annotation, key_of
from watcher.kube.result import PendingError
from watcher.specs.kinds import ALLOW_SUBJECTS_FROM

NOT_ALLOWED = "NotAllowedFrom"
"""Reason of a condition for what another namespace's owner does not share."""


def allow_from(obj: Body) -> tuple[str, ...]:
    """Namespaces that may use an AppBinding as a database, or ask for a PostgresRole."""
    return listed_namespaces(annotation(obj, ALLOW_FROM))


def allow_subjects_from(obj: Body) -> tuple[str, ...]:
    """Namespaces whose ServiceAccounts may be subjects of access requests for a PostgresRole."""
    return listed_namespaces(annotation(obj, ALLOW_SUBJECTS_FROM))


def shared_with(engines: Iterable[Body]) -> tuple[str, ...]:
    """Namespaces that may use the mount of SecretEngines of one namespace."""
    found = sorted(
        {namespace for engine in engines for namespace in listed_namespaces(annotation(engine, SHARED_WITH))}
    )
    return tuple(found) if len(found) <= MOST_NAMESPACES else ()


def check_database(binding: Body | None, key: Key, *, user: str) -> None:
    """Refuse a database AppBinding of another namespace whose owner does not allow this one.

    Args:
        binding: The AppBinding; None where it does not exist.
        key: Its namespace and name.
        user: Namespace of the object that uses it.

    Raises:
        PendingError: With one text for an AppBinding that does not exist and one that is not shared, so that nobody
            finds out what another namespace has.
    """
    if key.namespace == user or (binding is not None and user in allow_from(binding)):
        return
    raise PendingError(
        f"AppBinding {key} does not exist, or may not be used from namespace {user}: the owner of namespace"
        f" {key.namespace} annotates it with {ALLOW_FROM}: {user}",
        reason=NOT_ALLOWED,
    )


def uses_with_consent(binding: Body, user: Body) -> bool:
    """Whether an object may use an AppBinding, by its namespace."""
    namespace = key_of(user).namespace
    return namespace == key_of(binding).namespace or namespace in allow_from(binding)
