"""The life of a server process, the same for all three: build, answer, drain, end.

``serve`` is for ``__main__`` modules; ``running`` is the same server without signals, for tests. Services alone import
this.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from services.common import logs, metrics
from services.common.config import HostPort, ServerConfig, StartupRefusedError
from services.common.gc_freeze import freeze_startup_objects
from services.common.rpc import health as health_service
from services.common.rpc import signals, tls
from services.common.rpc.health import Health
from services.common.rpc.interceptors import ANY_ACCEPTED, Chain, Ranks, Rules
from services.common.rpc.limit import LongPolls, Slots
from services.common.rpc.pool import ContextPool
from services.common.rpc.receive import Receipts

STREAMS = 4
"""Reflection streams at once, each of which holds a thread."""
STRANGERS = 4
"""Calls at once, beside all others, of clients whose certificate may call nothing but health."""
REFUSING = 8
"""Threads beyond those that work, so that a call that is refused, for overload too, is answered with a reason."""
QUEUED = 1000
"""Calls that may wait for one of these threads; beyond them gRPC refuses without a reason."""
HEALTH_THREADS = 2
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second process on the port starts silently and takes half of the calls
    ("grpc.max_connection_age_ms", 300_000),  # clients resolve names and see certificates again
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 256),  # of one connection: the client keeps what is beyond
    # Clients may ping each 10 s, also without a call; gRPC's own limit of 5 min would close their connections.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # A client that is gone without a word gives its places back.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 15_000),
)
_HEALTH_OPTIONS = (*_OPTIONS, ("grpc.max_connection_idle_ms", 10_000))
S = TypeVar("S")
_log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service of a server; made by ``service``."""

    name: str
    register: Callable[[grpc.Server], None]
    first: bool = False
    revoking: frozenset[str] = frozenset()


