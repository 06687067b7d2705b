"""The operator's catalog file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.access.requests.catalog_file import read_catalog
from services.common.config import StartupRefusedError

GOOD = """
targets:
  - {name: prod, address: HTTPS://vault.example:8200}
roles:
  - {name: reader, target: prod, mount: my-postgres-se, vault_role: r, db_name: d, max_ttl: 24h, default_ttl: 3600,
    approvals: 2}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    return path


def test_it_names_targets_and_roles(tmp_path: Path) -> None:
    ((target, role),) = read_catalog(written(tmp_path, GOOD))
    assert (target.name, role.name, role.mount, role.approvals) == ("prod", "reader", "my-postgres-se", 2)
    assert (role.default_ttl_s, role.max_ttl_s, role.configured) == (3600.0, 86400.0, True)
    assert read_catalog(written(tmp_path, "")) == []


def test_another_definition_is_another_digest(tmp_path: Path) -> None:
    (_, one), (_, two) = (read_catalog(written(tmp_path, text))[0] for text in (GOOD, GOOD.replace("24h", "12h")))
    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "mapping"),
        ("targets: [", "YAML"),
        ("targets: [{name: x, address: 'ftp://x'}]", "scheme"),
        ("targets: [{name: x, address: 'https://x', token: y}]", "'token'"),
        (GOOD.replace("target: prod", "target: test"), "none of targets"),
        (GOOD.replace("vault_role: r", "vault_role: a/b"), "names of Vault"),
        (GOOD.replace("my-postgres-se", "sys/x"), "belongs to Vault"),
        (GOOD.replace("24h", "a while"), "duration"),
        (GOOD.replace("db_name: d", "revocation_statements: DROP"), "db_name"),
        ("roles: 7", "mapping with a name"),
        (GOOD.replace("HTTPS://vault.example:8200}", "'https://x', ca_file: /nowhere}"), "/nowhere"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(StartupRefusedError, match=why):
        read_catalog(written(tmp_path, text))
