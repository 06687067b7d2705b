"""The skeleton of the services over real TLS: who may call, errors, deadlines, limits, health, reflection, metrics."""

from __future__ import annotations

import ipaddress
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from leasegate.engine.v1 import engine_service_pb2, engine_service_pb2_grpc
from services.common import errors
from services.common.config import ClientTls, HostPort, StartupRefusedError
from services.common.errors import FieldViolation, LeasegateError, SpecInvalidError
from services.common.rpc import caller, deadline, request_ids
from services.common.rpc.channel import connect
from services.common.rpc.limit import LongPolls
from services.common.rpc.server import STREAMS, Running, running
from services.common.rpc.status import from_rpc_error
from tests.certificates import LOCALHOST, Authority, Pair
from tests.eventually import eventually
from tests.integration.rpc_server import SERVICE, WATCHER, config, scripted, started

Stub = engine_service_pb2_grpc.EngineServiceStub
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server_pair(ca: Authority) -> Pair:
    return ca.server()


@pytest.fixture(scope="module")
def watcher(ca: Authority) -> ClientTls:
    return ca.client(WATCHER, "watcher").client()


@contextmanager
def calling(address: HostPort, tls: ClientTls | None) -> Iterator[Callable[..., str]]:
    """EnsureEngine with a path, answering the path."""
    with connect(address, tls=tls) as channel:
        stub = Stub(channel)
        yield (
            lambda path="", **options: (
                stub.EnsureEngine(engine_service_pb2.EnsureEngineRequest(mount=path), **options).mount
            )
        )


@contextmanager
def calling_bare(address: HostPort, tls: ClientTls) -> Iterator[Stub]:
    """As a client of other people's, with gRPC's defaults."""
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    with grpc.secure_channel(str(address), credentials) as channel:
        yield Stub(channel)


def ask(server: Running, tls: ClientTls | None, path: str = "") -> str:
    with calling(server.address, tls) as call:
        return call(path)


# Who may call.


@pytest.mark.parametrize(
    ("allowed", "san"),
    [
        (WATCHER, x509.UniformResourceIdentifier(WATCHER)),
        ("watcher.leasegate-system.svc", x509.DNSName("watcher.leasegate-system.svc")),
        ("10.1.2.3", x509.IPAddress(ipaddress.ip_address("10.1.2.3"))),
    ],
)
def test_each_kind_of_name_lets_its_certificate_in(
    ca: Authority, server_pair: Pair, allowed: str, san: x509.GeneralName
) -> None:
    tls = ca.issue("named", x509.DNSName("another.name"), san).client()
    with started(server_pair, lambda _: caller.current(), allow={SERVICE: frozenset({allowed})}) as server:
        assert ask(server, tls) == allowed


@pytest.mark.parametrize(
    "sans",
    [
        [x509.UniformResourceIdentifier("spiffe://leasegate/client/alice")],
        [x509.UniformResourceIdentifier(f"{WATCHER}/more")],
        [x509.DNSName(WATCHER)],  # the right name as the wrong type
        [x509.UniformResourceIdentifier(f"{WATCHER}\0.example.com")],  # gRPC's own list ends at the zero
        [x509.DNSName("plaintext")],
        [],
    ],
    ids=["other", "longer", "dns", "zero", "plaintext", "none"],
)
def test_every_other_certificate_is_refused(ca: Authority, server_pair: Pair, sans: list[x509.GeneralName]) -> None:
    tls = ca.issue(WATCHER.replace("/", "_"), *sans).client()
    with started(server_pair) as server, pytest.raises(errors.CallerNotAllowedError, match="may not call") as refused:
        ask(server, tls)
    assert refused.value.metadata == {"service": SERVICE}
    assert refused.value.retry_after_s is None


def test_without_an_allow_list_nobody_may_call(server_pair: Pair, watcher: ClientTls) -> None:
    with started(server_pair, allow={}) as server, pytest.raises(errors.CallerNotAllowedError):
        ask(server, watcher)


