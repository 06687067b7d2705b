"""Logs of every process: JSON lines on stderr that hold no secret.

Any process may import this. Three nets, each for its own case: values under a name that says secret are replaced, text in the shape of a
token, a key or a password is replaced wherever it stands, and a protobuf message is never printed. Exceptions are written without local
variables.
"""

from __future__ import annotations

import datetime
import enum
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePath
from typing import Any, TextIO

import structlog

from services.common.errors import LeasegateError

LEVELS = ("debug", "info", "warning", "error")
_LEVEL_OF = {name: logging.getLevelName(name.upper()) for name in (*LEVELS, "critical")} | {"exception": logging.ERROR}
OWN_LOGGERS = ("__main__", "services", "watcher", "cli", "deploy")
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
"""Texts that are so short come again and again (methods, callers, events), and searching one takes 4 to 10
microseconds. Only those are kept in which nothing was found: what may be a secret must not stay in memory for a log's
sake."""

_OWN_KEYS = frozenset({"level", "logger", "process", "timestamp"})
"""Written by this module alone, so that they are not searched for secrets, which takes most of the time of a line."""


def configure(level: str = "info", *, process: str) -> None:
    """Send every log of this process, structlog's and the standard library's, to stderr as JSON lines.

    Args:
        level: One of ``LEVELS``.
        process: Name that each line carries under ``process``.
    """
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(process), _trace, redact],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    # Our own lines do not go by way of ``logging``, whose records and formatters take three quarters of the time of a
    # line.
    handler = _Stderr()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")  # at debug, clients of Kubernetes and HTTP print bodies
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[_by_level, *_shared(process), _trace, redact, structlog.processors.JSONRenderer()],
        logger_factory=_Lines,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module: ``logger(__name__)``; events are short lower-case phrases, everything else is a
    keyword.
    """
    found: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return found


def bounded(text: str, chars: int = 300) -> str:
    """Cut foreign text to ``chars`` characters, valid as UTF-8, saying that it was cut."""
    text = text.encode(errors="replace").decode()
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


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Structlog processor: what remains of an event may be printed."""
    return {key: _printable(key, value) for key, value in event.items()}


def trace(err: BaseException) -> str:
    """The traceback of ``err`` and its causes without local variables, scrubbed, its end kept if it is long."""
    text = scrub("".join(traceback.format_exception(err)))
    return text if len(text) <= TRACE_CHARS else f"…{text[1 - TRACE_CHARS :]}"


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is ``sys.stderr`` at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Lines:
    """Writes the lines of one logger, under the level that ``logging`` has for its name."""

    _one_at_a_time = threading.Lock()

    def __init__(self, name: str) -> None:
        self.name, self.is_wanted = name, logging.getLogger(name).isEnabledFor

    def _write(self, line: str) -> None:
        with (
            self._one_at_a_time,
            suppress(OSError),
        ):  # a full disk under the log must end nobody's work, as with the standard library's
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = _write


def _printable(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float) or key in _OWN_KEYS:
        return value
    if _is_secret(key):
        return HIDDEN
    if isinstance(value, str):
        return value if key == TRACE_KEY else bounded(scrub(value), TEXT_CHARS)
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


def _trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    err = found[1] if isinstance(found, tuple) else found
    if isinstance(err, BaseException):
        event[TRACE_KEY] = trace(err)
    return event


def _by_level(logger: _Lines, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not logger.is_wanted(_LEVEL_OF[method]):
        raise structlog.DropEvent
    return event


def _shared(process: str) -> list[structlog.typing.Processor]:
    def name(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name,
    ]
