"""Which namespaces may use what belongs to another one: the lists that owners give, and whose a connection is. Pure.

The owner of an AppBinding, SecretEngine or PostgresRole names other namespaces in an annotation. The watcher reads it
and carries it in its calls; the services check it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from services.common.errors import FieldViolation, NotAllowedFromError, SpecInvalidError

ALLOW_FROM = "leasegate.dev/allow-from"
"""On an AppBinding: namespaces that may use the database. On a PostgresRole: namespaces that may ask for it."""
SHARED_WITH = "leasegate.dev/shared-with"
"""On a SecretEngine: namespaces that may use its mount."""
MOST_NAMESPACES = 32

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def listed_namespaces(annotation: str) -> tuple[str, ...]:
    """Read an annotation: names with commas between them, sorted.

    What is no name of a namespace, ``*`` too, counts for nothing, and so does a list with too many names: it names
    nobody rather than some.
    """
    names = {name.strip() for name in annotation.split(",")}
    found = sorted(name for name in names if _NAMESPACE.fullmatch(name))
    return tuple(found) if len(found) <= MOST_NAMESPACES else ()


def checked_namespaces(names: Sequence[str], *, field: str) -> tuple[str, ...]:
    """Check a list of namespaces in a message.

    Raises:
        SpecInvalidError: It is too long, or a name is none.
    """
    if len(names) > MOST_NAMESPACES or not all(_NAMESPACE.fullmatch(name) for name in names):
        raise SpecInvalidError.of(
            FieldViolation(field, f"must be at most {MOST_NAMESPACES} names of namespaces, without '*'")
        )
    return tuple(sorted(set(names)))


def namespace_of_connection(name: str, *, cluster: str) -> str | None:
    """The namespace that a connection of Vault belongs to, by its name; None for one that no AppBinding has.

    Args:
        name: ``k8s.{cluster or -}.{namespace}.{AppBinding}``.
        cluster: The operator's name for the cluster; empty stands for ``-``. A connection of another cluster belongs to
            the empty namespace, which nobody is in.
    """
    if not name.startswith("k8s."):
        return None
    parts = name.split(".", 3)
    return parts[2] if len(parts) == 4 and parts[1] == (cluster or "-") else ""


def check_connection(name: str, *, cluster: str, namespace: str, allow_from: Iterable[str]) -> None:
    """Refuse a connection that belongs to another namespace, unless its owner allows this one.

    Args:
        name: Name of the connection in Vault.
        cluster: The operator's name for the cluster.
        namespace: Namespace of the object that uses it; empty outside Kubernetes.
        allow_from: Namespaces that the owner of the connection's database allows.

    Raises:
        NotAllowedFromError: It is another namespace's.
    """
    owner = namespace_of_connection(name, cluster=cluster)
    if owner is None or (owner and owner == namespace):  # nobody is in the empty namespace, callers outside neither
        return
    if owner and namespace and namespace in allow_from:
        return
    raise not_allowed("the connection", name, owner=owner, user=namespace, annotation=ALLOW_FROM, on="AppBinding")


def not_allowed(what: str, name: str, *, owner: str, user: str, annotation: str, on: str) -> NotAllowedFromError:
    """Make the error for what belongs to another namespace; its text names what the owner has to do."""
    user_text = f"namespace {user}" if user else "callers outside Kubernetes"
    if not owner or not user:
        return NotAllowedFromError(f"{what} {name} is not for {user_text}: choose another one", namespace=owner)
    return NotAllowedFromError(
        f"{what} {name} belongs to namespace {owner} and may not be used from {user_text}: the owner of namespace"
        f" {owner} annotates the {on} with {annotation}: {user}",
        namespace=owner,
    )
