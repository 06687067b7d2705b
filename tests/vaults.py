"""The operator's file, as tests write it, and every Vault allowed for those that are about something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from services.common.vault.vaults import Vaults
from services.common.vault_config.entries import VaultConfig
from services.common.vault_config.read import parse_vault_config
from tests.servers import Servers

ANY_VAULT = VaultConfig(any_vault=True)
MAIN = "main"
NO_AUTH = {"kubernetes": {"role": "none", "tokenFile": "/nowhere"}}


def entry(*addresses: str, **changes: Any) -> dict[str, Any]:
    """An entry of the file; each service authenticates by a file that does not exist unless ``auth`` says more."""
    auth = dict.fromkeys(("engine", "roles", "access"), NO_AUTH) | changes.pop("auth", {})
    usual: dict[str, Any] = {
        "name": MAIN,
        "addresses": list(addresses),
        "auth": auth,
        "teamAuth": {
            "methods": ["kubernetes", "token", "userpass", "certificate", "approle"],
            "mounts": ["kubernetes", "userpass", "cert", "approle"],
            "tokenAudience": "leasegate-vault",
            "serviceAccounts": ["vault"],
        },
        "mounts": {
            "owned": [
                {"path": "my-postgres-se", "namespaces": ["demo"]},
                *({"path": path, "namespaces": ["*"]} for path in ("database", "team-a", "team-b", "team-c")),
                {"path": "team/*", "namespaces": ["demo"]},
                {"path": "team/{namespace}"},
            ],
            "adoptable": [{"path": "team-a", "namespaces": ["*"]}],
        },
        "localDatabases": True,
    }
    return usual | changes


def entry_of(servers: Servers, *more: str, **changes: Any) -> dict[str, Any]:
    """The entry of the real server, with more addresses."""
    return entry(servers.vault_addr, *more, caFile=str(servers.vault_ca), **changes)


def config(*entries: dict[str, Any]) -> VaultConfig:
    """The file, read."""
    return parse_vault_config({"vaults": list(entries)})


def vaults(*entries: dict[str, Any], service: str = "") -> Vaults:
    """What a service makes of the file; without ``service`` it has no auth of its own."""
    return Vaults(config(*entries), service=service)


def any_vault() -> Vaults:
    """Every Vault, without an auth of the service's own."""
    return Vaults(ANY_VAULT)


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """Write the file."""
    path.write_text(yaml.safe_dump({"vaults": list(entries)}))
    return path
