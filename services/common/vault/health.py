"""Whether a Vault answers and is unsealed, and what it says of itself: shown to people, and never acted on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.common.bounded import BoundedMap
from services.common.errors import LeasegateError
from services.common.logs import logger
from services.common.vault.response import VaultNotFoundError
from services.common.vault.transport import Transport

_LOG = logger(__name__)
_TIMEOUT_S = 2.0
_ASK_EVERY_S = 60.0
_MOST = 1000


@dataclass(frozen=True, slots=True)
class VaultServer:
    """What a server says of itself at sys/health; whoever answers can say anything.

    Attributes:
        cluster_id: Vault's id of itself; the nodes of one cluster have the same.
        version: Its version.
    """

    cluster_id: str
    version: str


def ask(transport: Transport) -> VaultServer | None:
    """Ask ``sys/health``, which needs no token; None without an answer, or from a sealed Vault.

    A standby node counts. The Vault namespace is left out: OpenBao answers 400 there.
    """
    path = "sys/health?standbyok=true&perfstandbyok=true"
    try:
        answer = transport.send("GET", path, timeout_s=_TIMEOUT_S, in_root=True)
    except (LeasegateError, VaultNotFoundError):
        return None
    return VaultServer(cluster_id=answer.cluster_id, version=answer.version)


def reachable(transport: Transport) -> bool:
    """Whether the Vault answers and is unsealed."""
    return ask(transport) is not None


class KnownServers:
    """What each Vault said of itself last. Safe for threads.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._found = BoundedMap[str, VaultServer](_MOST)
        self._asked = BoundedMap[str, float](_MOST)

    def find_server(self, vault: str, transport: Transport) -> VaultServer | None:
        """What a Vault said of itself last; None if it never did. It is asked once a minute at most.

        Args:
            vault: Name of its entry, or what else tells it from others.
            transport: The way there.
        """
        with self._lock:
            asked, now = self._asked.get(vault), self._clock()
            is_due = asked is None or now - asked >= _ASK_EVERY_S
            if is_due:
                self._asked[vault] = now
        if is_due:
            self.ask_server(vault, transport)
        return self._found.get(vault)

    def ask_server(self, vault: str, transport: Transport) -> None:
        """Ask a Vault now, and log what answers where that is new."""
        server, before = ask(transport), self._found.get(vault)
        if server is None or server == before:
            return
        self._found[vault] = server
        say = {
            "vault": vault,
            "address": transport.base_uri,
            "cluster_id": server.cluster_id,
            "version": server.version,
        }
        if before and before.cluster_id != server.cluster_id:
            _LOG.warning("another vault answers", **say, cluster_id_before=before.cluster_id)
        else:
            _LOG.info("vault answers", **say)
