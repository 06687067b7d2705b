"""Reads the fields of an object that any user may have written, and collects what is wrong by path.

The CRDs' schemas refuse most of it, but an AppBinding's CRD may be another product's, and an object may be older than
its schema.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from google.protobuf import duration_pb2

from services.common.durations import parse_seconds
from services.common.errors import FieldViolation, SpecInvalidError

LONGEST_S = 315_576_000_000.0
"""The longest span of a ``google.protobuf.Duration``."""
_MISSING = "is missing"


class Fields:
    """One object or part of one, whose fields are read by type.

    A wrong field reads as if it were not there; ``check`` raises for all of them at once.

    Args:
        value: What stands there; anything but a mapping counts as wrong, None as empty.
        path: Path of it, such as ``spec.postgres``.
    """

    def __init__(self, value: object, path: str, *, wrong: list[FieldViolation] | None = None) -> None:
        self.path = path
        self._wrong = [] if wrong is None else wrong
        self._value: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        if value is not None and not isinstance(value, Mapping):
            self._wrong.append(FieldViolation(path, "must be an object"))

    def check(self) -> None:
        """Raise for everything that was wrong so far.

        Raises:
            SpecInvalidError: Names each wrong field.
        """
        if self._wrong:
            raise SpecInvalidError.of(*self._wrong)

    def wrong(self, name: str, description: str) -> None:
        """Say that a field is wrong."""
        self._wrong.append(FieldViolation(f"{self.path}.{name}" if name else self.path, description))

    def has(self, name: str) -> bool:
        """Whether the field is there at all."""
        return self._value.get(name) is not None

    def text(self, name: str, *, required: bool = False) -> str:
        """A string; empty where there is none."""
        value = self._value.get(name)
        if value is None or value == "":
            if required:
                self.wrong(name, _MISSING)
            return ""
        if not isinstance(value, str):
            self.wrong(name, "must be a string")
            return ""
        return value

    def number(self, name: str) -> int | None:
        """A whole number."""
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, "must be a whole number")
            return None
        return value

    def flag(self, name: str) -> bool:
        """True or false; false where there is none."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            self.wrong(name, "must be true or false")
            return False
        return value

    def texts(self, name: str, *, required: bool = False) -> list[str]:
        """A list of strings."""
        value = self._list(name)
        if required and not value:
            self.wrong(name, "needs at least one item" if self.has(name) else _MISSING)
        if not all(isinstance(item, str) for item in value):
            self.wrong(name, "must be a list of strings")
            return []
        return value

    def seconds(self, name: str) -> float | None:
        """A span of time like ``1h`` or ``3600``; None where there is none or it is 0."""
        value = self._value.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.wrong(name, "must be a span like 1h, 90m or 3600 (seconds)")
            return None
        try:
            seconds = parse_seconds(value)
        except ValueError as err:
            self.wrong(name, str(err))
            return None
        if seconds > LONGEST_S:
            self.wrong(name, "is longer than 10,000 years")
            return None
        return seconds or None

    def duration(self, name: str) -> duration_pb2.Duration | None:
        """A span of time as the services take it; None where there is none or it is 0."""
        seconds = self.seconds(name)
        if seconds is None:
            return None
        found = duration_pb2.Duration()
        found.FromNanoseconds(round(seconds * 1e9))
        return found

    def base64(self, name: str) -> bytes:
        """Bytes as base64; empty where there are none."""
        text = self.text(name)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self.wrong(name, "is no base64")
            return b""

    def child(self, name: str, *, required: bool = False) -> Fields:
        """The fields of a member."""
        if required and not self.has(name):
            self.wrong(name, _MISSING)
        return Fields(self._value.get(name), f"{self.path}.{name}", wrong=self._wrong)

    def children(self, name: str) -> list[Fields]:
        """The fields of each member of a list."""
        return [
            Fields(item, f"{self.path}.{name}[{number}]", wrong=self._wrong)
            for number, item in enumerate(self._list(name))
        ]

    def _list(self, name: str) -> list[Any]:
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(name, "must be a list")
            return []
        return value
