"""Keeps the memory of a process, which holds passwords and tokens, out of files and from other processes of its user.

Imports nothing at its own import: a command line pays for it only when it runs.
"""

from __future__ import annotations

import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def disable_core_dumps() -> None:
    """Disable core dumps, and on Linux the reading of this process' memory by others of its user, root excepted.

    To be called before a secret is read. Both are needed: a limit of zero does not stop a dump that goes to a program,
    as systemd-coredump is one, and a process that started with no limit may be asked for its dump on any system.

    Raises:
        OSError: The kernel refuses.
    """
    try:
        import resource
    except ImportError:  # Windows, which has neither
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes
        import os

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"core dumps cannot be disabled: {os.strerror(number)}")
