"""The one chain around every call that a server answers, from the outside in.

1. request id: taken from the metadata or made; in every log line from here on;
2. status: a LeasegateError becomes a google.rpc.Status (outside the others, as grpc's abort raises a bare Exception);
3. log and metrics: method, code, duration, caller; never a message;
4. errors: any other exception becomes InternalError with a fixed text and an error id, its own text stays in the log;
5. deadline: what is left for the handler; too little is refused;
6. authorization: the names of the client certificate against the service's list, default deny;
7. limit: the number of calls at once, of all and of this caller;
8. message: waited for, but not for long.

The whole chain runs in the handler's thread, as context variables are set there. Every unary method is served as one
whose requests are a stream: gRPC gives such a handler its thread when the headers are there. A caller that may not call
is refused then, and never holds the thread until its message comes.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, cast

import grpc

from services.common import logs
from services.common.config import PLAINTEXT
from services.common.errors import (
    CallerNotAllowedError,
    DeadlineTooShortError,
    InternalError,
    LeasegateError,
    writes_nothing,
)
from services.common.logs import bounded
from services.common.metrics import RpcMetrics
from services.common.rpc import caller, deadline, request_ids, status
from services.common.rpc.limit import Rank, Slots
from services.common.rpc.receive import Receipts, ReceiveError

MARGIN_S, MARGIN_SHARE = 0.05, 0.01
"""Reserved of the caller's deadline, so that the answer still reaches it: gRPC rounds a timeout up by up to 1 %."""
LEAST_USEFUL_S = 0.1
DEFAULT_DEADLINE_S = 60.0
"""For callers that set none; grpc then reports some 292 years."""
_NO_DEADLINE_S = 10 * 365 * 86400.0
INTERNAL_TEXT = "an internal error occurred; the log of the service has more under this error id"
ANY_ACCEPTED = None
"""In place of names: every client with an accepted certificate may call (reflection and health have no secret)."""

Rules = Mapping[str, frozenset[str] | None]
"""Names of permitted callers by full service name; no caller is permitted for a service that is not there."""

