"""Servers that run elsewhere and replace local ones: a cluster, a Vault, a PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.vault.api import Answer, VaultApi, VaultError
from dev.stack.cluster import USERS
from dev.stack.errors import StackError
from dev.stack.kubectl import kubectl_binary
from dev.stack.processes import Process
from services.common.vault_config.address import Address, AddressError

_HEALTHY = frozenset({200, 429, 473})  # a standby node passes requests on to the active one
_UNHEALTHY = {
    472: "it is a secondary for disaster recovery, which issues nothing: name a primary",
    501: "it is not initialized: run `vault operator init` and unseal it",
    503: "it is sealed: run `vault operator unseal`",
}
"""Statuses of sys/health (https://developer.hashicorp.com/vault/api-docs/system/health)."""
_WRITTEN = "sys/policies/acl/leasegate-engine"  # the first thing that the set-up reads and writes


@dataclass(frozen=True, slots=True)
class ExternalServers:
    """The servers that replace a local one; a server that is None is started locally.

    Attributes:
        kubeconfig: KUBECONFIG; its current context must be an administrator's.
        vault_addr: VAULT_ADDR.
        vault_token: VAULT_TOKEN, which may write policies and auth methods.
        vault_ca: VAULT_CACERT.
        postgres_url: LEASEGATE_POSTGRES_URL, with a superuser and a password.
    """

    kubeconfig: str | None = None
    vault_addr: str | None = None
    vault_token: str | None = field(default=None, repr=False)
    vault_ca: str | None = None
    postgres_url: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, directory: Path, env: Mapping[str, str] = os.environ) -> ExternalServers:
        """The servers that the environment names, without those of this stack (from ``python -m dev.stack env``).

        Raises:
            StackError: VAULT_ADDR is set without VAULT_TOKEN or VAULT_CACERT.
        """
        own = env.get("LEASEGATE_STACK_DIR") and Path(env["LEASEGATE_STACK_DIR"]).resolve() == directory.resolve()
        if own and env.get("KUBECONFIG", "").startswith(str(directory.resolve())):
            return cls(postgres_url=env.get("LEASEGATE_POSTGRES_URL"))
        addr, token, ca = (env.get(name) for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_CACERT"))
        if addr and not (token and ca):
            raise StackError(
                "VAULT_ADDR is set: set VAULT_TOKEN and VAULT_CACERT as well, or unset it to start a local Vault"
            )
        vault = {"vault_addr": addr, "vault_token": token, "vault_ca": ca} if addr else {}
        return cls(kubeconfig=env.get("KUBECONFIG"), postgres_url=env.get("LEASEGATE_POSTGRES_URL"), **vault)

    def check_vault(self) -> None:
        """Refuse a Vault that cannot be used, before anything is started for it.

        Raises:
            StackError: VAULT_ADDR is wrong, or the Vault there cannot be called, is sealed, or refuses VAULT_TOKEN.
        """
        if not self.vault_addr:
            return
        try:
            address = Address.parse(self.vault_addr)
        except AddressError as err:
            raise StackError(f"VAULT_ADDR={self.vault_addr} {err}") from err
        if not address.tls and not address.is_loopback:
            raise StackError(f"VAULT_ADDR={self.vault_addr} is plain http: Leasegate calls it on this machine alone")
        vault = VaultApi(self.vault_addr, ca=Path(str(self.vault_ca)), token=self.vault_token, timeout_s=10)
        try:
            fault = _fault(vault.call("GET", "sys/health"), tls=address.tls) or _refusal(vault.call("GET", _WRITTEN))
        except VaultError as err:
            raise StackError(f"VAULT_ADDR or VAULT_CACERT is wrong: {err}") from err
        if fault:
            raise StackError(f"the Vault of VAULT_ADDR={self.vault_addr} cannot be used: {fault}")

    def lines(self) -> list[str]:
        """A line for each of them, without secrets."""
        lines = []
        if self.kubeconfig:
            lines.append(
                f"USING THE CLUSTER of KUBECONFIG={self.kubeconfig} (CRDs, RBAC and policies are applied to it)"
            )
        if self.vault_addr:
            lines.append(f"USING THE VAULT at VAULT_ADDR={self.vault_addr} (policies and auth roles are written to it)")
        if self.postgres_url:
            lines.append("USING THE POSTGRESQL of LEASEGATE_POSTGRES_URL")
        return lines


def _fault(health: Answer, *, tls: bool) -> str:
    """What is wrong with a Vault by its answer to ``sys/health``; empty if nothing is."""
    if health.status in _UNHEALTHY:
        return _UNHEALTHY[health.status]
    if health.status in _HEALTHY and "sealed" in health.body:
        return ""
    hint = "" if tls else "; it may be one that is called by https alone"
    return f"what answers sys/health with {health.status} there is no Vault{hint}"


def _refusal(answer: Answer) -> str:
    if answer.ok or answer.status == 404:
        return ""
    return (
        f"it answers {answer.status} {answer.errors} for {_WRITTEN}: set VAULT_TOKEN to a token that is valid there and"
        " may write policies, auth methods and mounts, such as a root token"
    )


class ExternalCluster:
    """A cluster that runs elsewhere. The contexts of alice, bob and carol impersonate them."""

    processes: tuple[Process, ...] = ()

    def __init__(self, directory: Path, *, source: str) -> None:
        """Use the current context of the kubeconfig ``source``; the stack's folder gets a kubeconfig of its own.

        Raises:
            StackError: The kubeconfig cannot be read.
        """
        self.kubeconfig = directory / "kubeconfig"
        self.ca = directory / "cluster-ca.crt"
        view = ["config", "view", "--raw", "--minify", "--flatten", "--output=json"]
        done = subprocess.run(
            [kubectl_binary(), f"--kubeconfig={source}", *view], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(f"KUBECONFIG={source} cannot be used: {done.stderr.strip()}")
        config = json.loads(done.stdout)
        self._cluster, self._user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = str(self._cluster["server"])

    def prepare(self) -> None:
        """Write the kubeconfig and the authority's certificate."""
        groups = {user: group for user, group in USERS.items() if user != "admin"}
        people = {user: {"as": user, "as-groups": [group] if group else []} for user, group in groups.items()}
        users = {"admin": self._user} | {user: self._user | more for user, more in people.items()}
        self.ca.write_bytes(b64decode(self._cluster.get("certificate-authority-data", "")))
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(self._config(users), indent=1))

    def start(self) -> None:
        """Do nothing: the cluster runs."""

    def kubeconfig_for(self, user: str, *, token: str) -> dict[str, Any]:
        """A kubeconfig for one user with a token."""
        return self._config({user: {"token": token}})

    def _config(self, users: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "external", "cluster": self._cluster}],
            "users": [{"name": name, "user": user} for name, user in users.items()],
            "contexts": [{"name": name, "context": {"cluster": "external", "user": name}} for name in users],
            "current-context": next(iter(users)),
        }
