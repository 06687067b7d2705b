"""Clients that begin calls or connections and send nothing: nobody else notices (attack H6)."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from leasegate.roles.v1 import role_service_pb2, role_service_pb2_grpc
from services.common.config import ClientTls, HostPort
from services.common.http_health import serve_probes
from services.common.http_server import MOST_CONNECTIONS
from services.common.rpc.server import Running, running, service
from tests.certificates import Authority
from tests.eventually import eventually
from tests.integration.rpc_server import SERVICE, WATCHER, config, scripted
from tests.integration.test_rpc import SERVING, calling, health_of

ROLES = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
IDLE, CHANNELS = 200, 4


class Roles:
    """The service of callers who are not the watcher."""

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        return lambda _request, _context: role_service_pb2.DeleteDbRoleResponse()


class World:
    """A server that first serves the watcher, and beside it two requesters; the certificates of all."""

    def __init__(self, server: Running, ca: Authority) -> None:
        self.server = server
        self.watcher = ca.client(WATCHER, "watcher").client()
        self.one, self.other, self.nobody = (
            ca.client(f"spiffe://leasegate/client/{name}", name).client() for name in ("one", "other", "nobody")
        )

    def ask(self, tls: ClientTls) -> None:
        """One call to the service of requesters."""
        with calling_roles(self.server.address, tls) as stub:
            stub.DeleteDbRole(role_service_pb2.DeleteDbRoleRequest(), timeout=5)


@contextmanager
def calling_roles(address: HostPort, tls: ClientTls) -> Iterator[Any]:
    with channel(address, tls) as opened:
        yield role_service_pb2_grpc.RoleServiceStub(opened)


def channel(address: HostPort, tls: ClientTls | None) -> grpc.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    if tls is None:
        return grpc.insecure_channel(str(address), options)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    return grpc.secure_channel(str(address), credentials, options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    ca = Authority(tmp_path_factory.mktemp("ca"))
    requesters = frozenset(f"spiffe://leasegate/client/{name}" for name in ("one", "other"))
    allow = {SERVICE: frozenset({WATCHER}), ROLES.full_name: requesters}
    services = [
        replace(scripted(), first=True),
        service(ROLES, role_service_pb2_grpc.add_RoleServiceServicer_to_server, cast("Any", Roles())),
    ]
    with running(config(ca.server(), allow=allow), services, health=lambda: True) as server:
        world = World(server, ca)
        eventually(lambda: health_of(server.health_address) == SERVING, timeout_s=10)
        yield world


@contextmanager
def idle_calls(address: HostPort, tls: ClientTls | None, method: str) -> Iterator[list[Any]]:
    """Calls that have sent their headers and send no message."""
    release = threading.Event()

    def nothing() -> Iterator[bytes]:
        release.wait(60)
        yield from ()

    with ExitStack() as stack:
        stack.callback(release.set)
        calls: list[Any] = []
        for _ in range(CHANNELS):
            opened = stack.enter_context(channel(address, tls))
            grpc.channel_ready_future(opened).result(timeout=10)
            begin: Any = opened.stream_stream(method)
            calls += [begin(nothing()) for _ in range(IDLE // CHANNELS)]
        yield calls
        for call in calls:
            call.cancel()


def within_a_second(act: Callable[[], object]) -> Any:
    began = time.monotonic()
    answer = act()
    assert time.monotonic() - began < 1
    return answer


def others_are_served(world: World) -> None:
    """The watcher and a requester are served, and health answers, all at once."""
    with calling(world.server.address, world.watcher) as call:
        for _ in range(5):
            assert within_a_second(lambda: health_of(world.server.health_address)) == SERVING
            assert within_a_second(lambda: call("served")) == "served"
            within_a_second(lambda: world.ask(world.other))


@pytest.mark.parametrize("method", [CHECK, WATCH, "/grpc.health.v1.Health/None"])
def test_h6_idle_calls_without_a_certificate_block_nothing(world: World, method: str) -> None:
    with idle_calls(world.server.health_address, None, method):
        others_are_served(world)
    others_are_served(world)


@pytest.mark.parametrize("method", [f"/{SERVICE}/EnsureEngine", CHECK, REFLECTION])
def test_h6_idle_calls_of_a_certificate_without_rights_block_nothing(world: World, method: str) -> None:
    with idle_calls(world.server.address, world.nobody, method):
        others_are_served(world)


def test_h6_idle_calls_of_a_requester_take_its_own_share(world: World) -> None:
    with idle_calls(world.server.address, world.one, f"/{ROLES.full_name}/DeleteDbRole") as calls:
        others_are_served(world)
        eventually(lambda: _served(world), timeout_s=10)  # its calls end, too
        eventually(lambda: all(call.done() for call in calls), timeout_s=10)


def _served(world: World) -> bool:
    try:
        world.ask(world.one)
    except grpc.RpcError:
        return False
    return True


def test_h6_a_call_without_a_certificate_is_answered_on_its_headers(world: World) -> None:
    with channel(world.server.health_address, None) as opened:
        begin: Any = opened.stream_unary(CHECK)
        release = threading.Event()
        answer = begin.future(b"" for _ in iter(lambda: release.wait(30), True))
        assert answer.result(timeout=5) == b"\x08\x01"
        release.set()


def test_a_call_without_a_message_or_with_half_a_one_is_refused(world: World) -> None:
    with channel(world.server.address, world.watcher) as opened:
        begin: Any = opened.stream_unary(f"/{SERVICE}/EnsureEngine")
        for messages, code in (([], "UNIMPLEMENTED"), ([b"\x0a\xff"], "INTERNAL")):
            with pytest.raises(grpc.RpcError, match=code):
                begin(iter(messages))
        request = engine_service_pb2.EnsureEngineRequest(mount="m")
        assert engine_service_pb2_grpc.EngineServiceStub(opened).EnsureEngine(request).mount == "m"


def test_h6_idle_connections_do_not_stop_the_pages_over_http() -> None:
    with ExitStack() as stack:
        address = stack.enter_context(serve_probes(HostPort("127.0.0.1", 0), alive=lambda: True, ready=lambda: True))
        threads = threading.active_count()
        for _ in range(IDLE):
            idle = stack.enter_context(socket.create_connection((address.host, address.port), timeout=5))
            idle.sendall(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(3):
            page = within_a_second(lambda: urllib.request.urlopen(f"http://{address}/healthz", timeout=5).read())
            assert page == b"ok\n"
        eventually(lambda: threading.active_count() <= threads + MOST_CONNECTIONS, timeout_s=10)


def test_h6_a_requester_learns_when_its_share_is_taken(world: World) -> None:
    method = f"/{ROLES.full_name}/DeleteDbRole"
    with idle_calls(world.server.address, world.one, method), pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
        world.ask(world.one)
