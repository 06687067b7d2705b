"""A connection that is half open: the peer's machine died, or a NAT between forgot it. No packet says so."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from services.common.config import HostPort
from services.common.errors import LeasegateError
from services.common.rpc.channel import connect
from tests.eventually import eventually
from tests.integration.rpc_server import started

WITHIN_S = 50
"""How long a caller may be without its peer: 30 s, and a slow machine (field report 17: within a minute)."""


class Wire:
    """Passes bytes on between a client and a server until it is cut, after which it says nothing to either side."""

    def __init__(self, to: HostPort) -> None:
        self._to, self._ends = to, list[socket.socket]()
        self._cut = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = HostPort("127.0.0.1", self._listening.getsockname()[1])
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Forget the connections there are, as a NAT does; new ones are passed on."""
        self._cut.set()
        self._cut = threading.Event()

    def close(self) -> None:
        """End all."""
        for each in (self._listening, *self._ends):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._to)
                self.connections += 1
                self._ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(*ends, self._cut), daemon=True).start()

    @staticmethod
    def _pass(read: socket.socket, write: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := read.recv(1 << 16):
                if not cut.is_set():  # what comes later is read and dropped, so that nobody sees a full buffer either
                    write.sendall(data)
            if not cut.is_set():
                write.shutdown(socket.SHUT_WR)


@contextmanager
def wired() -> Iterator[tuple[Wire, engine_service_pb2_grpc.EngineServiceStub]]:
    """A server behind a wire, and a caller that has called it once."""
    with started(None) as server:
        wire = Wire(server.address)
        with connect(wire.address, tls=None, timeout_s=2.0) as channel:
            stub = engine_service_pb2_grpc.EngineServiceStub(channel)
            assert ask(stub)
            yield wire, stub
        wire.close()


def ask(stub: engine_service_pb2_grpc.EngineServiceStub) -> bool:
    try:
        return bool(stub.EnsureEngine(engine_service_pb2.EnsureEngineRequest(mount="m")).mount)
    except LeasegateError:
        return False


def test_a_caller_is_back_within_a_minute() -> None:
    with wired() as (wire, stub):
        wire.cut()
        eventually(lambda: ask(stub), timeout_s=WITHIN_S, what="an answer on a new connection")
        assert wire.connections == 2
