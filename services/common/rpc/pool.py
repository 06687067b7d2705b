"""Threads that see the context variables (request id, caller, deadline) of the thread that submitted the work."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ContextPool(ThreadPoolExecutor):
    """A thread pool that runs each task in a copy of its submitter's context, so that nothing leaks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` in a thread of the pool, in a copy of the present context."""
        return super().submit(contextvars.copy_context().run, functools.partial(fn, *args, **kwargs))
