"""What a watch has shown, and whoever waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.http import Json, Lines
from benchmarks.waiting import until


class WatchFailed(RuntimeError):
    """A watch ended before its time; its cause says why."""


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
            WatchFailed: Nothing more will be seen.
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
            WatchFailed: It has.
        """
        if self._failure:
            raise WatchFailed(f"a watch failed: {self._failure!r}") from self._failure

    def follow(self, lines: Lines, name_of: Callable[[Json], str]) -> None:
        """Note events until the watch is closed; what it fails with is for those who wait.

        Args:
            lines: The watch.
            name_of: Names the request of an object that has what is waited for; empty if it has not.
        """
        try:
            for line in lines:
                self._note(json.loads(line), name_of, time.perf_counter())
        except Exception as err:  # of a thread of its own: whoever waits must hear of it, whatever it is
            self._failure = err
        else:
            self._failure = None if lines.closed else EOFError("the server ended it")

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
def watching(lines: Lines, name_of: Callable[[Json], str]) -> Iterator[Watched]:
    """Follow a watch by a thread for as long as the block lasts.

    Raises:
        WatchFailed: It failed, and nobody in the block has heard of it.
    """
    watched = Watched()
    thread = threading.Thread(target=watched.follow, args=(lines, name_of), daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        lines.close()
        thread.join()
    watched.check()
