"""LeasegateError to google.rpc.Status and back: the only place that knows both.

A status carries ErrorInfo (reason, domain, metadata) always, RetryInfo where a retry helps, BadRequest where fields are
wrong (https://google.aip.dev/193). Lost at the boundary: the cause, and what is cut because a status travels in a
header, of which gRPC takes 8 KiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common import errors
from services.common.errors import FieldViolation, LeasegateError, SpecInvalidError
from services.common.logs import bounded

DOMAIN = "leasegate.dev"
MESSAGE_BYTES = 600
METADATA_CHARS = 200
DESCRIPTION_BYTES = 400
"""Of a wrong field: what is wrong with it, and what to do, which comes last."""
MAX_METADATA = 6
MAX_BYTES = 4500
"""Of one status: base64 makes 6000 of it, and the message stands beside it once more, a byte as "%E2" where it is not
ASCII.
"""

_EFFECTS, _NO_EFFECTS = "effects", "none"
"""Metadata of an error that proves that the call wrote nothing to Vault (leasegate.errors.v1.ErrorReason)."""

_ANY_BYTES = 100
"""What packing adds to a detail."""

M = TypeVar("M", bound=Message)

_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_UNKNOWN_REASON: Mapping[grpc.StatusCode, type[LeasegateError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: SpecInvalidError,
    grpc.StatusCode.PERMISSION_DENIED: errors.CallerNotAllowedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.CallerNotAllowedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExpiredError,
    grpc.StatusCode.UNAVAILABLE: errors.PeerUnavailableError,
    grpc.StatusCode.CANCELLED: errors.PeerUnavailableError,  # a server that stops cancels what does not end in time
}


def classes() -> Mapping[str, type[LeasegateError]]:
    """Return every concrete error class by its reason; of several with one reason, the most general one."""
    return {cls.reason: cls for cls in reversed(list(_descendants(LeasegateError)))}


def to_status(err: LeasegateError) -> status_pb2.Status:
    """Make the google.rpc.Status that says ``err``, within ``MAX_BYTES``."""
    status = status_pb2.Status(code=err.code.value[0], message=_short(err.message))
    metadata = _bounded_values(err.metadata) | ({_EFFECTS: _NO_EFFECTS} if err.changed_nothing else {})
    info = error_details_pb2.ErrorInfo(reason=err.reason, domain=DOMAIN, metadata=metadata)
    _add(status, info)
    if err.retry_after_s is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=_duration(err.retry_after_s)))
    if isinstance(err, SpecInvalidError) and err.violations:
        _add(status, _bad_request(err.violations, room=MAX_BYTES - status.ByteSize() - _ANY_BYTES))
    return status


def to_grpc(err: LeasegateError) -> grpc.Status:
    """The same as grpc's ``abort_with_status`` takes it."""
    status: grpc.Status = rpc_status.to_status(to_status(err))
    return status


def from_status(status: status_pb2.Status) -> LeasegateError:
    """Make the error of a status: the class of its reason, or, of an unknown reason, a class that fits its code."""
    info = _detail(status, error_details_pb2.ErrorInfo()) or error_details_pb2.ErrorInfo()
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    known = classes().get(info.reason) if info.domain == DOMAIN else None
    err = (known or _UNKNOWN_REASON.get(code, errors.InternalError))(status.message)
    err.changed_nothing = info.domain == DOMAIN and info.metadata.get(_EFFECTS) == _NO_EFFECTS
    err.metadata = {key: value for key, value in info.metadata.items() if key != _EFFECTS}
    if known is None:
        err.metadata |= {"code": code.name} | ({"reason": info.reason} if info.reason else {})
    retry = _detail(status, error_details_pb2.RetryInfo())
    err.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds() if retry else None
    bad = _detail(status, error_details_pb2.BadRequest())
    if isinstance(err, SpecInvalidError) and bad:
        err.violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    return err


def to_any(err: LeasegateError) -> any_pb2.Any:
    """The same within an answer, where a part of what was asked for has failed."""
    packed = any_pb2.Any()
    packed.Pack(to_status(err))
    return packed


def from_any(packed: any_pb2.Any) -> LeasegateError:
    """Make the error that a field with a google.rpc.Status says; anything else than a status is Internal."""
    found = status_pb2.Status()
    if not packed.Unpack(found):
        return errors.InternalError("an answer holds an error that is no google.rpc.Status")
    return from_status(found)


def from_rpc_error(err: grpc.RpcError, *, peer: str | None = None) -> LeasegateError:
    """Make the error that a failed call met.

    Plain statuses, which gRPC itself makes, become what a caller can act on: an unreachable peer is PeerUnavailable
    (retryable), an expired deadline DeadlineExpired, gRPC's own limit Overloaded.

    Args:
        err: As a stub raises it.
        peer: Address of the service, for the metadata.
    """
    call = cast("grpc.Call", err)  # grpc raises objects that are both, which its types do not say
    if rich := _rich(call):
        return from_status(rich)
    found = _UNKNOWN_REASON.get(call.code(), errors.InternalError)(_short(call.details() or "no details"))
    found.metadata = {"code": call.code().name} | ({"peer": peer} if peer else {})
    return found


def _rich(call: grpc.Call) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(call)
    except (ValueError, DecodeError):
        return None  # details that contradict the code are not from Leasegate
    return status


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _detail(status: status_pb2.Status, empty: M) -> M | None:
    return next((empty for packed in status.details if packed.Unpack(empty)), None)


def _short(text: str, most: int = MESSAGE_BYTES) -> str:
    raw = bounded(text, most).encode()
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "…"


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def _bounded_values(metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: bounded(value, METADATA_CHARS) for key, value in list(metadata.items())[:MAX_METADATA]}


def _bad_request(violations: Iterable[FieldViolation], *, room: int) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(
            field=bounded(violation.field, METADATA_CHARS),
            description=_short(violation.description, DESCRIPTION_BYTES),
        )
        if bad.ByteSize() > room:
            bad.field_violations.pop()
            break
    return bad


def _descendants(cls: type[LeasegateError]) -> Iterable[type[LeasegateError]]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)
