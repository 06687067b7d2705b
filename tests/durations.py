"""A pytest plugin that prints how long the tests of each folder took, with their fixtures."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import PurePosixPath

import pytest


class FolderDurations:
    """Adds up what pytest reports."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        folder = str(PurePosixPath(report.nodeid.partition("::")[0]).parent)
        self._seconds[folder] += report.duration
        self._tests[folder] += report.when == "setup"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("seconds by folder")
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> list[str]:
        """A line for each folder, the longest first."""
        folders = sorted(self._seconds, key=lambda folder: -self._seconds[folder])
        return [f"{self._seconds[folder]:8.1f} s  {folder} ({self._tests[folder]} tests)" for folder in folders]
