"""The deadline of the current call, which bounds every wait of its handler, above all Vault's HTTP timeout.

Anybody under services/, watcher/ and cli/ may import it. It is a context variable: a thread that a handler starts sees
it only through ``services.common.rpc.pool.ContextPool``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from services.common.errors import DeadlineTooShortError

_END: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining_s() -> float | None:
    """Seconds until the deadline, negative after it; None outside of a call and of ``within``."""
    end = _END.get()
    return None if end is None else end - time.monotonic()


def timeout_s(at_most: float) -> float:
    """The timeout for one wait: ``at_most`` seconds, or what is left if that is less.

    Raises:
        DeadlineTooShortError: Nothing is left.
    """
    left = remaining_s()
    if left is None:
        return at_most
    if left <= 0:
        raise DeadlineTooShortError("the caller's deadline leaves no time for the next step")
    return min(at_most, left)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give the work inside ``seconds``, or what is left of the deadline around it if that is less."""
    end = time.monotonic() + seconds
    outer = _END.get()
    token = _END.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _END.reset(token)
