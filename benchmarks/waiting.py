"""Waiting for something that another process does, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(done: Callable[[], object], *, timeout_s: float, what: str, every_s: float = 0.05) -> None:
    """Ask ``done`` until it answers something true.

    Raises:
        TimeoutError: It did not in time; ``what`` says what was waited for.
    """
    end = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(every_s)
