"""A circuit breaker for each Vault: who is known not to answer is not asked, so that no worker and no caller waits for its timeouts.

After some failures in a row calls fail at once, as not sent, until a probe (``sys/health``) answers; the pauses between probes grow. A
sealed Vault counts, too: it answers, but to nothing that we ask. Every other answer, refusals among them, shows that Vault is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from services.common.errors import (
    DeadlineTooShortError,
    LeasegateError,
    PathNotOwnedError,
    VaultAuthMissingError,
    VaultSealedError,
    VaultUnavailableError,
)
from services.common.logs import logger
from services.common.rpc import deadline
from services.common.vault.client import Vault
from services.common.vault.response import Answer, VaultNotFoundError
from services.common.vault.transport import VaultUnreachedError

FAILURES = 3
FAIR_S = 1.0
"""A call that had less time than this and used it up says nothing about Vault."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
_NOT_SENT = (DeadlineTooShortError, VaultAuthMissingError, PathNotOwnedError)
_LOG = logger(__name__)
Probe = Callable[[], bool]


class Key(NamedTuple):
    """Which Vault."""

    server: str
    vault_namespace: str


class CircuitOpenError(VaultUnreachedError):
    """Vault is known not to answer: nothing was sent."""


@dataclass(slots=True)
class _Circuit:
    """What is known of one Vault.

    Attributes:
        failures: In a row.
        pause_s: Until the next probe; 0 while calls go through.
        probe_at: When that is, monotonic.
        why: The last failure.
    """

    failures: int = 0
    pause_s: float = 0.0
    probe_at: float = 0.0
    why: str = ""


class CircuitBreakers:
    """The breakers of all Vaults. Safe for threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[Key, _Circuit] = {}

    def guard(self, vault: Vault, key: Key, *, probe: Probe) -> Vault:
        """The same Vault, asked only while it is known to answer.

        Args:
            vault: Whom to ask.
            key: Which one that is.
            probe: Whether it answers and is unsealed; takes two seconds at most.
        """
        return _GuardedVault(self, vault, key, probe)

    def open_for(self) -> dict[Key, bool]:
        """Of every Vault that was asked, whether its calls fail at once now."""
        with self._lock:
            return {key: bool(circuit.pause_s) for key, circuit in self._circuits.items()}

    def pausing(self) -> frozenset[Key]:
        """The Vaults that are not to be asked now, and not yet to be probed."""
        with self._lock:
            return frozenset(
                key for key, circuit in self._circuits.items() if circuit.pause_s and circuit.probe_at > self._clock()
            )

    def check(self, key: Key, *, probe: Probe) -> None:
        """Let a call through or refuse it; who comes first after a pause probes.

        Raises:
            CircuitOpenError: That Vault does not answer.
        """
        with self._lock:
            circuit = self._circuits.setdefault(key, _Circuit())
            if not circuit.pause_s:
                return
            now = self._clock()
            if now < circuit.probe_at:
                raise _circuit_open(circuit, wait_s=circuit.probe_at - now, address=key.server)
            circuit.probe_at = now + circuit.pause_s  # nobody else probes meanwhile
        if probe():
            self.succeeded(key)
            return
        with self._lock:
            circuit.pause_s = min(circuit.pause_s * 2, LONGEST_PAUSE_S)
            circuit.probe_at = self._clock() + circuit.pause_s
            raise _circuit_open(circuit, wait_s=circuit.pause_s, address=key.server)

    def succeeded(self, key: Key) -> None:
        """Vault has answered."""
        with self._lock:
            circuit = self._circuits.setdefault(key, _Circuit())
            if not circuit.failures:
                return
            was_open, self._circuits[key] = bool(circuit.pause_s), _Circuit()
        if was_open:
            _LOG.info("Vault answers again", address=key.server)

    def failed(self, key: Key, err: LeasegateError) -> None:
        """Vault has not answered, or is sealed."""
        with self._lock:
            circuit = self._circuits.setdefault(key, _Circuit())
            circuit.failures += 1
            circuit.why = err.message
            opens = circuit.failures >= FAILURES and not circuit.pause_s
            if opens:
                circuit.pause_s = FIRST_PAUSE_S
                circuit.probe_at = self._clock() + circuit.pause_s
        if opens:
            _LOG.warning(
                "Vault does not answer: it is only probed until it does", address=key.server, reason=err.reason
            )


class _GuardedVault:
    """A Vault behind its breaker."""

    def __init__(self, breakers: CircuitBreakers, vault: Vault, key: Key, probe: Probe) -> None:
        self._breakers, self._vault, self._key, self._probe = breakers, vault, key, probe

    @property
    def address(self) -> str:
        return self._vault.address

    def read(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        return self._call(lambda: self._vault.read(path, token=token, timeout_s=timeout_s))

    def list(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        return self._call(lambda: self._vault.list(path, token=token, timeout_s=timeout_s))

    def write(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        return self._call(lambda: self._vault.write(path, body, token=token, timeout_s=timeout_s))

    def delete(self, path: str, *, token: str | None = None, timeout_s: float | None = None) -> Answer:
        return self._call(lambda: self._vault.delete(path, token=token, timeout_s=timeout_s))

    def _call(self, call: Callable[[], Answer]) -> Answer:
        self._breakers.check(self._key, probe=self._probe)
        granted_s = deadline.remaining_s()
        try:
            answer = call()
        except (VaultUnavailableError, VaultSealedError) as err:
            if not _ran_out(granted_s):
                self._breakers.failed(self._key, err)
            raise
        except _NOT_SENT:
            raise
        except (LeasegateError, VaultNotFoundError):
            self._breakers.succeeded(self._key)
            raise
        self._breakers.succeeded(self._key)
        return answer


def _ran_out(granted_s: float | None) -> bool:
    """Whether it was the caller's own haste that ended a call: else who gives Vault no time would open its breaker for
    everybody.
    """
    left_s = deadline.remaining_s()
    return granted_s is not None and granted_s < FAIR_S and left_s is not None and left_s <= granted_s / 10


def _circuit_open(circuit: _Circuit, *, wait_s: float, address: str) -> CircuitOpenError:
    text = f"{circuit.why}; it is not asked again for {max(wait_s, 0.1):.1f} s"
    return CircuitOpenError(text, retry_after_s=max(wait_s, 0.1), address=address)
