"""Collects, beside the tests, all that Vault gave out and all that anybody could read of it.

Vault's audit device with raw values is the complete record of each password and token that it issued. What must not
hold them: the logs of the four processes, and Events and statuses, which a watch collects while objects come and go.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from dev.stack.stack import LocalStack
from tests.canary import CANARY, secrets_of

WATCHED = (
    "events",
    "secretengines.engine.kubevault.com",
    "postgresroles.engine.kubevault.com",
    "databaseaccessrequests.engine.kubevault.com",
    "appbindings.appcatalog.appscode.com",
)
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
        CANARY.collect(self._audit)

    def secrets(self) -> set[str]:
        """Every password and token that Vault issued or was given since the witness began."""
        return secrets_of(self._audit)

    def readable(self) -> Iterator[tuple[str, str]]:
        """Every text that must hold none of them: name and content."""
        for name in LEASEGATE:
            for log in sorted(self._stack.logs.glob(f"{name}*")):
                yield log.name, log.read_text(encoding="utf-8", errors="replace")
        for resource in WATCHED:
            yield resource, (self._directory / f"{resource}.json").read_text(encoding="utf-8")
