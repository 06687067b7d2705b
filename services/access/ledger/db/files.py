"""Opens the ledger's files so that they are this process' own: one name, no link, for their owner alone.

The ledger names leases and accessors. Whoever can write it can approve; whoever has another name for it could own it
twice, as the lock is found by name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

from services.common.config import StartupRefusedError
from services.common.logs import logger

_LOG = logger(__name__)
_OWN = 0o600
SUFFIXES = ("", "-wal", "-shm")
"""Of the ledger and of what SQLite keeps beside it, which takes the ledger's mode."""


def check_links(path: Path) -> None:
    """Refuse links, before anything is read or written.

    Raises:
        StartupRefusedError: A file has more than one name, is a symbolic link, or is no regular file.
    """
    for suffix in SUFFIXES:
        file = path.with_name(path.name + suffix)
        try:
            _check_kind(file, file.lstat())
        except FileNotFoundError:
            continue


def secure_files(path: Path) -> None:
    """Create the ledger's file if there is none, and narrow the mode of what is there.

    SQLite must not have the file open yet: closing another descriptor of it drops SQLite's locks.

    Raises:
        StartupRefusedError: A file is a link or no regular file, or others may use it and this process cannot change
            that.
    """
    _check_folder(path.parent)
    for suffix in SUFFIXES:
        file = path.with_name(path.name + suffix)
        if not suffix or file.exists():
            os.close(_open(file, os.O_RDWR | os.O_CREAT))


def open_lock(path: Path) -> IO[str]:
    """Open the lock file for reading and writing, created if there is none.

    Raises:
        StartupRefusedError: As for the ledger, or its folder cannot be written.
    """
    return os.fdopen(_open(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8")


def _open(path: Path, flags: int) -> int:
    try:
        number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _OWN)
    except OSError as err:
        if path.is_symlink():
            _check_kind(path, path.lstat())
        what = "it cannot be opened for writing" if path.exists() else "its folder cannot be written"
        raise StartupRefusedError(f"{path}: {what}: {err.strerror}") from err
    try:
        _narrow(path, number)
    except BaseException:
        os.close(number)
        raise
    return number


def _check_kind(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StartupRefusedError(f"{path} is a symbolic link: name the file that it leads to")
    if not stat.S_ISREG(found.st_mode):
        raise StartupRefusedError(f"{path} is no regular file: name a file for the ledger")
    if found.st_nlink != 1:
        raise StartupRefusedError(
            f"{path} has {found.st_nlink} names (hard links), so that two processes could own it: remove the others, "
            "or use a copy of it"
        )


def _narrow(path: Path, number: int) -> None:
    found = os.fstat(number)
    _check_kind(path, found)
    if not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    try:
        os.fchmod(number, _OWN)
    except PermissionError as err:
        if found.st_mode & stat.S_IRWXO:
            raise StartupRefusedError(
                f"{path} belongs to another user, and everybody may use it (mode {mode}): chown it to the user of this "
                "process, or chmod it to 600"
            ) from err
        _LOG.warning("a ledger file of another user is open to its group", path=path, mode=mode)
        return  # as fsGroup of a pod makes it where the pod's user has changed
    _LOG.warning("mode of a ledger file narrowed to its owner", path=path, mode=mode)


def _check_folder(folder: Path) -> None:
    """Warn of a folder in which everybody can replace the ledger; some volumes come so, and cannot be changed."""
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        _LOG.warning(
            "everybody may replace the ledger: take the right to write from others of its folder",
            path=folder,
            mode=f"{stat.S_IMODE(mode):04o}",
        )
