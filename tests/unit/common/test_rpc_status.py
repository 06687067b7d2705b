"""Statuses that are not ours, or too large."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.common import errors
from services.common.errors import FieldViolation, SpecInvalidError
from services.common.rpc import status

CODE = grpc.StatusCode


class Failed(grpc.RpcError):
    """A failed call as a stub raises it."""

    def __init__(self, code: CODE, details: str | None, trailing: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(details)
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> CODE:
        return self._code

    def details(self) -> str | None:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing


def rich(code: CODE, reason: str, *, domain: str = "leasegate.dev", details: tuple[Any, ...] = ()) -> status_pb2.Status:
    made = status_pb2.Status(code=code.value[0], message="text")
    for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"k": "v"}), *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        made.details.append(packed)
    return made


@pytest.mark.parametrize(
    ("code", "expected", "retryable"),
    [
        (CODE.UNAVAILABLE, errors.PeerUnavailableError, True),
        (CODE.CANCELLED, errors.PeerUnavailableError, True),
        (CODE.DEADLINE_EXCEEDED, errors.DeadlineExpiredError, True),
        (CODE.RESOURCE_EXHAUSTED, errors.OverloadedError, True),
        (CODE.PERMISSION_DENIED, errors.CallerNotAllowedError, False),
        (CODE.UNAUTHENTICATED, errors.CallerNotAllowedError, False),
        (CODE.INVALID_ARGUMENT, errors.SpecInvalidError, False),
        (CODE.UNIMPLEMENTED, errors.InternalError, False),
        (CODE.UNKNOWN, errors.InternalError, False),
        (CODE.NOT_FOUND, errors.InternalError, False),
    ],
)
def test_a_status_of_grpc_itself_becomes_what_a_caller_can_act_on(
    code: CODE, expected: type[Exception], retryable: bool
) -> None:
    found = status.from_rpc_error(Failed(code, "what grpc says"), peer="127.0.0.1:1")
    assert type(found) is expected
    assert (found.retry_after_s is not None) is retryable
    assert (found.message, found.metadata) == ("what grpc says", {"code": code.name, "peer": "127.0.0.1:1"})


def test_a_status_without_text_still_says_something() -> None:
    assert status.from_rpc_error(Failed(CODE.UNKNOWN, None)).message == "no details"


def test_an_unknown_reason_keeps_its_retry_and_says_its_name() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    found = status.from_status(rich(CODE.FAILED_PRECONDITION, "NEWER_THAN_US", details=(retry,)))
    assert type(found) is errors.InternalError
    assert (found.retry_after_s, found.metadata) == (
        1.5,
        {"k": "v", "code": "FAILED_PRECONDITION", "reason": "NEWER_THAN_US"},
    )


def test_an_unknown_reason_becomes_the_class_of_its_code() -> None:
    assert type(status.from_status(rich(CODE.UNAVAILABLE, "NEWER_THAN_US"))) is errors.PeerUnavailableError


def test_a_known_reason_of_another_domain_is_ignored() -> None:
    assert (
        type(status.from_status(rich(CODE.NOT_FOUND, "DB_ROLE_NOT_FOUND", domain="example.com")))
        is errors.InternalError
    )


def test_an_unknown_code_is_internal() -> None:
    assert type(status.from_status(status_pb2.Status(code=99, message="?"))) is errors.InternalError


def test_metadata_of_a_peer_never_becomes_an_argument() -> None:
    made = rich(CODE.INVALID_ARGUMENT, "SPEC_INVALID")
    info = error_details_pb2.ErrorInfo(
        reason="SPEC_INVALID", domain="leasegate.dev", metadata={"violations": "x", "retry_after_s": "9", "self": "y"}
    )
    made.details[0].Pack(info)
    found = status.from_status(made)
    assert isinstance(found, SpecInvalidError)
    assert (found.violations, found.retry_after_s, len(found.metadata)) == ((), None, 3)


@pytest.mark.parametrize("trailing", [b"\xff\xff", rich(CODE.NOT_FOUND, "DB_ROLE_NOT_FOUND").SerializeToString()])
def test_details_that_are_broken_or_contradict_the_code_are_ignored(trailing: bytes) -> None:
    found = status.from_rpc_error(Failed(CODE.UNAVAILABLE, "text", (("grpc-status-details-bin", trailing),)))
    assert type(found) is errors.PeerUnavailableError


def test_a_large_error_is_cut_to_what_a_header_holds() -> None:
    many = tuple(FieldViolation(f"spec.f{n}", "ж" * 1000) for n in range(100))
    made = status.to_status(SpecInvalidError("ж" * 5000, violations=many, **{f"key{n}": "x" * 1000 for n in range(50)}))
    assert made.ByteSize() <= status.MAX_BYTES
    found = status.from_status(made)
    assert isinstance(found, SpecInvalidError)
    assert len(found.message.encode()) <= status.MESSAGE_BYTES
    assert found.message.endswith("…")
    assert found.violations
    assert len(found.metadata) == status.MAX_METADATA


def test_text_that_is_no_utf8_is_sent_all_the_same() -> None:
    assert status.to_status(errors.VaultFailedError("half \ud800 a pair", path="\udfff")).message == "half ? a pair"


@pytest.mark.parametrize("changed_nothing", [True, False])
def test_that_a_call_changed_nothing_survives_the_wire(changed_nothing: bool) -> None:
    sent = errors.MountConflictError("text", path="p")
    sent.changed_nothing = changed_nothing
    made = status.to_status(sent)
    info = error_details_pb2.ErrorInfo()
    assert made.details[0].Unpack(info)
    assert dict(info.metadata) == {"path": "p"} | ({"effects": "none"} if changed_nothing else {})
    found = status.from_status(made)
    assert (found.changed_nothing, found.metadata) == (changed_nothing, {"path": "p"})


def test_a_block_that_writes_nothing_marks_its_errors() -> None:
    with pytest.raises(SpecInvalidError) as invalid, errors.writes_nothing():
        raise SpecInvalidError("x")
    assert invalid.value.changed_nothing


def test_an_outage_is_not_marked_as_changing_nothing() -> None:
    with pytest.raises(errors.VaultSealedError) as sealed, errors.writes_nothing():
        raise errors.VaultSealedError("x")
    assert not sealed.value.changed_nothing
