"""What the file of ``--vault-config`` says of one Vault, as the set-up needs it: mounts, audience, names, addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.vault.policies import Mounts
from services.common.vault_config.entries import VaultEntry
from services.common.vault_config.mount_rules import ANY_NAMESPACE, BELOW, NAMESPACE, MountRule
from services.common.vault_config.read import VaultConfigError, read_vault_config

_SERVICES = ("engine", "roles", "access")


class ChoiceError(ValueError):
    """The file has no such entry, or one that the set-up cannot write."""


def read_entry(path: Path, name: str | None) -> VaultEntry:
    """Read the entry of a name, or the only one.

    Raises:
        ChoiceError: The file cannot be read, or it is not clear which entry is meant.
    """
    try:
        config = read_vault_config(path)
    except VaultConfigError as err:
        raise ChoiceError(str(err)) from err
    names = ", ".join(entry.name for entry in config.entries)
    if name is None and len(config.entries) == 1:
        return config.entries[0]
    if name is None:
        raise ChoiceError(f"the file has the entries {names}: choose one with --vault NAME")
    if (entry := config.named(name)) is None:
        raise ChoiceError(f"the file has no entry {name!r}, but {names}")
    return entry


def mounts_of(entry: VaultEntry, *, list_leases: bool) -> Mounts:
    """The mounts that the entry gives to any namespace.

    Vault has a wildcard for one segment, which stands for the name of any namespace, and for what is below a path.

    Raises:
        MountError: A path can be in no policy.
    """
    rules = (*entry.mounts.owned, *entry.mounts.adoptable)
    paths = [_pattern(rule) for rule in rules]
    return Mounts(
        [path for path in paths if "+" not in path.split("/")],
        patterned=[path for path in paths if "+" in path.split("/")],
        list_leases=list_leases,
    )


def options_of(entry: VaultEntry) -> dict[str, Any]:
    """The options of the command that the entry decides.

    Raises:
        ChoiceError: The services do not authenticate as ``setup`` writes it.
    """
    team = entry.team_auth
    found: dict[str, Any] = {"address": entry.address, "ca": entry.ca_file, "namespace": entry.vault_namespace or None}
    if team.token_audience:
        found["audience"] = team.token_audience
    found["team_service_accounts"] = team.service_accounts
    found["team_namespaces"] = _namespaces(entry)
    mounts = {
        entry.auth[name].options.get("mount", "kubernetes")
        for name in _SERVICES
        if name in entry.auth and entry.auth[name].method == "kubernetes"
    }
    if len(mounts) > 1:
        raise ChoiceError(
            f"the services log in at {', '.join(sorted(mounts))}: `setup` writes one Kubernetes auth method"
        )
    if mounts:
        found["kubernetes_mount"] = mounts.pop().strip("/")
    found["service_roles"] = {
        f"leasegate-{name}": entry.auth[name].options["role"]
        for name in _SERVICES
        if name in entry.auth and entry.auth[name].method == "kubernetes"
    }
    return found


def _pattern(rule: MountRule) -> str:
    path = rule.path.replace(BELOW, "/+") if rule.path.endswith(BELOW) else rule.path
    return "/".join("+" if segment == NAMESPACE else segment for segment in path.split("/"))


def _namespaces(entry: VaultEntry) -> tuple[str, ...]:
    """Namespaces that may have a mount, and so may prove themselves."""
    found = {namespace for rule in (*entry.mounts.owned, *entry.mounts.adoptable) for namespace in rule.namespaces}
    return (ANY_NAMESPACE,) if ANY_NAMESPACE in found else tuple(sorted(found))
