"""The canary of the whole test run: no password or token of a real Vault is in anything that was logged.

Each real Vault of the tests writes a raw audit log, which is the complete record of its secrets. pytest captures what
the tests, and the processes and threads that they start, write to stdout, stderr and logging. At the end of the session
the canary searches the capture for each secret; a hit fails the run. (Logs of the stack's processes, Events and
statuses: tests/e2e/test_zz_canary.py.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

SECRET_KEYS = frozenset({"password", "client_token", "jwt", "secret_id", "token"})
SHORTEST = 8
"""A shorter value, such as the guide's database password, stands in too many words to be looked for."""


Heads: TypeAlias = Mapping[str, tuple[str, ...]]


class Canary:
    """What was collected in this session."""

    def __init__(self) -> None:
        self.secrets: set[str] = set()
        self.texts: list[tuple[str, str]] = []

    def collect(self, audit: Path) -> None:
        """Take the secrets of a raw audit log, before the log goes."""
        if audit.exists():
            self.secrets |= secrets_of(audit)

    def leaks(self) -> list[str]:
        """Where a secret was printed, and the text before it."""
        heads = by_head(self.secrets)
        return [
            f"{name}: ...{text[max(0, at - 100) : at]!r}" for name, text in self.texts for at in places(heads, text)
        ]

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test and all that it started printed."""
        self.texts.extend((f"{report.nodeid} ({name})", content) for name, content in report.sections)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run on a leak."""
        if found := self.leaks():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            raise pytest.UsageError("secrets were printed in\n" + "\n".join(sorted(set(found))[:20]))


CANARY = Canary()


def by_head(secrets: Iterable[str]) -> Heads:
    """The secrets by their first characters, for ``places``."""
    heads: dict[str, list[str]] = {}
    for secret in secrets:
        heads.setdefault(secret[:SHORTEST], []).append(secret)
    return {head: tuple(alike) for head, alike in heads.items()}


def places(heads: Heads, text: str) -> Iterator[int]:
    """Where any of the secrets stands in a text; takes no longer for thousands of them than for one."""
    for at in range(len(text) - SHORTEST + 1):
        if (head := text[at : at + SHORTEST]) in heads and text.startswith(heads[head], at):
            yield at


def secrets_of(audit: Path) -> set[str]:
    """Every password and token in a raw audit log."""
    lines = audit.read_text(encoding="utf-8", errors="replace").splitlines()
    return {secret for line in lines if line.endswith("}") for secret in _secrets(json.loads(line))}


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in SECRET_KEYS and isinstance(inner, str) and len(inner) >= SHORTEST:
                yield inner
            else:
                yield from _secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets(inner)
