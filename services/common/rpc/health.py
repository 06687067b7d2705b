"""The standard health service: serving while the process' own check succeeds, and not serving once the process stops.

The check says whether the process can do its work, which for the three services is whether Vault answers.

The servicer of grpcio-health-checking is not used: it sends to the streams of ``Watch`` with its one lock held, which
the end of such a stream needs, too. A client that began and ended some of them stopped every ``Check``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from services.common import logs
from services.common.errors import LeasegateError
from services.common.rpc import deadline

NAME: str = health.SERVICE_NAME
EVERY_S = 5.0
AGAIN_S = 1.0
"""Between two checks while not serving, so that recovery shows soon."""
CHECK_S = 4.0
WATCHES = 4
"""Streams of ``Watch`` at once, each of which holds a thread."""

_STATUS = health_pb2.HealthCheckResponse.ServingStatus
_log = logs.logger(__name__)


class Health:
    """What the health service says, and the thread that keeps it true."""

    def __init__(
        self, check: Callable[[], bool], *, services: Iterable[str], every_s: float = EVERY_S, again_s: float = AGAIN_S
    ) -> None:
        """Begin as not serving.

        Args:
            check: Called in a thread of its own with a deadline of ``CHECK_S``; false or any exception means not
                serving.
            services: Full names that clients may ask about, besides the empty one for the whole process.
            every_s: Seconds between two checks while serving.
            again_s: Seconds between two checks while not serving.
        """
        self._check, self._every_s, self._again_s = check, every_s, again_s
        self._names = frozenset(("", *services))
        self._serving, self._draining = False, False
        self._changed = threading.Condition()
        self._streams: list[grpc.ServicerContext] = []
        self._ended = threading.Event()

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Check again and again while inside."""
        thread = threading.Thread(target=self._loop, name="health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(timeout=1)  # a check that hangs does not keep the process

    def drain(self) -> None:
        """Say not serving from now on, whatever the check says."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    @property
    def status(self) -> Any:
        """The one status of the process and of all its services."""
        return _STATUS.SERVING if self._serving and not self._draining else _STATUS.NOT_SERVING

    def add_check(self, server: grpc.Server) -> None:
        """Add ``Check`` alone to a server of other services: ``Watch`` is a stream that would hold on to it."""

        def check(request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
            if request.service in self._names:
                return health_pb2.HealthCheckResponse(status=self.status)
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()

        handler = grpc.unary_unary_rpc_method_handler(
            check,
            request_deserializer=health_pb2.HealthCheckRequest.FromString,
            response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Check": handler}),))

    def add_probes(self, server: grpc.Server, *, watches: ThreadPoolExecutor) -> None:
        """Add the health of the whole process, answered as soon as the headers of a call are there.

        The message would name a service, and all services of a process share its health. As it is not waited for, no
        client holds a thread of ``Check``, however many calls it begins.

        Args:
            server: A server of nothing else.
            watches: More threads than ``WATCHES``, for the streams; of too many the oldest ends.
        """

        def check(_requests: Any, _context: grpc.ServicerContext) -> Any:
            return health_pb2.HealthCheckResponse(status=self.status)

        def watch(_requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            return self._watch(context)

        watch.experimental_thread_pool = watches  # type: ignore[attr-defined]
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        handlers: dict[str, Any] = {
            "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=serialize),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))

    def _watch(self, context: grpc.ServicerContext) -> Iterator[Any]:
        with self._changed:
            self._streams.append(context)
            oldest = self._streams.pop(0) if len(self._streams) > WATCHES else None
        if oldest:
            oldest.cancel()
        try:
            sent = None
            active = context.add_callback(self._wake)
            while active and context.is_active():
                if self.status != sent:
                    sent = self.status
                    yield health_pb2.HealthCheckResponse(status=sent)
                with self._changed:
                    while self.status == sent and context.is_active():
                        self._changed.wait()
        finally:
            with self._changed:
                if context in self._streams:
                    self._streams.remove(context)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _loop(self) -> None:
        while not self._ended.wait(self._once()):
            pass

    def _once(self) -> float:
        """Check, say so, and return the seconds until the next check."""
        problem: Exception | None = None
        try:
            with deadline.within(CHECK_S):
                serving = self._check()
        except Exception as err:
            serving, problem = False, err
        if serving != self._serving or (problem and not isinstance(problem, LeasegateError)):
            _log.info("health changed", serving=serving, exc_info=problem)
        with self._changed:
            self._serving = serving
            self._changed.notify_all()
        return self._every_s if serving else self._again_s
