"""The paths that a process may touch in Vault, enforced in code before a request leaves.

One Scope object per process, built in its composition root. The second fence is the process' Vault policy
(deploy/vault).
"""

from __future__ import annotations

import re

from services.common.errors import PathNotOwnedError
from services.common.vault.paths import is_path
from services.common.vault.response import shown

_MOUNT = r"(?!(?:sys|auth|identity|cubbyhole|audit)/)[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*?"
_METHODS = frozenset({"GET", "POST", "DELETE", "LIST"})


class Scope:
    """What one process may touch.

    A pattern is ``METHODS path``, such as ``GET,POST <mount>/config/*``. ``<mount>`` stands for the path of a mount
    that is not Vault's, ``*`` for exactly one segment. Several patterns add up.
    """

    def __init__(self, *patterns: str) -> None:
        """Compile the patterns.

        Raises:
            ValueError: A pattern is malformed.
        """
        self._patterns = [_compile(pattern) for pattern in patterns]

    def check_request(self, method: str, path: str) -> None:
        """Permit a request or refuse it.

        Args:
            method: GET (reads), POST (writes), DELETE or LIST.
            path: Below ``/v1/``.

        Raises:
            PathNotOwnedError: No pattern permits it.
        """
        if is_path(path) and any(method in methods and pattern.fullmatch(path) for methods, pattern in self._patterns):
            return
        raise PathNotOwnedError(
            f"{method} {shown(path)!r} is outside what this service may touch in Vault", path=shown(path)
        )


def _compile(pattern: str) -> tuple[frozenset[str], re.Pattern[str]]:
    head, _, path = pattern.partition(" ")
    methods = frozenset(head.split(","))
    if not path or not methods <= _METHODS:
        raise ValueError(f"{pattern!r}: a pattern is METHODS path, the methods among {', '.join(sorted(_METHODS))}")
    parts = (_MOUNT if part == "<mount>" else "[^/]+" if part == "*" else re.escape(part) for part in path.split("/"))
    return methods, re.compile("/".join(parts))