def test_a_client_needs_a_certificate_of_the_authority(server_pair: Pair, ca: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other").client(WATCHER).client(ca=ca.ca)
    name = x509.UniformResourceIdentifier(WATCHER)
    expired = ca.issue("expired", name, days=(-3, -1)).client()
    servers_own = ca.issue("servers-own", name, usage=ExtendedKeyUsageOID.SERVER_AUTH).client()
    with started(server_pair) as server:
        for tls in (stranger, expired, servers_own, None):
            with pytest.raises(errors.PeerUnavailableError) as refused:
                ask(server, tls)
            assert refused.value.retry_after_s is not None
        bare = grpc.secure_channel(str(server.address), grpc.ssl_channel_credentials(ca.ca.read_bytes()))
        with bare, pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            Stub(bare).EnsureEngine(engine_service_pb2.EnsureEngineRequest(), timeout=5)


def test_a_client_refuses_a_server_of_another_authority_or_name(
    ca: Authority, watcher: ClientTls, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    foreign = other.server()
    misnamed = ca.issue("misnamed", x509.DNSName("elsewhere"))
    clients_own = ca.issue("clients-own", *LOCALHOST, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    for pair in (Pair(foreign.cert, foreign.key, ca.ca), misnamed, clients_own):
        with started(pair) as server, pytest.raises(errors.PeerUnavailableError):
            ask(server, watcher)


def test_the_plaintext_caller_has_a_name_to_be_allowed() -> None:
    with started(None, lambda _: caller.current()) as server:
        assert ask(server, None) == "plaintext"
    with started(None, allow={SERVICE: frozenset({WATCHER})}) as server, pytest.raises(errors.CallerNotAllowedError):
        ask(server, None)


def test_an_allow_list_for_a_service_that_is_not_served_is_refused(server_pair: Pair) -> None:
    with (
        pytest.raises(StartupRefusedError, match=r"leasegate\.roles\.v1\.RoleService"),
        started(server_pair, allow={"leasegate.roles.v1.RoleService": frozenset({WATCHER})}),
    ):
        pass


def test_changed_certificates_are_used_without_a_restart(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    server_pair, tls = first.server(), first.client(WATCHER).client()
    with started(server_pair) as server, calling(server.address, tls) as call:
        assert call("before") == "before"
        second = Authority(tmp_path, name="second")  # the same files: everything of the first is worth nothing now
        second.server()
        second.client(WATCHER)
        assert call("after") == "after"
        assert ask(server, tls, "again") == "again"


def test_changed_certificates_that_are_no_good_are_not_used(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    server_pair, tls = first.server(), first.client(WATCHER).client()
    spare = Pair(tmp_path / "client.crt", tmp_path / "client.key", first.ca)
    with started(server_pair) as server, calling(server.address, tls) as call:
        server_pair.key.write_text("half a file")
        spare.cert.write_text("half a file")
        assert call("still") == "still"


# Errors.


def test_an_error_arrives_as_it_was_raised(server_pair: Pair, watcher: ClientTls) -> None:
    violations = (
        FieldViolation("spec.defaultTTL", "'1y' is no duration: ä €"),
        FieldViolation("spec.path", "has a blank"),
    )
    raised = iter(
        [
            SpecInvalidError.of(*violations),
            errors.VaultSealedError("sealed", address="https://v:8200", retry_after_s=7.5),
        ]
    )

    def behave(_: str) -> str:
        raise next(raised)

    with started(server_pair, behave) as server, calling(server.address, watcher) as call:
        with pytest.raises(SpecInvalidError, match=r"spec\.defaultTTL") as wrong:
            call()
        with pytest.raises(errors.VaultSealedError) as sealed:
            call()
    assert wrong.value.violations == violations
    assert (sealed.value.metadata, sealed.value.retry_after_s) == ({"address": "https://v:8200"}, 7.5)


def test_the_longest_error_still_fits_into_what_any_client_takes(server_pair: Pair, watcher: ClientTls) -> None:
    def behave(_: str) -> str:
        raise SpecInvalidError.of(*(FieldViolation(f"spec.field{n}" * 20, "€" * 5000) for n in range(200)))

    with (
        started(server_pair, behave) as server,
        calling_bare(server.address, watcher) as stub,
        pytest.raises(grpc.RpcError) as wrong,
    ):
        stub.EnsureEngine(engine_service_pb2.EnsureEngineRequest(), timeout=5)
    arrived = from_rpc_error(wrong.value)
    assert isinstance(arrived, SpecInvalidError)
    assert len(arrived.violations) > 3


def test_the_text_of_an_unexpected_exception_stays_here(server_pair: Pair, watcher: ClientTls) -> None:
    def behave(_: str) -> str:
        raise RuntimeError("canary-4711")

    with started(server_pair, behave) as server, pytest.raises(errors.InternalError) as internal:
        ask(server, watcher)
    assert "canary" not in repr([internal.value, internal.value.metadata, internal.value.__cause__])
    assert len(internal.value.metadata["error_id"]) == 16


def test_an_unknown_method_is_an_internal_error_with_its_code(server_pair: Pair, watcher: ClientTls) -> None:
    with started(server_pair) as server, connect(server.address, tls=watcher) as channel:
        unknown: Any = channel.unary_unary(f"/{SERVICE}/Nothing")
        with pytest.raises(errors.InternalError) as internal:
            unknown(b"")
    assert internal.value.metadata["code"] == "UNIMPLEMENTED"


# Deadlines and request ids.


def test_the_callers_deadline_bounds_the_handler(server_pair: Pair, watcher: ClientTls) -> None:
    seen: list[float | None] = []

    def behave(_: str) -> None:
        seen.append(deadline.remaining_s())

    with started(server_pair, behave) as server, calling(server.address, watcher) as call:
        call(timeout=30)
        call(timeout=2)
        call()
    long, short, default = (left or 0 for left in seen)
    assert 28 < long < 30
    assert 1.5 < short < 2
    assert default < 15
    assert deadline.remaining_s() is None


def test_a_call_without_a_deadline_gets_one(server_pair: Pair, watcher: ClientTls) -> None:
    seen: list[float | None] = []
    with (
        started(server_pair, lambda _: seen.append(deadline.remaining_s())) as server,
        calling_bare(server.address, watcher) as stub,
    ):
        stub.EnsureEngine(engine_service_pb2.EnsureEngineRequest())
    assert 55 < (seen[0] or 0) <= 60


def test_too_short_a_deadline_is_refused_before_the_handler(server_pair: Pair, watcher: ClientTls) -> None:
    handled: list[str] = []
    with started(server_pair, lambda path: handled.append(path)) as server, calling(server.address, watcher) as call:
        call("warm")
        with pytest.raises((errors.DeadlineTooShortError, errors.DeadlineExpiredError)):
            call("late", timeout=0.12)
    assert handled == ["warm"]


def test_a_passed_deadline_differs_from_one_too_short(server_pair: Pair, watcher: ClientTls) -> None:
    release = threading.Event()
    with started(server_pair, lambda _: str(release.wait(10))) as server, calling(server.address, watcher) as call:
        with pytest.raises(errors.DeadlineExpiredError):
            call(timeout=0.5)
        release.set()


def test_the_request_id_is_passed_on(server_pair: Pair, watcher: ClientTls) -> None:
    with started(server_pair, lambda _: request_ids.current()) as server, calling(server.address, watcher) as call:
        with request_ids.following("demo/req-1:2"):
            assert call() == "demo/req-1:2"
        assert call() != call()
        assert call(metadata=(("x-request-id", "given"),)) == "given"
        assert "\n" not in call(metadata=(("x-request-id", "a b"),))
        assert call(metadata=(("x-request-id", "a b"),)) != "a b"


# Limits.


def test_overload_is_refused_with_a_time_to_try_again(server_pair: Pair, watcher: ClientTls) -> None:
    entered, release = threading.Event(), threading.Event()

    def behave(path: str) -> str:
        if path == "hold":
            entered.set()
            release.wait(30)
        return path

    with started(server_pair, behave, max_concurrent_rpcs=1) as server, calling(server.address, watcher) as call:
        held = threading.Thread(target=call, args=("hold",))
        held.start()
        assert entered.wait(10)
        with pytest.raises(errors.OverloadedError) as overloaded:
            call()
        release.set()
        held.join()
        assert call("free") == "free"
    assert overloaded.value.retry_after_s == 1.0


def test_long_polls_have_a_budget_of_their_own(server_pair: Pair, watcher: ClientTls) -> None:
    polls, woken, waiting = LongPolls(1), threading.Event(), threading.Event()

    def behave(path: str) -> str:
        if path != "wait":
            return path
        with polls.waiting() as may:
            if not may:
                return "at once"
            waiting.set()
            woken.wait(30)
            return "woken"

    got: list[str] = []
    options = {"long_polls": polls, "on_drain": woken.set}
    with (
        started(server_pair, behave, max_concurrent_rpcs=1, options=options) as server,
        calling(server.address, watcher) as call,
    ):
        poll = threading.Thread(target=lambda: got.append(call("wait", timeout=30)))
        poll.start()
        assert waiting.wait(10)
        assert call("ordinary") == "ordinary"
        assert call("wait") == "at once"
        server.drain()
        poll.join()
    assert got == ["woken"]


# Health, reflection, metrics.


def health_of(address: HostPort, name: str = "") -> int:
    with grpc.insecure_channel(str(address)) as channel:
        return int(
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
        )


def test_health_follows_the_check_and_ends_with_draining(server_pair: Pair, watcher: ClientTls) -> None:
    answers: dict[str, bool | Exception] = {"now": False}

    def check() -> bool:
        if isinstance(answers["now"], Exception):
            raise answers["now"]
        return answers["now"]

    with started(server_pair, options={"health": check, "check_every_s": 0.05}) as server:
        assert health_of(server.health_address) == NOT_SERVING
        answers["now"] = True
        eventually(lambda: health_of(server.health_address) == SERVING, timeout_s=10)
        assert health_of(server.health_address, SERVICE) == SERVING
        with connect(server.address, tls=watcher) as channel:
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == SERVING
        answers["now"] = errors.VaultUnavailableError("no answer")
        eventually(lambda: health_of(server.health_address) == NOT_SERVING, timeout_s=10)
        answers["now"] = True
        eventually(lambda: health_of(server.health_address, SERVICE) == SERVING, timeout_s=10)
        server.drain()
        assert health_of(server.health_address) == NOT_SERVING


def test_reflection_answers_any_accepted_certificate_and_no_other(ca: Authority, server_pair: Pair) -> None:
    nobody = ca.client("spiffe://leasegate/client/nobody", "nobody").client()
    with started(server_pair) as server:
        with connect(server.address, tls=nobody) as channel:
            found = ProtoReflectionDescriptorDatabase(channel)
            assert SERVICE in set(found.get_services())
            assert found.FindFileContainingSymbol(SERVICE).package == "leasegate.engine.v1"
        bare = grpc.secure_channel(str(server.address), grpc.ssl_channel_credentials(ca.ca.read_bytes()))
        with bare, pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            ProtoReflectionDescriptorDatabase(bare).get_services()


def test_open_reflection_streams_keep_nobody_out(server_pair: Pair, watcher: ClientTls) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    release = threading.Event()

    def questions() -> Iterator[bytes]:
        yield b"\x3a\x00"  # list_services
        release.wait(30)

    with started(server_pair, max_concurrent_rpcs=1) as server, connect(server.address, tls=watcher) as channel:
        ask_all: Any = channel.stream_stream(method)
        streams = [ask_all(questions()) for _ in range(STREAMS)]
        assert all(SERVICE.encode() in next(stream) for stream in streams)
        with pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
            next(ask_all(questions()))
        assert ask(server, watcher, "served") == "served"
        release.set()
        for stream in streams:
            assert list(stream) == []
        eventually(lambda: next(ask_all(iter([b"\x3a\x00"]))), timeout_s=10)


def test_metrics_count_calls_by_method_and_code(server_pair: Pair, watcher: ClientTls) -> None:
    def behave(path: str) -> str:
        if path:
            raise errors.DbRoleNotFoundError("no")
        return path

    with (
        started(server_pair, behave, metrics_listen=HostPort("127.0.0.1", 0)) as server,
        calling(server.address, watcher) as call,
    ):
        call()
        with pytest.raises(errors.DbRoleNotFoundError):
            call("missing")
        text = urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5).read().decode()
    method = f'grpc_method="EnsureEngine",grpc_service="{SERVICE}"'
    assert f'grpc_server_handled_total{{grpc_code="OK",{method}}} 1.0' in text
    assert f'grpc_server_handled_total{{grpc_code="NotFound",{method}}} 1.0' in text
    assert f"grpc_server_handling_seconds_count{{{method}}} 2.0" in text
    assert "spiffe" not in text


def test_ipv6_is_as_good() -> None:
    """As a cluster of IPv6 alone needs it (field report 25)."""
    there = HostPort("::1", 0)
    with (
        started(None, listen=there, health_listen=there, metrics_listen=there) as server,
        calling(server.address, None) as call,
    ):
        assert call("somewhere") == "somewhere"
        assert health_of(server.health_address) == SERVING
        assert urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=5).status == 200


# The caller's side over a restart.


def test_a_channel_survives_a_restart_of_the_service(server_pair: Pair, watcher: ClientTls) -> None:
    with started(server_pair) as server:
        address = server.address
        channel = connect(address, tls=watcher)
        stub = Stub(channel)
        stub.EnsureEngine(engine_service_pb2.EnsureEngineRequest())
    request = engine_service_pb2.EnsureEngineRequest(mount="again")
    with channel:
        with pytest.raises(errors.PeerUnavailableError) as down:
            stub.EnsureEngine(request)
        assert down.value.metadata["peer"] == str(address)
        with running(config(server_pair, listen=address), [scripted()], health=lambda: True):
            assert eventually(lambda: _path_if_up(stub, request), timeout_s=20) == "again"


def _path_if_up(stub: Any, request: engine_service_pb2.EnsureEngineRequest) -> str:
    try:
        return str(stub.EnsureEngine(request).mount)
    except errors.PeerUnavailableError:
        return ""


def test_a_call_fails_at_once_when_the_service_is_down(watcher: ClientTls) -> None:
    with started(None) as server:
        address = server.address
    began = time.monotonic()
    with calling(address, watcher) as call, pytest.raises(LeasegateError) as down:
        call(timeout=10)
    assert isinstance(down.value, errors.PeerUnavailableError)
    assert time.monotonic() - began < 5
