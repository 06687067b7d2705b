"""The errors of this command: one line that says what is wrong and what to do next."""

from __future__ import annotations

import grpc

from services.common import logs
from services.common.errors import CallerNotAllowedError, LeasegateError, PeerUnavailableError
from services.common.texts import escaped


class CommandError(Exception):
    """An error for people. Its text has no secret."""


def error_text(err: LeasegateError) -> str:
    """An error of the service in one line, with what to do."""
    text = escaped(logs.scrub(" ".join(err.message.split()))).rstrip(".")
    return f"{text}: {hint}" if (hint := _hint(err)) else f"{text}."


def _hint(err: LeasegateError) -> str:
    if isinstance(err, PeerUnavailableError):
        return (
            "check that the access service runs there (--access) and accepts this certificate (--tls-cert, --tls-ca)."
        )
    if isinstance(err, CallerNotAllowedError):
        return (
            "use the operator's certificate (--tls-cert), or let the service --allow this one for "
            "leasegate.access.v1.OperatorService."
        )
    if err.code is grpc.StatusCode.UNIMPLEMENTED:
        return "the service is older than this program."
    if err.retry_after_s is not None:
        return f"try again in {err.retry_after_s:.0f} s."
    return ""