_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which calls have places of their own.

    Attributes:
        first: Full names of the services whose callers precede others in whatever they call.
        revoking: Methods, such as ``/package.Service/Method``, that take access away.
    """

    first: frozenset[str] = frozenset()
    revoking: frozenset[str] = frozenset()


class Chain(grpc.ServerInterceptor):
    """Wraps the handlers of a server."""

    def __init__(
        self,
        *,
        rules: Rules,
        ranks: Ranks,
        slots: Slots,
        streams: Slots,
        strangers: Slots,
        receipts: Receipts,
        metrics: RpcMetrics,
        plaintext: bool,
    ) -> None:
        """Make the chain.

        Args:
            rules: Who may call which service.
            ranks: Whose calls have places of their own.
            slots: Places of unary calls.
            streams: Places of streams, which only reflection has.
            strangers: Places of unary calls of those whom no list names.
            receipts: Limits the wait for a message.
            metrics: Where calls are counted.
            plaintext: Whether there is no TLS, and so one caller only.
        """
        self._rules, self._ranks = rules, ranks
        self._slots, self._streams, self._strangers = slots, streams, strangers
        self._receipts, self._metrics, self._plaintext = receipts, metrics, plaintext

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of one call; an unknown method has none, which grpc answers with UNIMPLEMENTED."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary, handler.request_deserializer),
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream), handler.request_deserializer, handler.response_serializer
            )
        raise NotImplementedError(f"{method}: only unary calls and the stream of reflection are served")

    def _unary(
        self,
        method: str,
        behaviour: Callable[[Any, grpc.ServicerContext], Any],
        deserialize: Callable[[bytes], Any],
    ) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            def handle() -> Any:
                return behaviour(self._receipts.receive(requests, context, deserialize), context)

            with request_ids.following(_given_id(context)):
                try:
                    return self._logged(method, context, handle)
                except LeasegateError as err:
                    context.abort_with_status(status.to_grpc(err))
                except ReceiveError as err:
                    if err.code is None:
                        return None
                    context.abort(err.code, err.text)

        return answer

    def _stream(
        self, method: str, behaviour: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        """Authorize and limit a stream as it begins; its messages pass untouched."""

        def answer(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                names = self._names(context)
                name = self._allowed(method, names)
                slot = self._streams.take_slot(name, rank=self._rank(method, name))
            except LeasegateError as err:
                context.abort_with_status(status.to_grpc(err))
            if not self._receipts.limit_stream(context, ended=slot.release):
                slot.release()
            _log.info("stream", method=method, caller=_who(names))
            responses: Iterator[Any] = behaviour(requests, context)
            return responses

        return answer

    def _logged(self, method: str, context: grpc.ServicerContext, handle: Callable[[], Any]) -> Any:
        began, code, reason, names = time.perf_counter(), "OK", None, self._names(context)
        try:
            return self._guarded(method, context, names, handle)
        except LeasegateError as err:
            code, reason = err.code.name, err.reason
            raise
        except ReceiveError as err:
            code, reason = (err.code or grpc.StatusCode.CANCELLED).name, err.text
            raise
        finally:
            seconds = time.perf_counter() - began
            self._metrics.count_handled(method, code=code, seconds=seconds)
            _log.info(
                "rpc", method=method, code=code, reason=reason, duration_ms=round(seconds * 1000, 1), caller=_who(names)
            )

    def _guarded(
        self, method: str, context: grpc.ServicerContext, names: Sequence[str], handle: Callable[[], Any]
    ) -> Any:
        try:
            with ExitStack() as stack:
                with writes_nothing():  # the handler does not run yet
                    stack.enter_context(deadline.within(_left_s(context)))
                    name = self._allowed(method, names)
                    stack.enter_context(self._acting(name))
                    slots = self._slots if self._is_listed(name) else self._strangers
                    stack.enter_context(slots.taken_slot(name, rank=self._rank(method, name)))
                return handle()
        except (LeasegateError, ReceiveError):
            raise
        except Exception as err:
            error_id = uuid.uuid4().hex[:16]
            _log.exception("unexpected error", method=method, error_id=error_id)
            raise InternalError(INTERNAL_TEXT, error_id=error_id) from err

    def _acting(self, name: str) -> AbstractContextManager[None]:
        return caller.acting(name, may=lambda service: name in (self._rules.get(service) or ()))

    def _is_listed(self, name: str) -> bool:
        return any(rule is not ANY_ACCEPTED and name in rule for rule in self._rules.values())

    def _rank(self, method: str, name: str) -> Rank:
        if any(name in (self._rules.get(service) or ()) for service in self._ranks.first):
            return Rank.FIRST
        return Rank.REVOKING if method in self._ranks.revoking else Rank.ORDINARY

    def _allowed(self, method: str, names: Sequence[str]) -> str:
        """The name by which the caller may call: the first in the certificate's order that the service's list has."""
        service = method.split("/")[1]
        rule = self._rules.get(service, frozenset())
        if found := next((name for name in names if rule is ANY_ACCEPTED or name in rule), None):
            return found
        raise CallerNotAllowedError(
            f"{bounded(', '.join(names)) or 'a certificate without a name'} may not call {service}", service=service
        )

    def _names(self, context: grpc.ServicerContext) -> tuple[str, ...]:
        if self._plaintext:
            return (PLAINTEXT,)
        proven = cast("Mapping[str, Sequence[bytes]]", context.auth_context())
        return caller.names(next(iter(proven.get("x509_pem_cert", ())), b""))


def _who(names: Sequence[str]) -> str:
    return bounded(", ".join(names))


def _given_id(context: grpc.ServicerContext) -> str | None:
    return next(
        (
            value
            for key, value in context.invocation_metadata()
            if key == request_ids.METADATA_KEY and isinstance(value, str)
        ),
        None,
    )


def _left_s(context: grpc.ServicerContext) -> float:
    """Seconds that the handler has.

    Raises:
        DeadlineTooShortError: It is not worth beginning.
    """
    left = context.time_remaining()
    if left > _NO_DEADLINE_S:
        return DEFAULT_DEADLINE_S
    useful = left * (1 - MARGIN_SHARE) - MARGIN_S
    if useful < LEAST_USEFUL_S:
        raise DeadlineTooShortError("too little of the deadline is left to begin")
    return useful
