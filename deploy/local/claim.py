"""Whose a stack's folder is while it starts and runs, and what is kept in it to find the stack again."""

from __future__ import annotations

import fcntl
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError
from deploy.local.teardown import KEPT, LOCK, MARKER, is_stack, remove_files, running


def claim(directory: Path) -> ExitStack:
    """Make the folder, or take one over whose stack has ended.

    Returns:
        A lock on it, which also goes with this process.

    Raises:
        StackError: A stack runs there, another process holds it, or it has other files in it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = ExitStack()
    held = lock.enter_context((directory / LOCK).open("w"))
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        lock.close()
        raise StackError(f"another process starts or holds the stack in {directory}") from err
    with ExitStack() as undo:
        undo.callback(lock.close)
        _take_over(directory)
        undo.pop_all()
    return lock


def _take_over(directory: Path) -> None:
    if left := running(directory):
        raise StackError(f"a stack runs in {directory} ({', '.join(left)}): end it with `python -m deploy.local down`")
    if is_stack(directory):
        remove_files(directory)
    elif any(entry.name not in KEPT for entry in directory.iterdir()):
        raise StackError(f"{directory} has files in it that are no stack's: choose another folder")


def write_state(directory: Path, state: dict[str, Any]) -> None:
    """Write what ``read_state`` answers; it may hold tokens."""
    path = directory / MARKER
    path.touch(mode=0o600)
    path.write_text(json.dumps(state, indent=1))


def read_state(directory: Path) -> dict[str, Any]:
    """What was written when the stack of a folder was started.

    Raises:
        StackError: There is none.
    """
    try:
        found: dict[str, Any] = json.loads((directory / MARKER).read_text())
    except FileNotFoundError as err:
        raise StackError(f"no local stack in {directory}: start it with `python -m deploy.local up`") from err
    return found
