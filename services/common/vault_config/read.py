"""Reads the file of ``--vault-config``. Every error names the file, the entry, what is wrong and what to do.

Secrets are named by file only. An example is in docs/install.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from services.common.durations import parse_seconds
from services.common.vault_config.address import Address, AddressError
from services.common.vault_config.address_pattern import AddressPattern
from services.common.vault_config.entries import (
    DEFAULT_MAX_REQUEST_DURATION_S,
    AuthSettings,
    TeamAuth,
    VaultConfig,
    VaultEntry,
)
from services.common.vault_config.mount_rules import ANY_NAMESPACE, MountRule, MountRuleError, MountRules

SERVICES = ("engine", "roles", "access")
TEAM_METHODS = ("kubernetes", "token", "userpass", "certificate", "approle")
_ENTRY_KEYS = (
    "name", "addresses", "caFile", "vaultNamespace", "auth", "teamAuth", "mounts", "maxRequestDuration", "formerNames",
    "localDatabases",
)  # fmt: skip
_TEAM_KEYS = ("methods", "mounts", "tokenAudience", "serviceAccounts")
# By method: the required keys and the optional ones.
_METHODS: Mapping[str, tuple[set[str], set[str]]] = {
    "kubernetes": ({"role", "tokenFile"}, {"mount"}),
    "approle": ({"roleIdFile", "secretIdFile"}, {"mount"}),
    "certificate": ({"certFile", "keyFile"}, {"mount", "name"}),
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VAULT_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_AUTH_MOUNT = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")


class VaultConfigError(ValueError):
    """The file cannot be used; the text names the file, the entry, the reason and what to do."""


def read_vault_config(path: Path | None, *, allow_any_vault: bool = False) -> VaultConfig:
    """Read the file.

    Args:
        path: The file; None for none.
        allow_any_vault: Whether ``--allow-any-vault`` is set, which excludes the file.

    Raises:
        VaultConfigError: It cannot be used, or both or neither are given.
    """
    if path is None:
        if allow_any_vault:
            return VaultConfig(any_vault=True)
        raise VaultConfigError(
            "--vault-config is missing: it names the Vaults that may be called (docs/install.md)."
            " --allow-any-vault works without it, for trying the guide: then an approval can be bypassed"
        )
    if allow_any_vault:
        raise VaultConfigError(
            f"--allow-any-vault and --vault-config {path} exclude each other: drop the first to call the named Vaults"
        )
    return parse_vault_config(_load(path), file=str(path))


def parse_vault_config(found: object, *, file: str = "--vault-config") -> VaultConfig:
    """Check what the YAML holds.

    Raises:
        VaultConfigError: It cannot be used.
    """
    if not isinstance(found, dict) or not isinstance(found.get("vaults"), list) or not found["vaults"]:
        raise VaultConfigError(f"{file}: a mapping with the list `vaults` is expected, with an entry for each Vault")
    _no_others(found, ("vaults",), where=f"{file}")
    entries = tuple(_entry(raw, where=f"{file}: vaults[{number}]") for number, raw in enumerate(found["vaults"]))
    _check_names(entries, file=file)
    _check_overlaps(entries, file=file)
    return VaultConfig(entries)


def _load(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise VaultConfigError(f"{path}: {err.strerror}: give --vault-config a file that can be read") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise VaultConfigError(f"{path} is no YAML: correct its indentation and quotes") from err


def _entry(raw: object, *, where: str) -> VaultEntry:
    if not isinstance(raw, dict):
        raise VaultConfigError(f"{where} is no mapping: an entry has at least name, addresses, auth, teamAuth, mounts")
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise VaultConfigError(f"{where}: name is {_shown(name)}: give it 1 to 63 characters of a-z, 0-9, '.' and '-'")
    where = f"{where} ({name})"
    _no_others(raw, _ENTRY_KEYS, where=where)
    return VaultEntry(
        name=name,
        addresses=tuple(_addresses(raw, where=where)),
        auth=_auth(raw.get("auth"), where=f"{where}: auth"),
        team_auth=_team_auth(raw.get("teamAuth"), where=f"{where}: teamAuth"),
        mounts=_mounts(raw.get("mounts"), where=f"{where}: mounts"),
        ca_file=Path(ca_file) if (ca_file := _text(raw, "caFile", where=where)) else None,
        vault_namespace=_vault_namespace(raw, where=where),
        max_request_duration_s=_duration(raw, where=where),
        local_databases=_flag(raw, "localDatabases", where=where),
        former_names=_texts(raw, "formerNames", (), where=where, pattern=_NAME, like="the name of an entry"),
    )


def _addresses(raw: Mapping[str, Any], *, where: str) -> Iterator[AddressPattern]:
    texts = _texts(raw, "addresses", (), where=where)
    if not texts:
        raise VaultConfigError(f"{where}: addresses is missing: list the Vault's own address first")
    for number, text in enumerate(texts):
        here = f"{where}: addresses[{number}] {_shown(text)}"
        try:
            pattern = AddressPattern.parse(text)
        except AddressError as err:
            raise VaultConfigError(f"{here} {err}") from err
        if number == 0:
            _check_first(pattern, text, where=here)
        yield pattern


def _check_first(pattern: AddressPattern, text: str, *, where: str) -> None:
    """The first address is the one that is called."""
    if not pattern.is_exact:
        raise VaultConfigError(f"{where} has a *: every connection goes to the first address, put an exact one there")
    address = Address.parse(text)
    if not address.tls and not address.is_loopback:
        raise VaultConfigError(
            f"{where} is plain http: every connection goes to the first address, put one with https there"
        )


def _auth(raw: object, *, where: str) -> Mapping[str, AuthSettings]:
    if not isinstance(raw, dict) or (missing := [name for name in SERVICES if name not in raw]):
        lacking = ", ".join(SERVICES if not isinstance(raw, dict) else missing)
        raise VaultConfigError(
            f"{where} lacks {lacking}: say for each service how it authenticates as itself, by one of"
            f" {', '.join(_METHODS)}"
        )
    _no_others(raw, SERVICES, where=where)
    return {service: _service_auth(raw[service], where=f"{where}.{service}") for service in SERVICES}


def _service_auth(raw: object, *, where: str) -> AuthSettings:
    if not isinstance(raw, dict) or len(raw) != 1 or (method := str(next(iter(raw)))) not in _METHODS:
        raise VaultConfigError(f"{where}: exactly one of {', '.join(_METHODS)} is needed")
    (needed, optional), options = _METHODS[method], raw[method]
    if not isinstance(options, dict) or not needed <= options.keys() or not options.keys() <= needed | optional:
        raise VaultConfigError(
            f"{where}: {method} needs {', '.join(sorted(needed))} and may have {', '.join(sorted(optional))};"
            " secrets are named by file"
        )
    if wrong := [key for key, value in options.items() if not isinstance(value, str) or not value]:
        raise VaultConfigError(f"{where}.{method}.{wrong[0]} is no text: name a file, an auth role or an auth mount")
    return AuthSettings(method, dict(options))


def _team_auth(raw: object, *, where: str) -> TeamAuth:
    if not isinstance(raw, dict):
        raise VaultConfigError(f"{where} is missing: say how teams prove who they are, at least tokenAudience")
    _no_others(raw, _TEAM_KEYS, where=where)
    methods = _texts(raw, "methods", ("kubernetes",), where=where)
    if unknown := [method for method in methods if method not in TEAM_METHODS]:
        raise VaultConfigError(f"{where}.methods has {_shown(unknown[0])}: there are {', '.join(TEAM_METHODS)}")
    mounts = _texts(raw, "mounts", ("kubernetes",), where=where, pattern=_AUTH_MOUNT, like="the path of an auth mount")
    if not mounts or not methods:
        raise VaultConfigError(f"{where}: methods and mounts are not empty: leave them out for kubernetes alone")
    audience = _text(raw, "tokenAudience", where=where)
    if "kubernetes" in methods and not audience:
        raise VaultConfigError(
            f"{where}.tokenAudience is missing: name the audience of ServiceAccount tokens, as the auth roles of Vault"
            " have it, such as leasegate-vault; it must not be one of the API server's"
        )
    return TeamAuth(
        methods=methods,
        mounts=mounts,
        token_audience=audience,
        service_accounts=_texts(
            raw, "serviceAccounts", ("vault",), where=where, pattern=_NAME, like="the name of a ServiceAccount"
        ),
    )


def _mounts(raw: object, *, where: str) -> MountRules:
    if not isinstance(raw, dict) or not raw.get("owned"):
        raise VaultConfigError(
            f"{where}.owned is missing, so that no namespace could use this Vault: list paths, such as"
            ' {path: "team/{namespace}"}'
        )
    _no_others(raw, ("owned", "adoptable"), where=where)
    return MountRules(
        owned=tuple(_mount_rules(raw["owned"], where=f"{where}.owned")),
        adoptable=tuple(_mount_rules(raw.get("adoptable") or [], where=f"{where}.adoptable")),
    )


def _mount_rules(raw: object, *, where: str) -> Iterator[MountRule]:
    for number, rule in enumerate(raw if isinstance(raw, list) else [raw]):
        here = f"{where}[{number}]"
        if not isinstance(rule, dict) or not isinstance(rule.get("path"), str):
            raise VaultConfigError(f"{here}: a mapping with path, and namespaces, is expected")
        _no_others(rule, ("path", "namespaces"), where=here)
        namespaces = None
        if "namespaces" in rule:
            namespaces = _texts(rule, "namespaces", (), where=here)
            if wrong := [each for each in namespaces if each != ANY_NAMESPACE and not _NAMESPACE.fullmatch(each)]:
                raise VaultConfigError(f"{here}.namespaces has {_shown(wrong[0])}: name a namespace, or * for all")
            if not namespaces:
                raise VaultConfigError(f"{here}.namespaces is empty: name a namespace, or * for all")
        try:
            yield MountRule.of(rule["path"], namespaces)
        except MountRuleError as err:
            raise VaultConfigError(f"{here}: {err}") from err


def _vault_namespace(raw: Mapping[str, Any], *, where: str) -> str:
    found = _text(raw, "vaultNamespace", where=where).strip("/")
    if found and not _VAULT_NAMESPACE.fullmatch(found):
        raise VaultConfigError(
            f"{where}: vaultNamespace {_shown(found)} is no path of a Vault namespace, such as org/team"
        )
    return "" if found == "root" else found


def _duration(raw: Mapping[str, Any], *, where: str) -> float:
    value = raw.get("maxRequestDuration", int(DEFAULT_MAX_REQUEST_DURATION_S))
    try:
        seconds = parse_seconds(value)
    except ValueError as err:
        raise VaultConfigError(f"{where}: maxRequestDuration {err}") from err
    if seconds <= 0:
        raise VaultConfigError(f"{where}: maxRequestDuration is 0: write Vault's default_max_request_duration")
    return seconds


def _check_names(entries: tuple[VaultEntry, ...], *, file: str) -> None:
    names = [name for entry in entries for name in entry.names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VaultConfigError(
            f"{file}: the name {twice[0]!r} is there twice: each name, formerNames included, belongs to one entry"
        )


def _check_overlaps(entries: tuple[VaultEntry, ...], *, file: str) -> None:
    """One address means one Vault; only entries of different Vault namespaces may share one."""
    for one, other in combinations(entries, 2):
        if one.vault_namespace != other.vault_namespace:
            continue
        for mine in one.addresses:
            for theirs in other.addresses:
                if mine.overlaps(theirs):
                    raise VaultConfigError(
                        f"{file}: {one.name} and {other.name} overlap: {mine} and {theirs} choose both. Remove the"
                        " address from one of them, or, if they are two Vault namespaces of one server, give each its"
                        " vaultNamespace, so that AppBindings choose one with `vault: NAME` in their parameters"
                    )


def _no_others(raw: Mapping[Any, Any], keys: Collection[str], *, where: str) -> None:
    if unknown := sorted(str(key) for key in raw if key not in keys):
        raise VaultConfigError(f"{where}: unknown key {unknown[0]!r}: there are {', '.join(keys)}")


def _flag(raw: Mapping[str, Any], key: str, *, where: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise VaultConfigError(f"{where}: {key} is {_shown(value)}: write true or false")
    return value


def _text(raw: Mapping[str, Any], key: str, *, where: str) -> str:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise VaultConfigError(f"{where}: {key} is {_shown(value)}: write a text")
    return value or ""


def _texts(
    raw: Mapping[str, Any],
    key: str,
    default: tuple[str, ...],
    *,
    where: str,
    pattern: re.Pattern[str] | None = None,
    like: str = "",
) -> tuple[str, ...]:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise VaultConfigError(f"{where}: {key} is no list of texts: write it like [{key}-1, {key}-2]")
    if wrong := [each for each in value if pattern and not pattern.fullmatch(each)]:
        raise VaultConfigError(f"{where}: {key} has {_shown(wrong[0])}: write {like}")
    return tuple(value)


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:80]
