"""A full disk: the kernel refuses writes beyond a file size limit that lies below the end of the ledger's log.

It needs no rights (tests/integration/test_operators_files.py has a full file system, which does), and it is SQLite's
own write that fails. A new file of the process, such as its log, is below the limit.
"""

from __future__ import annotations

import os
import resource
import threading

LIMIT_BYTES = 24 * 1024


class FullDisk:
    """The limit of one process.

    Args:
        pid: The process; 0 for this one.
    """

    def __init__(self, pid: int = 0) -> None:
        self._pid = pid or os.getpid()
        self._before = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)
        self._lock = threading.Lock()

    def fill(self) -> None:
        """From now on there is no room."""
        with self._lock:
            resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, self._before[1]))

    def clear(self) -> None:
        """There is room again; nothing happens to a process that has ended."""
        with self._lock:
            try:
                resource.prlimit(self._pid, resource.RLIMIT_FSIZE, self._before)
            except ProcessLookupError:
                return
