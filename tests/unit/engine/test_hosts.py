"""M8: a team does not have Vault connect to itself, to its own machine or to a metadata service."""

from __future__ import annotations

import pytest

from services.common.errors import SpecInvalidError
from services.engine.hosts import check_hosts
from services.engine.url import DatabaseUrl

VAULT = "https://vault.example.com:8200"


def check(hosts: str, *, may_be_local: bool = False, vault: str = VAULT) -> None:
    url = DatabaseUrl.parse(f"postgresql://{hosts}/db", field="url")
    check_hosts(url, vault_address=vault, may_be_local=may_be_local, field="url")


LOCAL = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "db.localhost",
    "localhost.localdomain",
    "127.0.0.1",
    "127.8.9.10:5432",
    "[::1]",
    "[::1]:5432",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",  # noqa: S104
    "[::]",
    "169.254.169.254",
    "[fe80::1]",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "127.0.0.01",
    "db.example.com,127.0.0.1",
]


@pytest.mark.parametrize("hosts", LOCAL)
def test_m8_vaults_own_machine_is_no_host_of_a_database(hosts: str) -> None:
    with pytest.raises(SpecInvalidError, match="localDatabases"):
        check(hosts)
    check(hosts, may_be_local=True)


@pytest.mark.parametrize("hosts", ["db.example.com", "10.0.0.7:6432", "[2001:db8::1]", "postgres.demo.svc", "db1,db2"])
def test_any_other_host_may_be_one(hosts: str) -> None:
    check(hosts)


@pytest.mark.parametrize("may_be_local", [False, True])
@pytest.mark.parametrize(
    ("hosts", "vault"),
    [
        ("vault.example.com:8200", VAULT),
        ("db,VAULT.example.com:8200", VAULT),
        ("vault.example.com.:8200", VAULT),
        ("vault.example.com:8200", "https://vault.example.com.:8200"),
        ("10.0.0.1:8200", "https://10.0.0.1:8200"),
        ("[2001:db8::1]:443", "https://[2001:db8::1]"),
    ],
)
def test_m8_vault_itself_is_none(hosts: str, vault: str, may_be_local: bool) -> None:
    with pytest.raises(SpecInvalidError, match="Vault's own address"):
        check(hosts, vault=vault, may_be_local=may_be_local)
    check("vault.example.com:5432")