def service(
    descriptor: ServiceDescriptor,
    add: Callable[[S, grpc.Server], None],
    servicer: S,
    *,
    first: bool = False,
    revoking: Sequence[str] = (),
) -> Service:
    """Name a service by its descriptor and say how it is added.

    Args:
        descriptor: ``engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]``.
        add: The generated ``add_..._to_server``.
        servicer: Its implementation.
        first: Whether places are kept for who may call it (the watcher).
        revoking: Names of its methods that take access away, for which places are kept, too.
    """
    if unknown := set(revoking) - set(descriptor.methods_by_name):
        raise ValueError(f"{descriptor.full_name} has no methods {sorted(unknown)}")
    return Service(
        name=descriptor.full_name,
        register=lambda server: add(servicer, server),
        first=first,
        revoking=frozenset(f"/{descriptor.full_name}/{name}" for name in revoking),
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        address: Where the services are.
        health_address: Where the plaintext health service is.
        metrics_address: Where the metrics are, if anywhere.
    """

    address: HostPort
    health_address: HostPort
    metrics_address: HostPort | None
    _drain: Callable[[], None] = field(repr=False)

    def drain(self) -> None:
        """Say not serving, wait the drain delay, refuse new calls, and wait up to the grace for those under way."""
        self._drain()


def serve(
    config: ServerConfig,
    services: Sequence[Service],
    *,
    health: Callable[[], bool],
    long_polls: LongPolls | None = None,
    on_drain: Callable[[], None] | None = None,
    registry: CollectorRegistry | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    The caller then closes what it opened and exits with code 0.

    Args:
        config: What the operator asked for.
        services: What is served, each allowed to whom ``config.allow`` says.
        health: Whether the process can do its work (Vault answers); called every few seconds in a thread of its own.
        long_polls: The budget of waiting calls, if any of the services has some.
        on_drain: Called once when draining begins, to wake waiting calls.
        registry: Where the metrics are; a new one if None.

    Raises:
        StartupRefusedError: An address, a file or the allow-list is no good.
    """
    with (
        signals.stop_requested() as stop,
        running(config, services, health=health, long_polls=long_polls, on_drain=on_drain, registry=registry) as server,
    ):
        freeze_startup_objects()
        stop.wait()
        server.drain()


@contextmanager
def running(
    config: ServerConfig,
    services: Sequence[Service],
    *,
    health: Callable[[], bool],
    long_polls: LongPolls | None = None,
    on_drain: Callable[[], None] | None = None,
    registry: CollectorRegistry | None = None,
    check_every_s: float = health_service.EVERY_S,
) -> Iterator[Running]:
    """Serve while inside; arguments and errors as of ``serve``.

    Leaving cancels the calls that still run, so drain before.
    """
    registry = registry or metrics.new_registry()
    polls = long_polls or LongPolls(0)
    rules = _rules(config, services)
    board = Health(health, services=[each.name for each in services], every_s=check_every_s)
    with ExitStack() as stack:
        receipts = Receipts()
        chain = _chain(config, services, rules=rules, receipts=receipts, registry=registry)
        server = stack.enter_context(
            _server(
                config, threads=config.max_concurrent_rpcs + polls.count + STREAMS + STRANGERS + REFUSING, chain=chain
            )
        )
        _register(server, services, board)
        address = _bind(
            server,
            config.listen,
            flag="--listen",
            credentials=tls.server_credentials(config.tls) if config.tls else None,
        )
        health_address = stack.enter_context(_health_server(config.health_listen, board))
        metrics_address = stack.enter_context(metrics.served(registry, listen=config.metrics_listen))
        server.start()
        stack.enter_context(receipts.cancelling())
        stack.enter_context(board.checked())
        found = Running(
            address,
            health_address,
            metrics_address,
            lambda: _drain(server, config, board=board, polls=polls, on_drain=on_drain),
        )
        _announce(config, found, rules=rules)
        yield found


def _rules(config: ServerConfig, services: Sequence[Service]) -> Rules:
    names = [each.name for each in services]
    if len(set(names)) < len(names):
        raise ValueError(f"a service is registered twice: {names}")
    if unknown := sorted(set(config.allow) - set(names)):
        raise StartupRefusedError(
            f"--allow names {', '.join(unknown)}, and this process serves only {', '.join(names)}"
        )
    allowed = {name: config.allow.get(name, frozenset()) for name in names}
    return {**allowed, reflection.SERVICE_NAME: ANY_ACCEPTED, health_service.NAME: ANY_ACCEPTED}


def _chain(
    config: ServerConfig, services: Sequence[Service], *, rules: Rules, receipts: Receipts, registry: CollectorRegistry
) -> Chain:
    return Chain(
        rules=rules,
        ranks=Ranks(
            first=frozenset(each.name for each in services if each.first),
            revoking=frozenset().union(*(each.revoking for each in services)),
        ),
        slots=Slots(config.max_concurrent_rpcs),
        streams=Slots(STREAMS, shared=False),
        strangers=Slots(STRANGERS, shared=False),
        receipts=receipts,
        metrics=metrics.RpcMetrics(registry),
        plaintext=config.tls is None,
    )


@contextmanager
def _server(config: ServerConfig, *, threads: int, chain: Chain) -> Iterator[grpc.Server]:
    pool = ContextPool(max_workers=threads, thread_name_prefix=config.process)
    server = grpc.server(pool, interceptors=[chain], options=_OPTIONS, maximum_concurrent_rpcs=threads + QUEUED)
    try:
        yield server
    finally:
        server.stop(None).wait()
        pool.shutdown(wait=False)


def _register(server: grpc.Server, services: Sequence[Service], board: Health) -> None:
    for each in services:
        each.register(server)
    board.add_check(server)
    reflection.enable_server_reflection(
        [each.name for each in services] + [health_service.NAME, reflection.SERVICE_NAME], server
    )


@contextmanager
def _health_server(listen: HostPort, board: Health) -> Iterator[HostPort]:
    """Health alone, on its own port and threads: kubelet has no certificate, and a busy service must not look dead."""
    pool = ContextPool(max_workers=HEALTH_THREADS, thread_name_prefix="health")
    watches = ContextPool(max_workers=health_service.WATCHES + 1, thread_name_prefix="watch")
    server = grpc.server(pool, options=_HEALTH_OPTIONS, maximum_concurrent_rpcs=QUEUED)
    board.add_probes(server, watches=watches)
    try:
        address = _bind(server, listen, flag="--health-listen", credentials=None)
        server.start()
        yield address
    finally:
        server.stop(None).wait()
        for each in (pool, watches):
            each.shutdown(wait=False)


def _bind(server: grpc.Server, listen: HostPort, *, flag: str, credentials: grpc.ServerCredentials | None) -> HostPort:
    """Listen; tried with a plain socket first, whose error says what is wrong where gRPC's does not."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
        port = (
            server.add_secure_port(str(listen), credentials) if credentials else server.add_insecure_port(str(listen))
        )
    except (OSError, RuntimeError) as err:
        raise StartupRefusedError(
            f"{flag} {listen}: {getattr(err, 'strerror', None) or 'cannot listen there'}"
        ) from err
    return HostPort(listen.host, port)


def _announce(config: ServerConfig, found: Running, *, rules: Rules) -> None:
    _log.info(
        "listening",
        address=str(found.address),
        health_address=str(found.health_address),
        metrics_address=str(found.metrics_address) if found.metrics_address else None,
        tls=config.tls is not None,
    )
    if unheard := [name for name, callers in rules.items() if callers is not ANY_ACCEPTED and not callers]:
        _log.warning("nobody is allowed to call", services=unheard)
    for path, address in ((config.address_file, found.address), (config.health_address_file, found.health_address)):
        if path:
            _write(path, f"{address}\n")


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, so that no reader sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as err:
        raise StartupRefusedError(f"{path}: {err.strerror}") from err


def _drain(
    server: grpc.Server, config: ServerConfig, *, board: Health, polls: LongPolls, on_drain: Callable[[], None] | None
) -> None:
    _log.info("draining", delay_s=config.drain_delay_s, grace_s=config.drain_grace_s)
    board.drain()
    polls.drain()
    if on_drain:
        on_drain()
    threading.Event().wait(config.drain_delay_s)
    if not server.stop(config.drain_grace_s).wait(config.drain_grace_s + 1):
        _log.warning("calls under way were cut off", grace_s=config.drain_grace_s)
    _log.info("drained")
