"""A gRPC proxy between the watcher and access, which delays or refuses calls of one method and tells when each came."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from dev.stack.certificates import Authority
from dev.stack.stack import LocalStack

THREADS = 48


class Proxy(grpc.GenericRpcHandler):
    """Passes calls on as the watcher; what it does with one of a method is for the test to say.

    Attributes:
        before: By method: called before the call is passed on, with the serialized request.
        after: By method: called before the answer is passed on.
        refused: Methods that fail, as if access could not be reached.
        passed: How many calls of each method were answered.
        turned_away: How many calls of each method failed for that.
    """

    def __init__(self, stack: LocalStack) -> None:
        cert, key, ca = (path.read_bytes() for path in stack.client_cert("watcher"))
        pair = Authority(stack.directory / "services" / "tls").server("access")
        self._channel = grpc.secure_channel(
            stack.addresses["access"].replace("127.0.0.1", "localhost"), grpc.ssl_channel_credentials(ca, key, cert)
        )
        self.before: dict[str, Callable[[bytes], object]] = {}
        self.after: dict[str, Callable[[bytes], object]] = {}
        self.refused: set[str] = set()
        self.passed: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        self._server = grpc.server(ThreadPoolExecutor(THREADS))
        self._server.add_generic_rpc_handlers((self,))
        credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())])
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Any method of any service."""
        path, method = details.method, details.method.rpartition("/")[2]
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            if method in self.refused:
                self.turned_away[method] += 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "refused by the test")
            self.before.get(method, _nothing)(request)
            metadata: Any = [
                pair for pair in context.invocation_metadata() if not pair[0].startswith(("grpc-", "user-agent"))
            ]
            try:
                answer, made = call.with_call(request, timeout=context.time_remaining(), metadata=metadata)
            except grpc.RpcError as err:
                failed: Any = err
                context.set_trailing_metadata(failed.trailing_metadata() or ())
                context.abort(failed.code(), failed.details() or "")
            trailing: Any = made.trailing_metadata() or ()
            context.set_trailing_metadata(trailing)
            self.after.get(method, _nothing)(answer)
            self.passed[method] += 1
            return bytes(answer)

        return grpc.unary_unary_rpc_method_handler(handle)

    def close(self) -> None:
        """End it."""
        self._server.stop(0).wait()
        self._channel.close()


def _nothing(_message: bytes) -> None:
    pass


@contextmanager
def proxied(stack: LocalStack, **options: str) -> Iterator[Proxy]:
    """The stack, whose watcher speaks to access through a proxy; the watcher is started again for it and after it."""
    proxy, watcher = Proxy(stack), stack.process("watcher")
    try:
        watcher.terminate()
        stack.set_options("watcher", access=f"127.0.0.1:{proxy.port}", **options)
        watcher.start()
        watcher.wait_ready()
        yield proxy
    finally:
        watcher.terminate()
        stack.set_options("watcher")
        watcher.start()
        watcher.wait_ready()
        proxy.close()


class Repeating:
    """Does something again and again in a thread until it is left."""

    def __init__(self, act: Callable[[], object], *, every_s: float) -> None:
        self._act, self._every_s, self._stop = act, every_s, threading.Event()
        self.times = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Repeating:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._act()
            self.times += 1
