"""The message of a call: gRPC gives the call a thread when its headers are there, and the thread waits for the message.

A call whose message does not come is cancelled, so that no client can hold a thread for longer than ``LIMIT_S``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

LIMIT_S = 3.0
"""Clients send headers and message together; a slow network needs some round trips."""
STREAM_LIMIT_S = 60.0
"""Of reflection's streams: a client asks and goes."""
_LOOK_EVERY_S = 0.5


class ReceiveError(Exception):
    """A call has no message.

    Attributes:
        code: What the client is answered, or None for a call that is over already.
        text: The text of that answer.
    """

    def __init__(self, code: grpc.StatusCode | None, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Receipts:
    """The calls that wait for their message."""

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        """Begin with none.

        Args:
            limit_s: Longest wait for a message.
        """
        self._limit_s = limit_s
        self._waiting: dict[grpc.ServicerContext, float] = {}
        self._ended = threading.Event()

    def receive(
        self, requests: Iterator[bytes], context: grpc.ServicerContext, deserialize: Callable[[bytes], Any]
    ) -> Any:
        """Wait for the one message of a unary call.

        Raises:
            ReceiveError: It did not come, or is not one.
        """
        with self._limited(context, self._limit_s):
            try:
                received = next(requests)
            except StopIteration:
                raise ReceiveError(grpc.StatusCode.UNIMPLEMENTED, "exactly one message is required") from None
            except grpc.RpcError:
                raise ReceiveError(None, "the call ended before its message came") from None
        try:
            return deserialize(received)
        except Exception:
            raise ReceiveError(grpc.StatusCode.INTERNAL, "the message cannot be read") from None

    def limit_stream(self, context: grpc.ServicerContext, *, ended: Callable[[], None]) -> bool:
        """Cancel a stream that lasts too long; ``ended`` is called when it is over.

        Returns:
            Whether it still runs; if not, ``ended`` is not called.
        """
        self._waiting[context] = time.monotonic() + STREAM_LIMIT_S

        def on_end() -> None:
            self._waiting.pop(context, None)
            ended()

        if context.add_callback(on_end):
            return True
        self._waiting.pop(context, None)
        return False

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Cancel calls that have waited too long while inside."""
        thread = threading.Thread(target=self._loop, name="receipts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    @contextmanager
    def _limited(self, context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
        self._waiting[context] = time.monotonic() + seconds
        try:
            yield
        finally:
            self._waiting.pop(context, None)

    def _loop(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            now = time.monotonic()
            for context, until in list(self._waiting.items()):
                if until <= now:
                    context.cancel()
