"""The watcher's stubs against a played server (grpc_testing): the right methods, and requests that arrive whole."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf import message_factory

from leasegate.access.v1 import requester_service_pb2, watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from watcher.clients.stubs import service_stubs

ENGINE = engine_service_pb2.DESCRIPTOR.services_by_name["EngineService"]
ROLES = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
WATCHER = watcher_service_pb2.DESCRIPTOR.services_by_name["WatcherService"]
REQUESTER = requester_service_pb2.DESCRIPTOR.services_by_name["RequesterService"]

CALLS: list[tuple[str, str, Any, Any]] = [
    ("engine", "engine", ENGINE, engine_service_pb2.EnsureEngineRequest(mount="p")),
    ("engine", "engine", ENGINE, engine_service_pb2.DeleteEngineRequest(mount="p")),
    ("roles", "roles", ROLES, role_service_pb2.EnsureDbRoleRequest(mount="m")),
    ("roles", "roles", ROLES, role_service_pb2.DeleteDbRoleRequest(mount="m")),
    ("roles", "roles", ROLES, role_service_pb2.EnsureCleanupRoleRequest(name="n")),
    ("roles", "roles", ROLES, role_service_pb2.DeleteCleanupRoleRequest(name="n")),
    ("access", "access", WATCHER, watcher_service_pb2.EnsureAccessRequestRequest(secret_attempt=3)),
    ("access", "access", WATCHER, watcher_service_pb2.DeleteAccessRequestRequest()),
    ("access", "access", WATCHER, watcher_service_pb2.EnsureVaultTargetRequest()),
    ("access", "access", WATCHER, watcher_service_pb2.PutDbRoleSnapshotRequest()),
    ("access", "access", WATCHER, watcher_service_pb2.DeleteDbRoleSnapshotRequest()),
    ("access", "access", WATCHER, watcher_service_pb2.QuiesceRequest(mount="m")),
    ("access", "access", WATCHER, watcher_service_pb2.ResumeRequest(mount="m")),
    ("access", "access", WATCHER, watcher_service_pb2.WatchChangesRequest(cursor="c")),
    ("access", "access", WATCHER, watcher_service_pb2.ReportCleanupRoleRequest(name="n")),
    ("requester", "access", REQUESTER, requester_service_pb2.ClaimCredentialRequest(access_request_id="u")),
    (
        "requester",
        "access",
        REQUESTER,
        requester_service_pb2.AcknowledgeCredentialRequest(access_request_id="u", attempt=1),
    ),
    ("requester", "access", REQUESTER, requester_service_pb2.ListAccessRequestsRequest(page_size=500)),
]
"""Stub, channel, service and request of every call that the watcher makes."""


@pytest.fixture
def channels() -> dict[str, Any]:
    clock = grpc_testing.strict_real_time()
    return {
        "engine": grpc_testing.channel([ENGINE], clock),
        "roles": grpc_testing.channel([ROLES], clock),
        "access": grpc_testing.channel([WATCHER, REQUESTER], clock),
    }


def _played(channel: Any, method: Any, answer: Any, *, code: grpc.StatusCode, seen: list[Any]) -> threading.Thread:
    def play() -> None:
        _, request, rpc = channel.take_unary_unary(method)
        seen.append(request)
        rpc.terminate(answer, (), code, "")

    thread = threading.Thread(target=play)
    thread.start()
    return thread


@pytest.mark.parametrize(("stub", "channel", "service", "call"), CALLS, ids=[type(call[3]).__name__ for call in CALLS])
def test_each_call_reaches_its_service_complete(
    channels: dict[str, Any], stub: str, channel: str, service: Any, call: Any
) -> None:
    seen, name = list[Any](), type(call).__name__.removesuffix("Request")
    method = service.methods_by_name[name]
    answer = message_factory.GetMessageClass(method.output_type)()
    thread = _played(channels[channel], method, answer, code=grpc.StatusCode.OK, seen=seen)
    assert getattr(getattr(service_stubs(**channels), stub), name)(call, timeout=5) == answer
    thread.join(5)
    assert seen == [call]


def test_a_refusal_is_raised(channels: dict[str, Any]) -> None:
    stubs, method = service_stubs(**channels), ENGINE.methods_by_name["EnsureEngine"]
    thread = _played(channels["engine"], method, None, code=grpc.StatusCode.UNAVAILABLE, seen=[])
    with pytest.raises(grpc.RpcError):
        stubs.engine.EnsureEngine(engine_service_pb2.EnsureEngineRequest(), timeout=5)
    thread.join(5)
