"""Waiting for a condition with a deadline, in place of sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], *, timeout_s: float = 20, every_s: float = 0.1, what: str = "") -> T:
    """Call ``check`` until it answers something true without an AssertionError, and return that.

    Args:
        check: Asked again and again; a false answer or an AssertionError means "not yet".
        timeout_s: Seconds after which the last failure is raised.
        every_s: Seconds between two tries.
        what: Named in the failure.

    Raises:
        AssertionError: The deadline passed.
    """
    end, pause, last = time.monotonic() + timeout_s, threading.Event(), "never true"
    while True:
        try:
            if answer := check():
                return answer
        except AssertionError as err:
            last = str(err)
        if time.monotonic() > end:
            raise AssertionError(f"{what or check} not seen within {timeout_s} s: {last}")
        pause.wait(every_s)
