"""The operator's catalog file: VaultTargets and db_roles for callers outside Kubernetes, read and checked at start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from services.access.domain import names
from services.access.domain.grant import role_words
from services.access.domain.models import DbRole
from services.common.config import StartupRefusedError
from services.common.durations import parse_seconds
from services.common.errors import SpecInvalidError
from services.common.vault.paths import is_name, mount_path
from services.common.vault.target import VaultTarget
from services.common.vault_config.address import Address, AddressError
from services.common.vault_config.entries import VaultConfig

_SERVER_KEYS = {"address", "vault_namespace", "ca_file", "insecure_skip_tls_verify", "server_name"}
_TARGET_KEYS = {"name", "vault", *_SERVER_KEYS}
_ROLE_KEYS = {
    "name", "target", "mount", "vault_role", "db_name", "creation_statements", "revocation_statements", "default_ttl",
    "max_ttl", "approvals", "approvers", "self_approval",
}  # fmt: skip
_NAME = re.compile(r"[!-~]{1,256}").fullmatch
_STATEMENTS = ("creation_statements", "revocation_statements")


def read_catalog(path: Path, vaults: VaultConfig) -> list[tuple[VaultTarget, DbRole]]:
    """Read the operator's catalog file.

    It looks like this::

        targets:
          - {name: prod, vault: main}     # the name of an entry of --vault-config
        roles:
          - name: reader
            target: prod
            mount: my-postgres-se
            vault_role: k8s.-.demo.psql-role
            db_name: k8s.-.demo.postgres-app
            revocation_statements: []     # as the role in Vault has them
            max_ttl: 24h
            approvers: [spiffe://example/dba]   # without it, every caller of ApproverService

    With ``--allow-any-vault`` a target has address and ca_file in place of vault.

    Args:
        path: The file.
        vaults: The Vaults that may be called.

    Raises:
        StartupRefusedError: It cannot be used; the text says which entry and why.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as err:
        raise StartupRefusedError(f"--catalog {path}: cannot be read") from err
    except yaml.YAMLError as err:
        raise StartupRefusedError(f"--catalog {path}: no YAML") from err
    found = {} if found is None else found
    if not isinstance(found, dict) or not found.keys() <= {"targets", "roles"}:
        raise StartupRefusedError(f"--catalog {path}: a mapping with targets and roles is expected")
    try:
        targets = {raw["name"]: _target(raw, vaults) for raw in _entries(found, "targets", _TARGET_KEYS)}
        return [_role(raw, targets) for raw in _entries(found, "roles", _ROLE_KEYS)]
    except (ValueError, AddressError, SpecInvalidError) as err:
        raise StartupRefusedError(f"--catalog {path}: {err}") from err


def _entries(found: dict[str, Any], key: str, allowed: set[str]) -> list[dict[str, Any]]:
    entries = found.get(key) or []
    for raw in entries if isinstance(entries, list) else [entries]:
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise ValueError(f"{key}: each entry is a mapping with a name")
        if unknown := sorted(map(str, raw.keys() - allowed)):
            raise ValueError(f"{key}: {raw['name']}: unknown key {unknown[0]!r}")
    names = [raw["name"] for raw in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{key}: {twice[0]}: is there twice")
    return list(entries)


def _flag(raw: dict[str, Any], key: str, *, of: str) -> bool:
    """A flag; a string such as "false" is refused, as it would count as true."""
    value = raw.get(key, False)
    if value is True or value is False:
        return bool(value)
    raise ValueError(f"{of}: {raw['name']}: {key} is true or false")


def _approvals(raw: dict[str, Any]) -> int:
    value = raw.get("approvals", 1)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"roles: {raw['name']}: approvals is a number from 1")
    return value


def _approvers(raw: dict[str, Any]) -> tuple[str, ...]:
    """Names of certificates, exactly as --allow has them; without the key, every caller of ApproverService."""
    if "approvers" not in raw:
        return ()
    found, name = raw["approvers"], raw["name"]
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and _NAME(each) for each in found):
        raise ValueError(
            f"roles: {name}: approvers is a list of names in certificates, such as spiffe://example/dba; leave it out "
            "for every caller of ApproverService"
        )
    if len(set(found)) < _approvals(raw):
        raise ValueError(f"roles: {name}: approvals is {raw['approvals']}, and approvers names fewer")
    return tuple(sorted(set(found)))


