"""What each process costs: resident memory and processor time, as the kernel counts them."""

from __future__ import annotations

import os
from pathlib import Path

from dev.stack.stack import LocalStack

_TICKS = os.sysconf("SC_CLK_TCK")


def rss_mb(stack: LocalStack, name: str, *, peak: bool = False) -> float:
    """Resident memory in MiB, now or at its peak since the process was started."""
    status = Path(f"/proc/{stack.process(name).pid}/status").read_text()
    row = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(row)) / 1024


def cpu_s(stack: LocalStack) -> dict[str, float]:
    """Seconds of processor time of each process so far, children included; this one is ``benchmark``."""
    ticks = _ticks()
    found = {process.name: _of_tree(process.pid, ticks) for process in stack.processes if process.alive}
    return found | {"benchmark": ticks[os.getpid()][1]}


def cpu_of(pid: int) -> float:
    """Seconds of processor time of one process so far."""
    return _ticks()[pid][1]


def _ticks() -> dict[int, tuple[int, float]]:
    """The parent and the processor time of every process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            found[int(folder.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _of_tree(pid: int, ticks: dict[int, tuple[int, float]]) -> float:
    own = ticks.get(pid, (0, 0.0))[1]
    return own + sum(_of_tree(child, ticks) for child, (parent, _) in ticks.items() if parent == pid)
