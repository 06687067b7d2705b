"""The four policies, rendered for an operator's mounts.

The templates in ``policies/`` are plain policies but for the word ``<mount>``: each block that has it is repeated for
every mount. A prefix is a whole segment of the path (``team/``, for mounts such as ``team/orders``), because only there
Vault knows a wildcard (``team/+``) that does not also open what lies below: ``team-*`` gives every process all of a
mount, and ``team-*/config/*`` matches nothing (docs/adr/0011-mount-prefix-is-a-segment.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

ENGINE, ROLES, ACCESS, ISSUER = "leasegate-engine", "leasegate-roles", "leasegate-access", "leasegate-issuer"
NAMES = (ENGINE, ROLES, ACCESS, ISSUER)
_LIST = "leasegate-access-list"
_PLACEHOLDER = "<mount>"
_PATH = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_VAULTS_OWN = {"sys", "auth", "identity", "cubbyhole", "audit"}
# Parts of a database engine, and the last segment of sys/mounts/<mount>/tune: a mount that looks like one would open
# more than is meant.
_ENGINES_OWN = {
    "config",
    "roles",
    "creds",
    "static-roles",
    "static-creds",
    "rotate-root",
    "rotate-role",
    "reset",
    "tune",
}


class MountError(ValueError):
    """A mount or prefix that no policy can be made for."""


@dataclass(frozen=True, slots=True)
class Mounts:
    """The mount paths that Leasegate may use.

    Attributes:
        paths: Each one by its path, without slashes at the ends.
        prefixes: Each ends in a slash and permits every mount one segment below it.
        patterned: Paths with ``+`` for a whole segment, which stands for any one.
        list_leases: Whether the access service may list their leases, to find those that its ledger does not explain.
    """

    paths: Sequence[str]
    prefixes: Sequence[str] = ()
    patterned: Sequence[str] = ()
    list_leases: bool = False

    def __post_init__(self) -> None:
        for path in self.paths:
            _check(path)
        for prefix in self.prefixes:
            if not prefix.endswith("/"):
                raise MountError(
                    f"{prefix!r}: a prefix ends in a slash, as 'team/' does: "
                    "a wildcard in a segment cannot be limited to part of a mount"
                )
            _check(prefix[:-1])
        for pattern in self.patterned:
            if pattern.startswith("+"):
                raise MountError(f"{pattern!r} begins with a wildcard, which would permit Vault's own paths as well")
            _check("/".join("x" if segment == "+" else segment for segment in pattern.split("/")))
        if not self.paths and not self.prefixes and not self.patterned:
            raise MountError("no mount and no prefix given: nothing could be permitted")

    def patterns(self) -> list[str]:
        """As they stand in a policy, without doubles."""
        return list(dict.fromkeys([*self.paths, *(f"{prefix}+" for prefix in self.prefixes), *self.patterned]))


def _check(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise MountError(f"{path!r} is no mount path: letters, digits, '_', '.', '-' and single slashes inside")
    segments = path.split("/")
    if segments[0] in _VAULTS_OWN:
        raise MountError(f"{path!r} begins with a path that belongs to Vault itself")
    if own := _ENGINES_OWN.intersection(segments):
        raise MountError(f"{path!r} has the segment {min(own)!r}, which names a part of a database engine")


def render(name: str, mounts: Mounts) -> str:
    """The text of one policy, comments included.

    Args:
        name: One of ``NAMES``.
        mounts: What it is to permit.
    """
    templates = [name, _LIST] if name == ACCESS and mounts.list_leases else [name]
    out: list[str] = []
    for each in templates:
        head, *blocks = (files(__package__) / "policies" / f"{each}.hcl").read_text().strip().split("\n\n")
        out += [head, *(copy for block in blocks for copy in _copies(block, mounts))]
    return "\n\n".join(out) + "\n"


def render_all(mounts: Mounts) -> dict[str, str]:
    """The texts of all policies by name."""
    return {name: render(name, mounts) for name in NAMES}


def _copies(block: str, mounts: Mounts) -> list[str]:
    if _PLACEHOLDER not in block:
        return [block]
    return [block.replace(_PLACEHOLDER, pattern) for pattern in mounts.patterns()]
