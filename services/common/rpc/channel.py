"""The caller's side: one channel to one service, which every process that calls it keeps.

Each call gets a timeout and the request id; whatever goes wrong is raised as the LeasegateError that the service
raised, or where none did as PeerUnavailable, DeadlineExpired and the like. Any process may import this.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Self

import grpc

from services.common import logs
from services.common.config import ClientTls, HostPort, StartupRefusedError
from services.common.rpc import request_ids, status
from services.common.rpc.tls import Files, channel_credentials

DEFAULT_TIMEOUT_S = 15.0
KEEPALIVE_S = 20.0
"""How long a connection is silent before it is pinged. Servers permit a ping each 10 s."""
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 2000),
    ("grpc.enable_http_proxy", 0),  # the services are neighbours
    ("grpc.max_metadata_size", 32 * 1024),  # statuses with many wrong fields
    ("grpc.enable_retries", 0),  # who calls knows what may be repeated
    # A peer whose machine died, or that a NAT forgot, closes no connection: an unanswered ping says that it is gone.
    ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
    ("grpc.http2.ping_timeout_ms", 10_000),  # gRPC's own is a minute; grpc.keepalive_timeout_ms does not shorten it
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # no limit
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
)
_log = logs.logger(__name__)


def connect(address: HostPort | str, *, tls: ClientTls | None, timeout_s: float = DEFAULT_TIMEOUT_S) -> grpc.Channel:
    """Make the channel to a service; nothing is sent before the first call, and a service that is down is no error yet.

    Args:
        address: ``HOST:PORT``; every address that the name has is used.
        tls: None only for a plaintext service on this machine. Files that change are used from the next call on.
        timeout_s: Of calls that give none of their own.

    Returns:
        A channel for stubs; their calls raise LeasegateError. Close it at the end. Streams (reflection, health) pass
        through it untouched.

    Raises:
        StartupRefusedError: A file of ``tls`` is no good.
    """
    return _Channel(str(address), tls=tls, timeout_s=timeout_s)


class _Channel(grpc.Channel):
    """A gRPC channel that is replaced when its certificate files change, as gRPC itself reads them only once."""

    def __init__(self, address: str, *, tls: ClientTls | None, timeout_s: float) -> None:
        self.address, self.timeout_s, self._tls = address, timeout_s, tls
        self._files = Files(tls.cert, tls.key, tls.ca) if tls else Files()
        self._lock = threading.Lock()
        self._open = [self._dial()]

    def inner(self) -> grpc.Channel:
        """The channel to use now; the one before stays open for the calls that are under way on it."""
        with self._lock:
            if self._files.changed() and (fresh := self._redial()):
                for old in self._open[:-1]:
                    old.close()
                self._open = [self._open[-1], fresh]
            return self._open[-1]

    def _redial(self) -> grpc.Channel | None:
        try:
            return self._dial()
        except StartupRefusedError as err:
            _log.warning("changed certificate files are not used", problem=err.message)
            return None

    def _dial(self) -> grpc.Channel:
        target = f"dns:///{self.address}"
        if not self._tls:
            return grpc.insecure_channel(target, _OPTIONS)
        named = [("grpc.ssl_target_name_override", self._tls.server_name)] if self._tls.server_name else []
        return grpc.secure_channel(target, channel_credentials(self._tls), [*_OPTIONS, *named])

    def unary_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """A method that raises LeasegateError."""
        return _Method(self, lambda channel: channel.unary_unary(method, *serializers, **options))

    def unary_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return self.inner().unary_stream(method, *serializers, **options)

    def stream_unary(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return self.inner().stream_unary(method, *serializers, **options)

    def stream_stream(self, method: str, *serializers: Any, **options: Any) -> Any:
        """As gRPC's."""
        return self.inner().stream_stream(method, *serializers, **options)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """As gRPC's, for the connection in use now."""
        self.inner().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As gRPC's."""
        self.inner().unsubscribe(callback)

    def close(self) -> None:
        """End all calls and connections."""
        with self._lock:
            for channel in self._open:
                channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class _Method:
    """One method of a stub: adds timeout and request id, and raises LeasegateError."""

    def __init__(self, channel: _Channel, bind: Callable[[grpc.Channel], Any]) -> None:
        self._channel, self._bind = channel, bind
        self._bound: tuple[grpc.Channel, Any] | None = None

    def __call__(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call it; ``timeout`` in seconds."""
        return self.with_call(request, timeout, metadata, **options)[0]

    def with_call(self, request: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Call it and answer gRPC's call object, too."""
        timeout = self._channel.timeout_s if timeout is None else timeout
        try:
            return self._method().with_call(request, timeout=timeout, metadata=_with_request_id(metadata), **options)
        except grpc.RpcError as err:
            raise status.from_rpc_error(err, peer=self._channel.address) from err

    def future(self, *_args: Any, **_options: Any) -> Any:
        """Not offered: a thread that waits does the same and gets LeasegateErrors."""
        raise NotImplementedError("calls are blocking; use a thread")

    def _method(self) -> Any:
        channel, bound = self._channel.inner(), self._bound
        if bound is None or bound[0] is not channel:
            self._bound = bound = (channel, self._bind(channel))
        return bound[1]


def _with_request_id(metadata: Any) -> list[tuple[str, str | bytes]]:
    given = list(metadata or ())
    if any(key == request_ids.METADATA_KEY for key, _ in given):
        return given
    with request_ids.following(request_ids.current()) as found:
        return [*given, (request_ids.METADATA_KEY, found)]
