"""A real server whose one service does what a test, or as a program ``mount`` of the request, asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from services.common.config import HostPort, ServerConfig, server_command
from services.common.rpc.server import Running, Service, running, serve, service
from tests.certificates import Pair

DESCRIPTOR = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
SERVICE: str = DESCRIPTOR.full_name
WATCHER = "spiffe://leasegate/watcher"
ANY = HostPort("127.0.0.1", 0)
Behaviour = Callable[[str], str | None]


class Scripted(engine_service_pb2_grpc.EngineServiceServicer):
    """EnsureEngine calls ``behave`` with the path and answers what it returns."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave

    def EnsureEngine(
        self, request: engine_service_pb2.EnsureEngineRequest, context: Any
    ) -> engine_service_pb2.EnsureEngineResponse:
        return engine_service_pb2.EnsureEngineResponse(mount=self._behave(request.mount) or "")

    def DeleteEngine(
        self, request: engine_service_pb2.DeleteEngineRequest, context: Any
    ) -> engine_service_pb2.DeleteEngineResponse:
        return engine_service_pb2.DeleteEngineResponse(unmounted=True)


def scripted(behave: Behaviour = lambda path: path) -> Service:
    return service(DESCRIPTOR, engine_service_pb2_grpc.add_EngineServiceServicer_to_server, Scripted(behave))


def config(pair: Pair | None, **changes: Any) -> ServerConfig:
    """Free ports on loopback, the watcher allowed."""
    caller = WATCHER if pair else "plaintext"
    base = ServerConfig(
        process="engine", listen=ANY, health_listen=ANY, drain_delay_s=0, allow={SERVICE: frozenset({caller})}
    )
    return replace(base, tls=pair.server() if pair else None, **changes)


@contextmanager
def started(
    pair: Pair | None, behave: Behaviour = lambda path: path, *, options: dict[str, Any] | None = None, **changes: Any
) -> Iterator[Running]:
    """Run the server of ``pair``'s certificate; ``changes`` are to the config, ``options`` to ``running``."""
    with running(config(pair, **changes), [scripted(behave)], **{"health": lambda: True, **(options or {})}) as server:
        yield server


def _by_path(path: str) -> str:
    """The program: ``fail:TEXT`` raises, ``hold:FOLDER`` touches ``entered`` there and waits for ``release``."""
    verb, _, rest = path.partition(":")
    if verb == "fail":
        raise RuntimeError(rest)
    if verb == "hold":
        folder, pause = Path(rest), threading.Event()
        (folder / "entered").touch()
        while not (folder / "release").exists():
            pause.wait(0.02)
    return path


@server_command("engine", port=7701, help="A server for tests.")
def main(server: ServerConfig) -> None:
    serve(server, [scripted(_by_path)], health=lambda: True)


if __name__ == "__main__":
    main()
