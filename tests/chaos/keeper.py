"""Kills one process of the local stack and starts it again, as long as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from dev.stack.errors import StackError
from dev.stack.processes import Command, Process
from tests.chaos.spots import VARIABLES, Spot, Spots

READY_S = 20.0
DOUBT = Spot("claim.read", 1, False, 10.0)
"""Killed there, access leaves a user of whose lease it knows nothing."""


class Keeper:
    """Has a process die at one spot after the other.

    Args:
        process: Access service or watcher.
        spots: Says where.
        enough: Asked whether enough have died.

    Attributes:
        failed: What went wrong with the keeper itself.
    """

    def __init__(self, process: Process, spots: Spots, *, enough: Callable[[], bool]) -> None:
        self._process, self._spots, self._enough = process, spots, enough
        self._command: Callable[[], Command] = process._command
        self._armed = ""
        process._command = self._armed_command
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"keeper-{process.name}", daemon=True)
        self.failed: list[BaseException] = []

    def start(self) -> None:
        """Begin to kill."""
        self._thread.start()

    def stop(self) -> None:
        """Kill no more; the process runs, unarmed, when this returns."""
        self._stop.set()
        self._thread.join(timeout=120)
        self._armed = ""
        self._process.kill()
        self._process._command = self._command
        self._process.start()

    def _armed_command(self) -> Command:
        made = self._command()
        return (
            replace(made, env={**(made.env or {}), VARIABLES[self._process.name]: self._armed}) if self._armed else made
        )

    def _run(self) -> None:
        try:
            while not (self._stop.is_set() or self._enough()):
                spot = self._spots.next(self._process.name)
                if not spot.doubt or self._dies(DOUBT):
                    self._dies(spot)
        except Exception as err:
            self.failed.append(err)

    def _dies(self, spot: Spot) -> bool:
        """Start it and wait until it dies at a spot; one that does not is killed. Answers whether it did."""
        self._armed = spot.variable
        self._process.kill()
        self._process.start()
        if spot.name:
            with suppress(StackError):  # it may die before it is ready, or Vault be away
                self._process.wait_ready(timeout_s=READY_S)
        end = time.monotonic() + spot.patience_s
        while self._process.alive and time.monotonic() < end and not self._stop.is_set():
            self._stop.wait(0.02)
        if self._stop.is_set() and self._process.alive:
            return False  # it is killed by who stops, for the sake of a clean start
        met = bool(spot.name) and not self._process.alive
        self._spots.died(self._process.name, spot if met else None)
        self._process.kill()
        return met
