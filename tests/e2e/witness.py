"""Collects, beside the tests, all that Vault gave out and all that anybody could read of it.

Vault's audit device with raw values is the complete record of every password and token that it issued. What must not hold them: the logs of
the four processes, and Events and statuses, which are collected by watching while objects come and go.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.local.stack import LocalStack

WATCHED = (
    "events",
    "secretengines.engine.kubevault.com",
    "postgresroles.engine.kubevault.com",
    "databaseaccessrequests.engine.kubevault.com",
    "appbindings.appcatalog.appscode.com",
)
SECRET_KEYS = frozenset({"password", "client_token", "jwt", "secret_id", "token"})
LEASEGATE = ("engine", "roles", "access", "watcher")


class Witness:
    """Watches one stack while tests run on it."""

    def __init__(self, stack: LocalStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._audit = directory / "audit.jsonl"
        self._watches: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Witness:
        self._stack.enable_raw_audit(self._audit)
        for resource in WATCHED:
            out = (self._directory / f"{resource}.json").open("wb")
            self._watches.append(
                subprocess.Popen(
                    ["kubectl", "get", resource, "--all-namespaces", "--watch", "--output=json"],
                    env=self._stack.environment(),
                    stdout=out,
                    stderr=subprocess.DEVNULL,
                )
            )
            out.close()
        return self

    def __exit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.terminate()
            watch.wait(10)

    def secrets(self) -> set[str]:
        """Every password and token that Vault issued or was given since the witness began."""
        found: set[str] = set()
        for line in self._audit.read_text(encoding="utf-8").splitlines():
            found.update(_secrets(json.loads(line)))
        return found

    def readable(self) -> Iterator[tuple[str, str]]:
        """Every text that must hold none of them: name and content."""
        for name in LEASEGATE:
            for log in sorted(self._stack.logs.glob(f"{name}*")):
                yield log.name, log.read_text(encoding="utf-8", errors="replace")
        for resource in WATCHED:
            yield resource, (self._directory / f"{resource}.json").read_text(encoding="utf-8")


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in SECRET_KEYS and isinstance(inner, str) and len(inner) >= 8:
                yield inner
            else:
                yield from _secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner)
