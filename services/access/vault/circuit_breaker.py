"""A circuit breaker for each Vault, so that no worker and no caller waits for the timeouts of one that does not answer.

After some failures in a row the circuit opens: calls fail at once, as not sent, until a probe (``sys/health``)
succeeds; the pauses between probes grow. A sealed Vault counts as a failure. Every other answer, refusals included,
shows that Vault is there.
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
"""A call that ran out of a shorter deadline than this says nothing about Vault."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
MOST = 1000
"""Circuits at once: teams choose addresses."""
_NOT_SENT = (DeadlineTooShortError, VaultAuthMissingError, PathNotOwnedError)
_LOG = logger(__name__)
Probe = Callable[[], bool]


class Key(NamedTuple):
    """Which Vault."""

    vault: str
    vault_namespace: str


class CircuitOpenError(VaultUnreachedError):
    """The circuit of a Vault is open: nothing was sent."""


@dataclass(slots=True)
class _Circuit:
    """The circuit of one Vault.

    Attributes:
        failures: Failures in a row.
        pause_s: Pause until the next probe; 0 while the circuit is closed.
        probe_at: When the next probe is due, monotonic.
        last_error: Text of the last failure.
    """

    failures: int = 0
    pause_s: float = 0.0
    probe_at: float = 0.0
    last_error: str = ""


class CircuitBreakers:
    """The circuits of all Vaults. Safe for threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._circuits: dict[Key, _Circuit] = {}

    def guard(self, vault: Vault, key: Key, *, probe: Probe) -> Vault:
        """A client that calls Vault only while the circuit is closed.

        Args:
            vault: The client to wrap.
            key: Which Vault it is.
            probe: Answers whether Vault answers and is unsealed; takes two seconds at most.
        """
        return _GuardedVault(self, vault, key, probe)

    def open_for(self) -> dict[Key, bool]:
        """Of every Vault that was called, whether its circuit is open."""
        with self._lock:
            return {key: bool(circuit.pause_s) for key, circuit in self._circuits.items()}

    def pausing(self) -> frozenset[Key]:
        """The Vaults whose circuit is open and whose next probe is not due yet."""
        with self._lock:
            return frozenset(
                key for key, circuit in self._circuits.items() if circuit.pause_s and circuit.probe_at > self._clock()
            )

    def check_closed(self, key: Key, *, probe: Probe) -> None:
        """Let a call through or refuse it; the first call after a pause probes.

        Raises:
            CircuitOpenError: The circuit is open.
        """
        with self._lock:
            circuit = self._circuit(key)
            if not circuit.pause_s:
                return
            now = self._clock()
            if now < circuit.probe_at:
                raise _circuit_open(circuit, wait_s=circuit.probe_at - now, address=key.vault)
            circuit.probe_at = now + circuit.pause_s  # no other call probes meanwhile
        if probe():
            self.record_success(key)
            return
        with self._lock:
            circuit.pause_s = min(circuit.pause_s * 2, LONGEST_PAUSE_S)
            circuit.probe_at = self._clock() + circuit.pause_s
            raise _circuit_open(circuit, wait_s=circuit.pause_s, address=key.vault)

    def _circuit(self, key: Key) -> _Circuit:
        """Return the circuit of a Vault; of too many the oldest goes, and opens again after a few failures."""
        if key not in self._circuits:
            while len(self._circuits) >= MOST:
                del self._circuits[next(iter(self._circuits))]
            self._circuits[key] = _Circuit()
        return self._circuits[key]

    def record_success(self, key: Key) -> None:
        """Count an answer of Vault, which closes its circuit."""
        with self._lock:
            circuit = self._circuit(key)
            if not circuit.failures:
                return
            was_open, self._circuits[key] = bool(circuit.pause_s), _Circuit()
        if was_open:
            _LOG.info("vault circuit closed", address=key.vault)

    def record_failure(self, key: Key, err: LeasegateError) -> None:
        """Count a call that Vault did not answer, or answered as sealed; enough in a row open its circuit."""
        with self._lock:
            circuit = self._circuit(key)
            circuit.failures += 1
            circuit.last_error = err.message
            opens = circuit.failures >= FAILURES and not circuit.pause_s
            if opens:
                circuit.pause_s = FIRST_PAUSE_S
                circuit.probe_at = self._clock() + circuit.pause_s
        if opens:
            _LOG.warning("vault circuit opened", address=key.vault, reason=err.reason)


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
        self._breakers.check_closed(self._key, probe=self._probe)
        granted_s = deadline.remaining_s()
        try:
            answer = call()
        except (VaultUnavailableError, VaultSealedError) as err:
            if not _ran_out(granted_s):
                self._breakers.record_failure(self._key, err)
            raise
        except _NOT_SENT:
            raise
        except (LeasegateError, VaultNotFoundError):
            self._breakers.record_success(self._key)
            raise
        self._breakers.record_success(self._key)
        return answer


def _ran_out(granted_s: float | None) -> bool:
    """Whether a call ended by the caller's own short deadline; such callers must not open the circuit for everybody."""
    left_s = deadline.remaining_s()
    return granted_s is not None and granted_s < FAIR_S and left_s is not None and left_s <= granted_s / 10


def _circuit_open(circuit: _Circuit, *, wait_s: float, address: str) -> CircuitOpenError:
    text = f"{circuit.last_error}; it is not asked again for {max(wait_s, 0.1):.1f} s"
    return CircuitOpenError(text, retry_after_s=max(wait_s, 0.1), address=address)
