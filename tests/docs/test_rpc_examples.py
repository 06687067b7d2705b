"""Each grpcurl line of docs/reference/grpc.md sends a request that its RPC takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory

from leasegate.access.v1 import (  # noqa: F401 - they put their services into the pool
    approver_service_pb2,
    operator_service_pb2,
    requester_service_pb2,
    watcher_service_pb2,
)
from leasegate.engine.v1 import engine_service_pb2  # noqa: F401
from leasegate.roles.v1 import role_service_pb2  # noqa: F401

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "grpc.md"
LINES = re.findall(
    r"^grpcurl -d '(.*)' 127\.0\.0\.1:\d+ ([\w.]+)/(\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("body", "service", "method"), [pytest.param(*line, id=line[2]) for line in LINES])
def test_an_example_is_a_valid_request(body: str, service: str, method: str) -> None:
    found = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(method)
    json_format.ParseDict(json.loads(body), message_factory.GetMessageClass(found.input_type)())


def test_every_rpc_has_an_example() -> None:
    assert len(LINES) == PAGE.read_text(encoding="utf-8").count("\ngrpcurl -d ") > 20
