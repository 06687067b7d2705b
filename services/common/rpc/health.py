"""The standard health service: serving while the process' own check succeeds, and not serving once the process stops.

The check says whether the process can do its work, which for the three services is whether Vault answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
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
        self.servicer: Any = health.HealthServicer()
        self._check, self._every_s, self._again_s = check, every_s, again_s
        self._names = ("", *services)
        self._serving = False
        self._ended = threading.Event()
        self._set(serving=False)

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
        self.servicer.enter_graceful_shutdown()

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
        self._serving = serving
        self._set(serving=serving)
        return self._every_s if serving else self._again_s

    def _set(self, *, serving: bool) -> None:
        for name in self._names:
            self.servicer.set(name, _STATUS.SERVING if serving else _STATUS.NOT_SERVING)


def add_check(servicer: Any, server: grpc.Server) -> None:
    """Add only ``Check`` to a server of other services: ``Watch`` is a stream that would hold on to it."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Check,
        request_deserializer=health_pb2.HealthCheckRequest.FromString,
        response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Check": handler}),))