def _target(raw: dict[str, Any], vaults: VaultConfig) -> VaultTarget:
    if vaults.any_vault:
        return _described(raw)
    name, given = raw["name"], sorted(raw.keys() & _SERVER_KEYS)
    entry = vaults.named(str(raw.get("vault") or ""))
    if given or entry is None:
        why = f"{given[0]} belongs to an entry" if given else f"vault {raw.get('vault')!r} is no entry"
        raise ValueError(f"targets: {name}: {why} of --vault-config: name that entry, as in vault: main")
    return VaultTarget(name=name, address=entry.address, vault_namespace=entry.vault_namespace, vault=entry.identity)


def _described(raw: dict[str, Any]) -> VaultTarget:
    """A target where every Vault is allowed."""
    if "vault" in raw:
        raise ValueError(f"targets: {raw['name']}: vault needs --vault-config: give an address here")
    Address.parse(str(raw.get("address", "")))
    ca_file = raw.get("ca_file")
    return VaultTarget(
        name=raw["name"],
        address=str(raw["address"]),
        vault_namespace=str(raw.get("vault_namespace") or "").strip("/"),
        ca_bundle=_bytes(ca_file) if ca_file else b"",
        insecure_skip_tls_verify=_flag(raw, "insecure_skip_tls_verify", of="targets"),
        server_name=str(raw.get("server_name") or ""),
    )


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise ValueError(f"{path}: {err.strerror}") from err


def _role(raw: dict[str, Any], targets: dict[str, VaultTarget]) -> tuple[VaultTarget, DbRole]:
    name, target = raw["name"], targets.get(str(raw.get("target")))
    if target is None:
        raise ValueError(f"roles: {name}: its target {raw.get('target')!r} is none of targets")
    vault_role, db_name = str(raw.get("vault_role") or name), str(raw.get("db_name") or "")
    if not is_name(vault_role) or not is_name(db_name):
        raise ValueError(f"roles: {name}: vault_role and db_name have to be names of Vault's")
    mount = mount_path(str(raw.get("mount") or ""), field=f"roles: {name}: mount")
    statements = {key: _statements(raw, key) for key in _STATEMENTS}
    ttls = {key: parse_seconds(raw[key]) if key in raw else None for key in ("default_ttl", "max_ttl")}
    role = DbRole(
        id=0,
        cluster="",
        cluster_uid="",
        namespace="",
        name=name,
        target=0,
        mount=mount,
        vault_role=vault_role,
        db_name=db_name,
        revocation_statements=tuple(statements["revocation_statements"]),
        default_ttl_s=ttls["default_ttl"],
        max_ttl_s=ttls["max_ttl"],
        digest=names.role_digest(
            vault=target.digest,
            database="",
            plugin="",
            mount=mount,
            vault_role=vault_role,
            definition={"db_name": db_name, **statements, **ttls},
        ),
        deleted=False,
        words=role_words(
            vault=target.name,
            database="",
            plugin="",
            creation=statements["creation_statements"],
            revocation=statements["revocation_statements"],
        ),
        approvals=_approvals(raw),
        approvers=_approvers(raw),
        self_approval=_flag(raw, "self_approval", of="roles"),
        configured=True,
    )
    return target, role


def _statements(raw: dict[str, Any], key: str) -> list[str]:
    found = raw.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError(f"roles: {raw['name']}: {key} is a list of statements")
    return found
