"""What a watch has shown, and whoever waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.http import Json, Lines
from benchmarks.waiting import until

_ENDS = 5
"""So many ends in a row without an event, and it counts as failed."""


class WatchFailedError(RuntimeError):
    """A watch ended before its time; its cause says why."""


class Events:
    """The events of a watch until it is closed here; one that the server ends goes on after the last event."""

    def __init__(self, connect: Callable[[str], Lines], version: str) -> None:
        """Begin the watch.

        Args:
            connect: Begins an answer with the events after a resourceVersion.
            version: The first such.
        """
        self._connect, self._version = connect, version
        self._lines = connect(version)
        self._closing = threading.Lock()
        self._closed = False

    def __iter__(self) -> Iterator[Json]:
        idle = 0
        while idle < _ENDS:
            idle += 1
            for line in self._lines:
                idle, event = 0, json.loads(line)
                self._version = event["object"].get("metadata", {}).get("resourceVersion") or self._version
                yield event
            with self._closing:
                if self._closed:
                    return
                self._lines = self._connect(self._version)
        raise EOFError(f"the server ended it {_ENDS} times without an event")

    def close(self) -> None:
        """End it; whoever reads sees the end."""
        with self._closing:
            self._closed = True
            self._lines.close()


class Watched:
    """What a watch has shown of one kind, by the request's name.

    Attributes:
        came: When it was first seen to have what is waited for.
        went: When it was gone.
        newest: The object as it was last seen.
    """

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self.went: dict[str, float] = {}
        self.newest: dict[str, Json] = {}
        self._failure: Exception | None = None

    def wait(self, names: Sequence[str], *, timeout_s: float, gone: bool = False) -> None:
        """Wait until all of these were seen (to go).

        Raises:
            WatchFailedError: Nothing more will be seen.
            TimeoutError: They were not seen in time.
        """
        seen = self.went if gone else self.came

        def done() -> bool:
            self.check()
            return all(name in seen for name in names)

        until(done, timeout_s=timeout_s, what=f"{len(names)} requests", every_s=0.002)

    def check(self) -> None:
        """Raise what the watch ended with, if it has failed.

        Raises:
            WatchFailedError: It has.
        """
        if self._failure:
            raise WatchFailedError(f"a watch failed: {self._failure!r}") from self._failure

    def follow(self, events: Events, name_of: Callable[[Json], str]) -> None:
        """Note events until the watch is closed; what it fails with is for those who wait.

        Args:
            events: The watch.
            name_of: Names the request of an object that has what is waited for; empty if it has not.
        """
        try:
            for event in events:
                self._note(event, name_of, time.perf_counter())
        except Exception as err:  # of a thread of its own: whoever waits must hear of it, whatever it is
            self._failure = err

    def _note(self, event: Json, name_of: Callable[[Json], str], now: float) -> None:
        item = event["object"]
        if event["type"] == "ERROR":
            raise RuntimeError(str(item.get("message")))
        if event["type"] == "DELETED":
            self.went.setdefault(item["metadata"]["name"], now)
        elif name := name_of(item):
            self.newest[name] = item
            self.came.setdefault(name, now)


@contextmanager
def watching(connect: Callable[[str], Lines], name_of: Callable[[Json], str], *, version: str) -> Iterator[Watched]:
    """Follow a watch by a thread for as long as the block lasts.

    Args:
        connect: Begins an answer with the events after a resourceVersion.
        name_of: Names the request of an object that has what is waited for; empty if it has not.
        version: Where to begin.

    Raises:
        WatchFailedError: It failed, and nobody in the block has heard of it.
    """
    watched, events = Watched(), Events(connect, version)
    thread = threading.Thread(target=watched.follow, args=(events, name_of), daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        events.close()
        thread.join()
    watched.check()
