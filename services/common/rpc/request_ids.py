"""The id that connects the log lines of one request in all processes: taken from the caller or made, and passed on."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from services.common import logs

METADATA_KEY = "x-request-id"
_VALID = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


def current() -> str | None:
    """The id of the request at hand; None outside of one."""
    return _ID.get()


@contextmanager
def following(given: str | None) -> Iterator[str]:
    """Work inside under the id ``given``, or under a new one if that is none or is not 1 to 128 harmless characters."""
    found = given if given and _VALID.fullmatch(given) else uuid.uuid4().hex
    token = _ID.set(found)
    try:
        with logs.bound(request_id=found):
            yield found
    finally:
        _ID.reset(token)
