"""Which namespace may have which mount: ``mounts`` of an entry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NAMESPACE = "{namespace}"
"""Stands in a path for the name of the namespace that asks."""
ANY_NAMESPACE = "*"
BELOW = "/*"
"""Ends a path that stands for all paths below it."""

_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,128}|\{namespace\}")


class MountRuleError(ValueError):
    """A path that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class MountRule:
    """A path, or a family of paths, and for whom.

    Attributes:
        path: The path, without slashes at its ends. A segment may be ``{namespace}``, and it may end with ``/*``.
        namespaces: Names of namespaces, or ``*`` for any, callers outside Kubernetes included.
    """

    path: str
    namespaces: frozenset[str]

    @classmethod
    def of(cls, path: str, namespaces: Sequence[str] | None) -> MountRule:
        """Make a rule; without namespaces, a path that holds ``{namespace}`` is for any.

        Raises:
            MountRuleError: The path is none, or names nobody.
        """
        path = path.strip("/")
        segments = path.removesuffix(BELOW).split("/")
        if not all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments):
            raise MountRuleError(
                f"path {path!r} is no path of a mount: letters, digits, '.', '_', '-' and single slashes; a whole "
                f"segment may be {NAMESPACE}, and it may end with {BELOW}"
            )
        if namespaces is None and NAMESPACE not in segments:
            raise MountRuleError(
                f'path {path!r} needs namespaces: list those that may use it, or ["{ANY_NAMESPACE}"] for all, or put'
                f" {NAMESPACE} into the path"
            )
        return cls(path, frozenset((ANY_NAMESPACE,) if namespaces is None else namespaces))

    @property
    def is_literal(self) -> bool:
        """Whether it is one path, the same for all its namespaces."""
        return NAMESPACE not in self.path and not self.path.endswith(BELOW)

    def names(self, path: str, *, namespace: str) -> bool:
        """Whether a path is one of these for a namespace that may use it."""
        if ANY_NAMESPACE not in self.namespaces and namespace not in self.namespaces:
            return False
        if NAMESPACE in self.path and not namespace:
            return False
        mine = self.path.replace(NAMESPACE, namespace)
        if mine.endswith(BELOW):
            return path.startswith(mine.removesuffix("*")) and len(path) >= len(mine)
        return path == mine

    def example(self, namespace: str) -> str:
        """A path that it gives to a namespace; empty for none."""
        path = self.path.replace(NAMESPACE, namespace).replace(BELOW, "/NAME")
        return path if self.names(path, namespace=namespace) else ""


@dataclass(frozen=True, slots=True)
class MountRules:
    """``mounts`` of an entry.

    Attributes:
        owned: Mounts that Leasegate enables, and for whom.
        adoptable: Mounts that it did not enable and may take over, and for whom.
    """

    owned: tuple[MountRule, ...] = ()
    adoptable: tuple[MountRule, ...] = ()

    def permit(self, path: str, *, namespace: str) -> bool:
        """Whether a namespace may use a mount. A rule for just this path decides; others count where there is none."""
        return _permit((*self.owned, *self.adoptable), path, namespace)

    def permit_adoption(self, path: str, *, namespace: str) -> bool:
        """Whether a SecretEngine of a namespace may take over a mount that Leasegate did not enable."""
        return _permit(self.adoptable, path, namespace)

    def examples(self, namespace: str) -> list[str]:
        """Paths that a namespace may use."""
        found = [rule.example(namespace) for rule in (*self.owned, *self.adoptable)]
        return [path for path in dict.fromkeys(found) if path and self.permit(path, namespace=namespace)]


def _permit(rules: Sequence[MountRule], path: str, namespace: str) -> bool:
    exact = [rule for rule in rules if rule.is_literal and rule.path == path]
    return any(rule.names(path, namespace=namespace) for rule in exact or rules)
