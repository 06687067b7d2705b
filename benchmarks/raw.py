"""Raw Vault: the calls that nobody can do without, by plain requests, with the same SQL on the same servers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.clients import together
from benchmarks.http import RequestRefusedError, Server

CLIENTS = 8
_TRIES = 30


@dataclass(frozen=True, slots=True)
class Raw:
    """A mount of its own, whose connection has the same settings as ours.

    Attributes:
        vault: Vault as an administrator.
        mount: Path of the mount.
    """

    vault: Server
    mount: str

    def set_up(self, connection: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]) -> None:
        """Mount the engine and write its connection and roles."""
        self.vault.call("POST", f"/v1/sys/mounts/{self.mount}", {"type": "database"})
        self.vault.call(
            "POST", f"/v1/{self.mount}/config/raw", {**connection, "allowed_roles": ["*"], "username_template": ""}
        )
        for name, role in roles.items():
            self.vault.call("POST", f"/v1/{self.mount}/roles/{name}", {**role, "db_name": "raw"})

    def creds(self, role: str) -> str:
        """Take a credential; answers its lease."""
        return str(json.loads(self.vault.send("GET", f"/v1/{self.mount}/creds/{role}"))["lease_id"])

    def revoke(self, lease: str) -> None:
        """End a lease and wait until its user is dropped."""
        self.vault.send("POST", "/v1/sys/leases/revoke", json.dumps({"lease_id": lease, "sync": True}).encode())

    def renew(self, lease: str) -> None:
        """Prolong a lease."""
        self.vault.send("POST", "/v1/sys/leases/renew", json.dumps({"lease_id": lease}).encode())

    def singles(self, role: str, count: int, *, pause_s: float = 0.0) -> tuple[list[float], list[str]]:
        """Take credentials one after the other, with a pause before each; answers their seconds and their leases."""
        times, leases = [], []
        for _ in range(count):
            time.sleep(pause_s)
            began = time.perf_counter()
            leases.append(self.creds(role))
            times.append(time.perf_counter() - began)
        return times, leases

    def singles_with_tokens(self, role: str, count: int) -> tuple[list[float], list[str]]:
        """The same, each with an orphan token of its own, so that no lease dies with another's token."""
        body = {"policies": ["root"], "ttl": "1h", "no_parent": True}
        tokens = [
            str(self.vault.call("POST", "/v1/auth/token/create", body)["auth"]["client_token"]) for _ in range(count)
        ]
        times, leases = [], []
        for token in tokens:
            began = time.perf_counter()
            answer = self.vault.send("GET", f"/v1/{self.mount}/creds/{role}", headers={"X-Vault-Token": token})
            times.append(time.perf_counter() - began)
            leases.append(str(json.loads(answer)["lease_id"]))
        return times, leases

    def burst(self, role: str, count: int) -> tuple[float, list[str]]:
        """Take credentials with eight clients; answers the seconds of all and their leases."""
        return together(CLIENTS, lambda _: self.creds(role), range(count))

    def end(self, leases: Sequence[str]) -> list[float]:
        """Revoke one after the other; answers the seconds of each."""
        times = []
        for lease in leases:
            began = time.perf_counter()
            self.revoke(lease)
            times.append(time.perf_counter() - began)
        return times

    def clear(self, leases: Sequence[str]) -> None:
        """Revoke with eight clients, for nothing is measured."""
        together(CLIENTS, self._revoke_at_last, leases)

    def _revoke_at_last(self, lease: str) -> None:
        """Repeat the call: PostgreSQL refuses one of two concurrent revokes of rights on one table."""
        for last in (*[False] * (_TRIES - 1), True):
            try:
                return self.revoke(lease)
            except RequestRefusedError:
                if last:
                    raise
        return None
