"""What goes wrong around the access service in the quick path: faults of Vault on the wire, and of the ledger's disk.

A call meets at most one: nothing was done (no connection, reset, 503 sealed, 403, 429), or everything was (reset, 500), or the client gave
up: the call is done later by a thread of its own, or the connection is really cut in the middle, so that Vault breaks it off.
"""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from services.common.errors import VaultUnavailable
from services.common.vault.transport import Transport, VaultUnreached
from tests.chaos.fate import Fate

Raw = tuple[int, bytes, str]
Exchange = Callable[[float], Raw]

CALL_S = 20.0
CUT_REST_S = 0.3
"""After a cut, Vault may still be at what it began for so long."""

_REFUSED = {"sealed": 503, "denied": 403, "throttled": 429}
_KINDS = ("unreached", "reset", "sealed", "denied", "throttled", "lost answer", "failed", "late", "cut", "cut", "lost answer")
_DISK = sa.exc.OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))


class Weather:
    """Decides by chance which call fails and how; safe for threads.

    Attributes:
        fate: The life that the calls belong to.
        bad: Whether anything fails.
        seen: How often which fault was met.
    """

    def __init__(self, rng: random.Random) -> None:
        self.fate, self.bad = Fate(None), False
        self.seen: Counter[str] = Counter()
        self._rng, self._lock = rng, threading.Lock()
        self._reading, self._cut_at = 0, 0.0
        self._late: list[threading.Thread] = []

    def still(self) -> bool:
        """Whether no read of ours can be under way in Vault, so that the clock may leap."""
        with self._lock:
            return self._reading == 0 and time.monotonic() - self._cut_at > CUT_REST_S

    def settle(self) -> None:
        """Wait for what goes on without its caller."""
        for thread in self._late:
            thread.join(CALL_S)
        self._late.clear()

    def exchange(self, method: str, url: str, send: Exchange, budget_s: float) -> Raw:
        """Send one call, or what becomes of it."""
        self.fate.check()
        kind = self._draw(method, url)
        if kind in ("unreached", "reset"):
            raise (VaultUnreached if kind == "unreached" else VaultUnavailable)("chaos: no connection", address="")
        if kind in _REFUSED:
            return _REFUSED[kind], json.dumps({"errors": [f"chaos: {kind}"]}).encode(), ""
        if kind == "late":
            self._send_late(url, send)
            raise VaultUnavailable("chaos: no answer in time", address="")
        answer = self._send(url, send, budget_s, cut=kind == "cut")
        self.fate.check()
        if kind == "lost answer":
            raise VaultUnavailable("chaos: the connection broke off", address="")
        return (500, json.dumps({"errors": ["chaos: internal error"]}).encode(), "") if kind == "failed" else answer

    def _draw(self, method: str, url: str) -> str:
        with self._lock:
            if not self.bad or "/auth/approle" in url or self._rng.random() > (0.12 if method == "GET" else 0.04):
                return ""
            kind = self._rng.choice(_KINDS)
            self.seen[kind] += 1
            return kind

    def _send(self, url: str, send: Exchange, budget_s: float, *, cut: bool) -> Raw:
        self._count(url, 1)
        try:
            return send(self._short() if cut else budget_s)
        finally:
            self._count(url, -1)
            if cut:
                with self._lock:
                    self._cut_at = time.monotonic()

    def _short(self) -> float:
        with self._lock:
            return self._rng.uniform(0.001, 0.02)

    def _send_late(self, url: str, send: Exchange) -> None:
        with self._lock:
            pause_s = self._rng.uniform(0.0, 0.15)
        self._count(url, 1)

        def run() -> None:
            try:
                time.sleep(pause_s)
                send(CALL_S)
            except VaultUnavailable:
                pass  # its caller has long given up
            finally:
                self._count(url, -1)

        thread = threading.Thread(target=run, daemon=True)
        self._late.append(thread)
        thread.start()

    def _count(self, url: str, by: int) -> None:
        if "/creds/" in url and "/sys/" not in url:
            with self._lock:
                self._reading += by

    def disk(self) -> None:
        """Asked before each commit of the ledger.

        Raises:
            sqlalchemy.exc.OperationalError: The disk is full.
        """
        with self._lock:
            full = self.bad and self._rng.random() < 0.01
            if full:
                self.seen["disk full"] += 1
        if full:
            raise _DISK


def transport_in(weather: Weather) -> type[Transport]:
    """The product's own way to Vault, in this weather."""

    class InWeather(Transport):
        def _exchange(self, method: str, url: str, payload: bytes | None, headers: dict[str, str], budget_s: float) -> Raw:
            def send(within_s: float) -> Raw:
                return Transport._exchange(self, method, url, payload, headers, within_s)

            return weather.exchange(method, url, send, budget_s)

    return InWeather


def ledger_listeners(weather: Weather) -> dict[str, Callable[[Any], None]]:
    """What SQLAlchemy calls before each BEGIN and COMMIT of any engine."""

    def begin(connection: Any) -> None:
        weather.fate.check()
        if connection.get_execution_options().get("leasegate_writes"):
            weather.fate.pass_by("ledger.begin")

    def commit(connection: Any) -> None:
        weather.fate.check()
        if connection.get_execution_options().get("leasegate_writes"):
            weather.fate.pass_by("ledger.commit")
            weather.disk()

    return {"begin": begin, "commit": commit}
