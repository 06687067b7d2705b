"""A benchmark's watch: it closes in order, and a failure reaches the callers that wait for it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.http import Json, Lines
from benchmarks.watching import Events, Watched, WatchFailedError, watching
from tests.certificates import LOCALHOST, Authority

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENTS = 1000
"""Several times as many as fit into the reader's buffer (8 KiB), so that most are still to be decrypted when it is
closed.
"""


def _line(number: int, kind: str = "ADDED") -> bytes:
    return (
        json.dumps({"type": kind, "object": {"metadata": {"name": f"r-{number}"}, "message": "too old"}}).encode()
        + b"\n"
    )


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def _name_of(item: Json) -> str:
    return str(item["metadata"]["name"])


class Ends:
    """Both ends of a TLS connection over a socket pair of this process."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        pair = Authority(folder).issue("server", *LOCALHOST)
        mine, theirs = map(stack.enter_context, socket.socketpair())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
        accepted: list[ssl.SSLSocket] = []
        thread = threading.Thread(target=lambda: accepted.append(context.wrap_socket(theirs, server_side=True)))
        thread.start()
        self.client = stack.enter_context(
            ssl.create_default_context(cafile=str(pair.ca)).wrap_socket(mine, server_hostname="localhost")
        )
        thread.join()
        self.server = stack.enter_context(accepted[0])

    def lines(self) -> Lines:
        """The client's side of a watch whose head has come."""
        self.server.sendall(_HEAD)
        connection = http.client.HTTPSConnection("localhost")
        connection.sock = self.client
        connection.request("GET", "/")
        return Lines(connection)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    with ExitStack() as stack:
        yield Ends(tmp_path, stack)


def _fail(ends: Ends, sent: bytes, *, waited_for: str) -> None:
    with watching(lambda _version: ends.lines(), _name_of, version="1") as watched:
        ends.server.sendall(sent)
        watched.wait([waited_for], timeout_s=600)


def test_what_is_closed_while_it_is_read_gives_whole_lines_and_ends(ends: Ends) -> None:
    lines = ends.lines()
    ends.server.sendall(_chunk(b"".join(map(_line, range(_EVENTS)))))
    reading = iter(lines)
    first = next(reading)
    lines.close()
    names = [_name_of(json.loads(line)["object"]) for line in (first, *reading)]
    assert names == [f"r-{number}" for number in range(len(names))]


def test_a_watch_that_is_closed_in_the_midst_of_a_line_has_not_failed(ends: Ends) -> None:
    with watching(lambda _version: ends.lines(), _name_of, version="1") as watched:
        ends.server.sendall(_chunk(_line(1)) + _chunk(_line(2))[:20])
        watched.wait(["r-1"], timeout_s=30)
    assert list(watched.came) == ["r-1"]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (_chunk(_line(1, "ERROR")), "too old"),
        (_chunk(b"\n"), "JSONDecodeError"),
        (b"nonsense\r\n", "IncompleteRead"),
    ],
    ids=["error", "no JSON", "no chunk"],
)
def test_whoever_waits_hears_at_once_why_a_watch_failed(ends: Ends, sent: bytes, why: str) -> None:
    with pytest.raises(WatchFailedError, match=why) as raised:
        _fail(ends, sent, waited_for="r-1")
    assert raised.value.__cause__ is not None


def test_a_failure_that_nobody_waited_for_is_raised_at_the_end(ends: Ends) -> None:
    with pytest.raises(WatchFailedError, match="too old"):
        _fail(ends, _chunk(_line(1)) + _chunk(_line(2, "ERROR")), waited_for="r-1")


class Answers:
    """Answers of a server that ends each after these events."""

    def __init__(self, *answers: list[Json]) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def __call__(self, version: str) -> Any:
        self.asked.append(version)
        return Answer([json.dumps(event).encode() for event in (self.answers.pop(0) if self.answers else [])])


class Answer(list[bytes]):
    """One answer."""

    def close(self) -> None:
        """Nothing is left open."""


def _event(number: int) -> Json:
    return {"type": "ADDED", "object": {"metadata": {"name": f"r-{number}", "resourceVersion": str(number)}}}


def test_a_watch_that_the_server_ends_goes_on_from_the_last_event() -> None:
    answers, seen = Answers([_event(7), _event(8)], [], [_event(9)]), Watched()
    seen.follow(Events(answers, "5"), _name_of)
    assert list(seen.came) == ["r-7", "r-8", "r-9"]
    assert answers.asked[:4] == ["5", "8", "8", "9"]
    with pytest.raises(WatchFailedError, match="5 times without an event"):
        seen.check()
