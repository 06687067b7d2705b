"""The operator's catalog file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.access.requests.catalog_file import read_catalog
from services.common.config import StartupRefusedError
from tests.vaults import ANY_VAULT, config, entry

GOOD = """
targets:
  - {name: prod, vault: main}
roles:
  - {name: reader, target: prod, mount: my-postgres-se, vault_role: r, db_name: d, max_ttl: 24h, default_ttl: 3600,
    approvals: 2}
"""


NAMED = config(entry("https://vault.example:8200", vaultNamespace="org", formerNames=["old"]))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    return path


def test_it_names_targets_and_roles(tmp_path: Path) -> None:
    ((target, role),) = read_catalog(written(tmp_path, GOOD), NAMED)
    assert (target.vault, target.address, target.vault_namespace) == ("old", "https://vault.example:8200", "org")
    assert (target.name, role.name, role.mount, role.approvals) == ("prod", "reader", "my-postgres-se", 2)
    assert (role.default_ttl_s, role.max_ttl_s, role.configured) == (3600.0, 86400.0, True)
    assert read_catalog(written(tmp_path, ""), NAMED) == []


def test_another_definition_is_another_digest(tmp_path: Path) -> None:
    (_, one), (_, two) = (
        read_catalog(written(tmp_path, text), NAMED)[0] for text in (GOOD, GOOD.replace("24h", "12h"))
    )
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "mapping"),
        ("targets: [", "YAML"),
        ("targets: [{name: x}]", "vault None is no entry of --vault-config"),
        ("targets: [{name: x, vault: other}]", "vault 'other' is no entry of --vault-config"),
        ("targets: [{name: x, vault: main, address: 'https://x'}]", "address belongs to an entry of --vault-config"),
        ("targets: [{name: x, vault: main, token: y}]", "'token'"),
        (GOOD.replace("target: prod", "target: test"), "none of targets"),
        (GOOD.replace("vault_role: r", "vault_role: a/b"), "names of Vault"),
        (GOOD.replace("my-postgres-se", "sys/x"), "belongs to Vault"),
        (GOOD.replace("24h", "a while"), "duration"),
        (GOOD.replace("db_name: d", "revocation_statements: DROP"), "db_name"),
        ("roles: 7", "mapping with a name"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(StartupRefusedError, match=why):
        read_catalog(written(tmp_path, text), NAMED)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("{name: x, address: 'ftp://x'}", "scheme"),
        ("{name: x, vault: main}", "vault needs --vault-config"),
        ("{name: x, address: 'https://x', ca_file: /nowhere}", "/nowhere"),
        ("{name: x, address: 'https://x', insecure_skip_tls_verify: 'no way'}", "is true or false"),
    ],
)
def test_where_every_vault_is_allowed_a_target_has_an_address(tmp_path: Path, target: str, why: str) -> None:
    good = GOOD.replace("vault: main", "address: 'HTTPS://v:1', vault_namespace: /org/")
    assert read_catalog(written(tmp_path, good), ANY_VAULT)[0][0].identity == "https://v:1/org"
    with pytest.raises(StartupRefusedError, match=why):
        read_catalog(written(tmp_path, f"targets: [{target}]"), ANY_VAULT)
