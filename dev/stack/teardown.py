"""Ends what a stack started and removes its files, from its folder alone: it works for a crashed ``up`` as for a living one."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from dev.stack import postgres
from dev.stack.errors import StackError
from dev.stack.processes import Identity, read_pid_file

MARKER = "state.json"
LOCK = "lock"
KEPT = ("logs", LOCK)
_GRACE_S = 8.0
# Ended together, in this order: whoever calls goes before what it calls.
_STAGES = (
    ("watcher",),
    ("access", "engine", "roles"),
    ("kube-controller-manager", "postgres-tls"),
    ("kube-apiserver", "bao"),
    ("etcd", "postgres"),
)
_SIGNALS = {"postgres": postgres.STOP_SIGNAL}


def running(directory: Path) -> dict[str, Identity]:
    """The processes of a stack that run now, by name."""
    known = ((file.name, read_pid_file(file)) for file in _pid_files(directory))
    return {name: found for name, found in known if found and found.alive()}


def end_processes(directory: Path) -> list[str]:
    """End every process that the stack's folder knows, and nothing else; answers the names of those that ran.

    Raises:
        StackError: One could not be ended.
    """
    ended = list(running(directory))
    staged = {name for stage in _STAGES for name in stage}
    for stage in (*_STAGES, tuple(set(ended) - staged)):
        _end_stage({name: found for name, found in running(directory).items() if name in stage})
    if left := running(directory):
        raise StackError(f"could not be ended: {', '.join(left)}")
    return ended


def _end_stage(processes: dict[str, Identity]) -> None:
    for name, process in processes.items():
        process.signal(_SIGNALS.get(name, signal.SIGTERM))
    _await_end(processes, seconds=_GRACE_S)
    for process in processes.values():
        process.signal(signal.SIGKILL)
    _await_end(processes, seconds=5)


def _await_end(processes: dict[str, Identity], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while any(process.alive() for process in processes.values()) and time.monotonic() < end:
        time.sleep(0.01)


def is_stack(directory: Path) -> bool:
    """Whether the folder is one that a stack made."""
    return (directory / MARKER).exists() or (directory / "pids").is_dir()


def remove_files(directory: Path) -> None:
    """Delete everything of a stack that was ended, but for its logs.

    Raises:
        StackError: The folder is not a stack's.
    """
    if not is_stack(directory):
        raise StackError(f"{directory} is not the folder of a local stack")
    postgres.remove_data(directory / "postgres")
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink() and entry.name not in KEPT:
            shutil.rmtree(entry)
        elif entry.name not in (*KEPT, MARKER):
            entry.unlink()
    (directory / MARKER).unlink(missing_ok=True)  # last, so that an interrupted removal can be finished


def _pid_files(directory: Path) -> Iterator[Path]:
    folder = directory / "pids"
    return folder.iterdir() if folder.is_dir() else iter(())
