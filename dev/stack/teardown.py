"""Stops the processes of a stack and removes its files, by its folder alone: it works after a crash of ``up``, too."""

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
# Each stage is stopped together, in this order: a caller before its servers.
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
    """Stop the processes that have a pid file in the stack's folder, and no others.

    Returns:
        The names of those that ran.

    Raises:
        StackError: One could not be stopped.
    """
    ended = list(running(directory))
    staged = {name for stage in _STAGES for name in stage}
    for stage in (*_STAGES, tuple(set(ended) - staged)):
        _end_stage({name: found for name, found in running(directory).items() if name in stage})
    if left := running(directory):
        raise StackError(f"could not be stopped: {', '.join(left)}")
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
    """Whether a stack made the folder."""
    return (directory / MARKER).exists() or (directory / "pids").is_dir()


def remove_files(directory: Path) -> None:
    """Delete the files of a stopped stack, except its logs.

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
