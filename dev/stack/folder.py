"""The folder of a stack: a lock for the process that starts, keeps or stops the stack, and the stack's state file."""

from __future__ import annotations

import fcntl
import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from dev.stack.errors import StackError
from dev.stack.processes import end_process, own_identity_line, parse_identity
from dev.stack.teardown import KEPT, LOCK, MARKER, end_processes, is_stack, remove_files, running

_UP_GRACE_S = 60.0  # `up` stops everything that it started before it ends


def claim_folder(directory: Path, *, evictable: bool) -> ExitStack:
    """Create the folder, or take over one whose stack has ended.

    Args:
        directory: The folder.
        evictable: Whether ``take_down`` may end this process (by SIGTERM) to get the folder.

    Returns:
        A lock on it, which the kernel releases when this process ends.

    Raises:
        StackError: A stack runs there, another process has the lock, or the folder has other files in it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as undo:
        lock = _open_lock(directory, undo)
        if not _locked(lock):
            raise StackError(f"another process starts, keeps or ends the stack in {directory}")
        _take_over(directory)
        lock.truncate(0)
        lock.write(own_identity_line() if evictable else "")
        lock.flush()
        return undo.pop_all()


def take_down(directory: Path) -> list[str]:
    """Stop the stack in a folder, beginning with an ``up`` that keeps it, and delete its files except the logs.

    Returns:
        The names of the processes that ran.

    Raises:
        StackError: A process that is no ``up`` has the folder's lock, or a process could not be stopped.
    """
    if not directory.exists():
        return []
    with ExitStack() as undo:
        lock, ran = _open_lock(directory, undo), set(running(directory))
        if not _locked(lock):
            _evict(lock, directory)
        ran.update(end_processes(directory))
        if is_stack(directory):
            remove_files(directory)
    return sorted(ran)


def _open_lock(directory: Path, undo: ExitStack) -> IO[str]:
    return undo.enter_context((directory / LOCK).open("a+"))


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _evict(lock: IO[str], directory: Path) -> None:
    """Stop the ``up`` that has the lock, and take it."""
    lock.seek(0)
    holder = parse_identity(lock.read())
    if holder is None:
        raise StackError(f"the stack in {directory} belongs to a process that ends it itself, such as a test run")
    if not end_process(holder, signal.SIGTERM, timeout_s=_UP_GRACE_S):
        end_process(holder, signal.SIGKILL, timeout_s=5)
    if not _locked(lock):
        raise StackError(f"another process took the stack in {directory}")


def _take_over(directory: Path) -> None:
    if left := running(directory):
        raise StackError(f"a stack runs in {directory} ({', '.join(left)}): stop it with `python -m dev.stack down`")
    if is_stack(directory):
        remove_files(directory)
    elif any(entry.name not in KEPT for entry in directory.iterdir()):
        raise StackError(f"{directory} has files that do not belong to a stack: choose another folder")


def write_state(directory: Path, state: dict[str, Any]) -> None:
    """Write the state of a stack; it may have tokens."""
    path = directory / MARKER
    path.touch(mode=0o600)
    path.write_text(json.dumps(state, indent=1))


def read_state(directory: Path) -> dict[str, Any]:
    """Read what ``write_state`` wrote when the stack was started.

    Raises:
        StackError: There is none.
    """
    try:
        found: dict[str, Any] = json.loads((directory / MARKER).read_text())
    except FileNotFoundError as err:
        raise StackError(f"no local stack in {directory}: start it with `python -m dev.stack up`") from err
    return found
