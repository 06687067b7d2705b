"""Faults around the access service in the quick path: Vault on the wire, and a full disk.

A call meets one fault at most. Either nothing was done (no connection, reset, 503 sealed, 403, 429), or everything was
(reset, 500), or the client gave up: then a thread makes the call later, or the connection is cut in the middle, so that
Vault breaks it off.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from services.common.errors import VaultUnavailableError
from services.common.names import CLEANUP_ROLE_PREFIX
from services.common.vault.transport import Transport, VaultUnreachedError
from tests.chaos.disk import FullDisk
from tests.chaos.fate import Fate

Raw = tuple[int, bytes, str]
Exchange = Callable[[float], Raw]

CALL_S = 20.0
CUT_REST_S = 0.3
"""After a cut, Vault may still be at what it began for so long."""

_REFUSED = {"503 sealed": 503, "403": 403, "429": 429}
_KINDS = (
    "no connection",
    "reset",
    *_REFUSED,
    "reset when done",
    "500 when done",
    "hang",
    "cut",
    "cut",
    "reset when done",
)
_DOUBTFUL = ("reset when done", "500 when done", "hang", "cut")
"""What leaves it open whether Vault made something."""


class Weather:
    """Decides by chance which call fails and how; safe for threads.

    Attributes:
        fate: The life that the calls belong to.
        bad: Whether anything fails.
        doubtful: Whether reads of credentials fail in a way that leaves their outcome open, and nothing else does.
        seen: How often which fault was met.
    """

    def __init__(self, rng: random.Random) -> None:
        self.fate, self.bad, self.doubtful = Fate(None), False, False
        self.seen: Counter[str] = Counter()
        self._rng, self._lock = rng, threading.Lock()
        self._reading, self._cut_at = 0, 0.0
        self._late: list[threading.Thread] = []
        self._disk = FullDisk()

    def calm(self) -> None:
        """Nothing fails any more; waits for what goes on without its caller."""
        self.bad = self.doubtful = False
        self._disk.clear()
        for thread in self._late:
            thread.join(CALL_S)
        self._late.clear()

    def still(self) -> bool:
        """Whether none of its reads can be under way in Vault, so that the clock may leap."""
        with self._lock:
            return self._reading == 0 and time.monotonic() - self._cut_at > CUT_REST_S

    def disk(self, *, full: bool) -> None:
        """Whether the ledger can be written."""
        if full:
            self.seen["disk full"] += 1
            self._disk.fill()
        else:
            self._disk.clear()

    def exchange(self, method: str, url: str, send: Exchange, budget_s: float) -> Raw:
        """Send one call, or what becomes of it."""
        self.fate.check()
        kind = self._draw(method, url)
        if kind in ("no connection", "reset"):
            raise (VaultUnreachedError if kind == "no connection" else VaultUnavailableError)(
                f"chaos: {kind}", address=""
            )
        if kind in _REFUSED:
            return _REFUSED[kind], json.dumps({"errors": [f"chaos: {kind}"]}).encode(), ""
        if kind == "hang":
            self._send_late(url, send)
            raise VaultUnavailableError("chaos: no answer in time", address="")
        answer = self._send(url, send, budget_s, cut=kind == "cut")
        self.fate.check()
        if kind == "reset when done":
            raise VaultUnavailableError("chaos: the connection broke off", address="")
        return (
            (500, json.dumps({"errors": ["chaos: internal error"]}).encode(), "") if kind == "500 when done" else answer
        )

    def _draw(self, method: str, url: str) -> str:
        with self._lock:
            if self.doubtful:
                read = method == "GET" and "/creds/" in url and CLEANUP_ROLE_PREFIX not in url
                kind = self._rng.choice(_DOUBTFUL) if read and self._rng.random() < 0.6 else ""
            elif not self.bad or "/auth/approle" in url or self._rng.random() > (0.1 if method == "GET" else 0.03):
                return ""
            else:
                kind = self._rng.choice(_KINDS)
            if kind:
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
            except VaultUnavailableError:
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


def transport_in(weather: Weather) -> type[Transport]:
    """The product's own way to Vault, in this weather."""

    class InWeather(Transport):
        def _exchange(
            self, method: str, url: str, payload: bytes | None, headers: dict[str, str], budget_s: float
        ) -> Raw:
            def send(within_s: float) -> Raw:
                return Transport._exchange(self, method, url, payload, headers, within_s)

            return weather.exchange(method, url, send, budget_s)

    return InWeather


def ledger_listeners(weather: Weather) -> dict[str, Callable[[Any], None]]:
    """What SQLAlchemy calls before each BEGIN and COMMIT of any engine: a dead process does neither."""

    def check(_connection: Any) -> None:
        weather.fate.check()

    return {"begin": check, "commit": check}
