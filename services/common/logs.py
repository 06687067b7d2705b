"""Logs of every process: JSON lines on stderr that hold no secret.

Any process may import this. Three rules, each for its own case: a value under a name that says secret is replaced, text
in the shape of a token, a key or a password is replaced wherever it stands, and a protobuf message is never printed.
Exceptions are written without local variables.
"""

from __future__ import annotations

import datetime
import enum
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from services.common.errors import LeasegateError
from services.common.texts import escaped, escaped_lines

LEVELS = ("debug", "info", "warning", "error")
OWN_LOGGERS = ("__main__", "services", "watcher", "cli", "deploy", "dev")
TEXT_CHARS = 2000
TRACE_CHARS = 8000
TRACE_KEY = "exception"
HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(
    r"password|passwd|token|jwt|secret_?id|private_?key|lease_?id|authorization|credential|client_secret", re.IGNORECASE
)
_HARMLESS_NAME = re.compile(r"_(s|count|path|file|name|type)$|^token_(reviewer|policies|role)$", re.IGNORECASE)
_SECRET_TEXT = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), HIDDEN),
    (re.compile(r"\bhv[sbr]\.[\w-]{8,}|\b[sbr]\.[A-Za-z0-9]{20,}"), HIDDEN),  # tokens of Vault and OpenBao
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]+(\.[\w-]*)?"), HIDDEN),  # JWT
    (re.compile(r"(://[^\s:/@]*:)[^\s@]+@"), rf"\1{HIDDEN}@"),  # password of a URL
    (re.compile(r"(\bpassword\s+)'[^']*'", re.IGNORECASE), rf"\1'{HIDDEN}'"),  # SQL
    (re.compile(r"(/(?:static-)?creds/[^\s/\"']+/)[\w-]+(\.[\w-]+)?"), rf"\1{HIDDEN}"),  # lease id
    (
        re.compile(
            r"((?:password|passwd|token|jwt|secret_?id|private_?key)[\"']?\s*[:=]\s*)"
            # ... but not the sentence about a field of that name, as in "data.password: is missing".
            r"(\"[^\"]*\"|'[^']*'|(?!(?:is|has|must|needs|was|may)\s)[^\s,;)}\"']+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)

_WORD = re.compile(r"[\w-]*")
"""Matches none of these, as each of them has a blank or a mark in it."""
_REPEATED_CHARS, _REPEATED = 80, 512
_harmless: set[str] = set()
"""Short texts in which nothing was found, as they come again and again (methods, callers, events) and a search takes 4
to 10 microseconds. A text with a secret is never kept: it must not stay in memory for the sake of a log.
"""

_context: ContextVar[Mapping[str, Any]] = ContextVar("log_context", default=MappingProxyType({}))
_process = ""
_one_line_at_a_time = threading.Lock()


class Logger:
    """Writes the lines of one module, as ``logging`` has the level for its name."""

    __slots__ = ("_is_enabled", "_name")

    def __init__(self, name: str) -> None:
        self._name, self._is_enabled = name, logging.getLogger(name).isEnabledFor

    def debug(self, event: str, **fields: Any) -> None:
        """Log what helps a developer."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happens in ordinary work."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what an operator may have to look at."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what an operator has to look at; ``exc_info=err`` adds a traceback."""
        self._log(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, event, {"exc_info": True, **fields})

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._is_enabled(level):
            _write(level, self._name, event, fields)


def configure(level: str = "info", *, process: str) -> None:
    """Send every log of this process, including those of libraries, to stderr as JSON lines.

    Args:
        level: One of ``LEVELS``; for Leasegate's own loggers.
        process: Name that each line carries under ``process``.
    """
    global _process
    _process = process
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel("WARNING")  # at debug, clients of Kubernetes and HTTP print bodies
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def logger(name: str) -> Logger:
    """Return the logger of a module, ``logger(__name__)``: an event is a short lower-case phrase, all else keywords."""
    return Logger(name)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line that is written inside."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def bounded(text: str, chars: int = 300) -> str:
    """One line of foreign text: no character that a terminal carries out or hides, and cut to ``chars`` characters."""
    text = escaped(text.encode(errors="replace").decode())
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def scrub(text: str) -> str:
    """Replace what looks like a token, a key, a password or a whole lease id."""
    if _WORD.fullmatch(text):
        return text
    if text in _harmless:
        return text
    found = _scrubbed(text)
    if found == text and len(text) <= _REPEATED_CHARS:
        if len(_harmless) >= _REPEATED:
            _harmless.clear()
        _harmless.add(text)
    return found


def _scrubbed(text: str) -> str:
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def trace(err: BaseException) -> str:
    """The traceback of ``err`` and its causes without local variables, scrubbed, its end kept if it is long."""
    text = escaped_lines(scrub("".join(traceback.format_exception(err))))
    return text if len(text) <= TRACE_CHARS else f"…{text[1 - TRACE_CHARS :]}"


class _LibraryHandler(logging.Handler):
    """Writes the lines of libraries, which log by the standard library's ``logging``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; one whose arguments do not fit its text ends nobody's work."""
        try:
            event = record.getMessage()
        except Exception:  # ``handleError`` would print the arguments, which may be secret
            event = "a log record does not fit its arguments"
        _write(record.levelno, record.name, event, {"exc_info": record.exc_info})


def _write(level: int, name: str, event: str, fields: dict[str, Any]) -> None:
    found = fields.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    err = found[1] if isinstance(found, tuple) else found
    line = {key: _printable(key, value) for key, value in {**fields, "event": event, **_context.get()}.items()}
    if isinstance(err, BaseException):
        line[TRACE_KEY] = trace(err)
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    line |= {"level": logging.getLevelName(level).lower(), "logger": name, "timestamp": now, "process": _process}
    text = json.dumps(line) + "\n"
    with _one_line_at_a_time, suppress(OSError):  # a full disk under the log must end nobody's work
        sys.stderr.write(text)
        sys.stderr.flush()


def _printable(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _is_secret(key):
        return HIDDEN
    if isinstance(value, str):
        return bounded(scrub(value), TEXT_CHARS)
    if isinstance(value, Mapping):
        return {str(name): _printable(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_printable(key, item) for item in value]
    return _opaque(value)


@lru_cache(maxsize=512)
def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def _opaque(value: object) -> str:
    if isinstance(value, LeasegateError | PurePath | datetime.datetime | enum.Enum):
        return bounded(scrub(str(value)), TEXT_CHARS)
    return f"[{type(value).__qualname__}]"  # a protobuf message above all: Python prints its debug_redact fields
