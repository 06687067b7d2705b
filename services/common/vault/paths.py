"""Which texts may be part of a path of Vault's API.

A path is made of plain segments only, so that it means the same to Leasegate, to HTTP libraries and to the policies of
Vault: nothing to encode, no dot segments, no empty ones.
"""

from __future__ import annotations

import re

from services.common.errors import FieldViolation, SpecInvalidError
from services.common.names import DEFAULT_MOUNT

_SEGMENT = r"(?!\.\.?(?:/|\Z))[A-Za-z0-9_.@~=+-]{1,253}"
_NAME = re.compile(_SEGMENT)
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,15}}")
_PRINTABLE = re.compile(r"[!-~]{1,65536}")
_MOUNT_SEGMENT = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9_.-]{1,128}")
_MOUNT_CHARS = 256
# First segments that Vault keeps for itself, and names below a database mount, which a mount's path must not look like.
_VAULTS_OWN = frozenset({"sys", "auth", "identity", "cubbyhole", "audit"})
_ENGINES_OWN = frozenset(
    {"config", "roles", "creds", "static-roles", "static-creds", "rotate-root", "rotate-role", "reset", "tune"}
)


def is_name(text: str) -> bool:
    """Whether the text may be one segment of a path."""
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether the text may be a path: at most 16 segments, no slash at the ends."""
    return _PATH.fullmatch(text) is not None


def is_printable(text: str) -> bool:
    """Whether the text may be sent as a token: printable ASCII without blanks."""
    return _PRINTABLE.fullmatch(text) is not None


def mount_path(text: str, *, field: str) -> str:
    """Read the path of a database mount.

    Args:
        text: As the owner wrote it; slashes at the ends are dropped, empty stands for ``database``.
        field: Name of the field, for errors.

    Raises:
        SpecInvalidError: No mount of Leasegate may have that path.
    """
    path = text.strip("/") or DEFAULT_MOUNT
    if problem := _mount_problem(path):
        raise SpecInvalidError.of(FieldViolation(field, problem))
    return path


def _mount_problem(path: str) -> str | None:
    segments = path.split("/")
    if len(path) > _MOUNT_CHARS or not all(_MOUNT_SEGMENT.fullmatch(segment) for segment in segments):
        return (
            f"is no mount path: up to {_MOUNT_CHARS} characters of letters, digits, '.', '_' and '-',"
            " with single slashes between them"
        )
    if segments[0] in _VAULTS_OWN:
        return f"begins with {segments[0]!r}, which belongs to Vault itself"
    if own := _ENGINES_OWN.intersection(segments):
        return f"has the segment {min(own)!r}, which names a part of a database engine"
    return None
