"""The file of ``--vault-config``: what it says, what it refuses, and which entry an address chooses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.common.errors import PathNotOwnedError, VaultNotAllowedError
from services.common.vault_config.address import Address
from services.common.vault_config.entries import VaultConfig, VaultEntry, vault_identity
from services.common.vault_config.read import VaultConfigError, read_vault_config

AUTH = {
    name: {"kubernetes": {"role": f"leasegate-{name}", "tokenFile": "/t"}} for name in ("engine", "roles", "access")
}
MAIN: dict[str, Any] = {
    "name": "main",
    "addresses": ["https://vault.vault.svc:8200", "https://vault.*.svc:8200", "https://vault.example.com"],
    "auth": AUTH,
    "teamAuth": {"tokenAudience": "leasegate-vault"},
    "mounts": {"owned": [{"path": "my-postgres-se", "namespaces": ["demo"]}, {"path": "team/{namespace}"}]},
}


def read(tmp_path: Path, *entries: Any) -> VaultConfig:
    (tmp_path / "vaults.yaml").write_text(yaml.safe_dump({"vaults": list(entries)}))
    return read_vault_config(tmp_path / "vaults.yaml")


def main(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(MAIN) | changes


def other(**changes: Any) -> dict[str, Any]:
    return main(name="other", addresses=["https://other:8200"], **changes)


def entry(tmp_path: Path, **changes: Any) -> VaultEntry:
    return read(tmp_path, main(**changes)).entries[0]


def test_everything_that_an_entry_may_say(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        caFile="/ca.crt",
        vaultNamespace="/org/team/",
        auth=AUTH | {"access": {"approle": {"mount": "m", "roleIdFile": "/r", "secretIdFile": "/s"}}},
        teamAuth={
            "methods": ["kubernetes", "token"],
            "mounts": ["k8s"],
            "tokenAudience": "a",
            "serviceAccounts": ["v"],
        },
        mounts=MAIN["mounts"] | {"adoptable": [{"path": "legacy", "namespaces": ["demo"]}]},
        maxRequestDuration="2m",
        formerNames=["oldest", "older"],
    )
    assert found.address == "https://vault.vault.svc:8200"
    assert (found.ca_file, found.vault_namespace, found.max_request_duration_s) == (Path("/ca.crt"), "org/team", 120)
    assert (found.auth["access"].method, found.auth["access"].options["roleIdFile"]) == ("approle", "/r")
    assert (found.team_auth.methods, found.team_auth.mounts) == (("kubernetes", "token"), ("k8s",))
    assert (found.team_auth.token_audience, found.team_auth.service_accounts) == ("a", ("v",))
    assert (found.name, found.identity, found.names) == ("main", "oldest", ("main", "oldest", "older"))


def test_what_an_entry_leaves_out_has_a_default(tmp_path: Path) -> None:
    found = entry(tmp_path)
    assert (found.ca_file, found.vault_namespace, found.max_request_duration_s, found.identity) == (
        None,
        "",
        90,
        "main",
    )
    assert found.team_auth.service_accounts == ("vault",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"adresses": []}, "unknown key 'adresses': there are name, addresses"),
        ({"name": None}, "name is missing"),
        ({"name": "Main"}, "name is 'Main'"),
        ({"addresses": []}, "addresses is missing"),
        ({"addresses": "https://a"}, "addresses is no list"),
        ({"addresses": ["vault:8200"]}, r"addresses\[0\] 'vault:8200' needs the scheme"),
        ({"addresses": ["https://vault.*.svc"]}, "put an exact one there"),
        ({"addresses": ["http://vault.vault.svc:8200"]}, "plain http"),
        ({"addresses": ["https://a", "https://va*lt.svc"]}, "inside a label"),
        ({"addresses": ["https://a", "https://vault.*"]}, "name at least the last label"),
        ({"addresses": ["https://a", "https://u:p@b"]}, "must not hold a user name"),
        ({"auth": None}, "auth lacks engine, roles, access"),
        ({"auth": {name: AUTH[name] for name in ("engine", "roles")}}, "auth lacks access: say"),
        ({"auth": AUTH | {"watcher": AUTH["engine"]}}, "unknown key 'watcher'"),
        ({"auth": AUTH | {"roles": {}}}, "auth.roles: exactly one of kubernetes"),
        ({"auth": AUTH | {"roles": {"kubernetes": {"role": "r", "token": "s.1"}}}}, "secrets are named by file"),
        ({"auth": AUTH | {"roles": {"kubernetes": {"role": 1, "tokenFile": "/t"}}}}, "kubernetes.role is no text"),
        ({"teamAuth": None}, "teamAuth is missing"),
        ({"teamAuth": {}}, "tokenAudience is missing"),
        ({"teamAuth": {"tokenAudience": "a", "methods": ["ldap"]}}, "methods has 'ldap'"),
        ({"teamAuth": {"tokenAudience": "a", "audience": "b"}}, "unknown key 'audience'"),
        ({"mounts": None}, "mounts.owned is missing"),
        ({"mounts": {"owned": []}}, "mounts.owned is missing"),
        ({"mounts": {"owned": ["a"]}}, r"owned\[0\]: a mapping with path"),
        ({"mounts": {"owned": [{"path": "a"}]}}, "needs namespaces"),
        ({"mounts": {"owned": [{"path": "a", "namespaces": []}]}}, "namespaces is empty"),
        ({"mounts": {"owned": [{"path": "a", "namespaces": ["De mo"]}]}}, "name a namespace"),
        ({"mounts": {"owned": [{"path": "pg-{namespace}"}]}}, "no path of a mount"),
        ({"mounts": {"owned": [{"path": "team/*/x", "namespaces": ["*"]}]}}, "no path of a mount"),
        ({"mounts": {"owned": [{"path": "a/../b", "namespaces": ["*"]}]}}, "no path of a mount"),
        ({"maxRequestDuration": "soon"}, "maxRequestDuration 'soon' is no duration"),
        ({"vaultNamespace": "a b"}, "no path of a Vault namespace"),
        ({"formerNames": ["main"]}, "'main' is there twice"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name_and_a_way_on(tmp_path: Path, changes: Any, expected: str) -> None:
    with pytest.raises(VaultConfigError, match=expected) as caught:
        entry(tmp_path, **changes)
    assert str(tmp_path / "vaults.yaml") in str(caught.value)
    assert "main" in str(caught.value).lower() or "vaults[0]" in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "a: 1", "", "[]", "vaults: []", "- {address: 'https://a'}", "vaults: {}"])
def test_a_file_without_entries_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "vaults.yaml").write_text(text)
    with pytest.raises(VaultConfigError, match=r"vaults\.yaml"):
        read_vault_config(tmp_path / "vaults.yaml")


def test_exactly_one_of_file_and_any_vault_is_given(tmp_path: Path) -> None:
    assert read_vault_config(None, allow_any_vault=True).any_vault
    for path, any_vault, expected in ((None, False, "missing"), (tmp_path / "v.yaml", True, "exclude each other")):
        with pytest.raises(VaultConfigError, match=expected):
            read_vault_config(path, allow_any_vault=any_vault)
    with pytest.raises(VaultConfigError, match="No such file"):
        read_vault_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "address",
    ["https://VAULT.vault.svc.:8200/", "https://vault.other.svc:8200", "https://vault.example.com:443"],
)
def test_m7_entries_that_one_address_chooses_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(VaultConfigError, match="main and other overlap"):
        read(tmp_path, main(), other() | {"addresses": ["https://other:8200", address]})
    with pytest.raises(VaultConfigError, match="overlap"):
        read(tmp_path, main(), other() | {"addresses": ["https://other:8200", "https://*.example.com"]})
    with pytest.raises(VaultConfigError, match="'main' is there twice"):
        read(tmp_path, main(), other() | {"name": "main"})


def test_vault_namespaces_of_one_server_are_chosen_by_name(tmp_path: Path) -> None:
    config = read(tmp_path, main(), main(name="team", vaultNamespace="org/team"))
    address = "https://vault.demo.svc:8200"
    assert config.choose(address, name="team").name == "team"
    assert config.choose(address, vault_namespace="/org/team").name == "team"
    with pytest.raises(VaultNotAllowedError, match="`vault: NAME`") as caught:
        config.choose(address)
    assert "main, team" in caught.value.message
    with pytest.raises(VaultNotAllowedError, match="not for the Vault namespace 'org/evil'"):
        config.choose(address, vault_namespace="org/evil")


@pytest.mark.parametrize(
    ("address", "chosen"),
    [
        ("https://vault.vault.svc:8200", True),
        ("HTTPS://Vault.Demo.SVC.:8200/", True),
        ("https://vault.example.com:443", True),
        ("http://vault.vault.svc:8200", False),
        ("https://vault.vault.svc:8201", False),
        ("https://vault.a.b.svc:8200", False),
        ("https://vault..svc:8200", False),
        ("https://vault.svc:8200", False),
        ("https://vault.demo.svc.evil.com:8200", False),
        ("https://127.0.0.1:18200", False),
        ("https://user@vault.vault.svc:8200", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_m8_only_a_listed_address_chooses_an_entry(tmp_path: Path, address: str, chosen: bool) -> None:
    config = read(tmp_path, main(), other())
    if chosen:
        assert config.choose(address).name == "main"
        assert config.choose(address, name="main").address == "https://vault.vault.svc:8200"
    else:
        with pytest.raises(VaultNotAllowedError, match="in no entry") as caught:
            config.choose(address)
        assert caught.value.changed_nothing


def test_a_name_does_not_make_an_address_allowed(tmp_path: Path) -> None:
    config = read(tmp_path, main(), other())
    with pytest.raises(VaultNotAllowedError, match="in no entry"):
        config.choose("https://evil:8200", name="main")
    with pytest.raises(VaultNotAllowedError, match="no address of an entry named 'other'"):
        config.choose("https://vault.example.com", name="other")


def test_a_vault_in_use_is_found_by_names_then_its_address(tmp_path: Path) -> None:
    config = read(tmp_path, main(name="new", formerNames=["old"]), other())
    for name in ("new", "old"):
        assert config.recorded(vault=name, address="https://gone:1").identity == "old"
    assert config.recorded(vault="removed", address="https://vault.example.com:443").name == "new"
    with pytest.raises(VaultNotAllowedError, match="'removed' to formerNames"):
        config.recorded(vault="removed", address="https://gone:1")
    with pytest.raises(VaultNotAllowedError):
        config.recorded(vault="removed", address="https://vault.example.com", vault_namespace="elsewhere")


def test_a_vault_without_a_name_is_known_by_one_form_of_its_address() -> None:
    spellings = ("https://a:443", "HTTPS://A/", "https://a.")
    assert {vault_identity(vault="", address=each) for each in spellings} == {"https://a:443"}
    assert vault_identity(vault="", address="https://a", vault_namespace="/org/") == "https://a:443/org"
    assert vault_identity(vault="main", address="https://a") == "main"
    assert str(Address.parse("https://[0:0:0:0:0:0:0:1]:8200")) == "https://[::1]:8200"


RULES = [
    {"path": "my-postgres-se", "namespaces": ["demo"]},
    {"path": "team/{namespace}"},
    {"path": "team/{namespace}/*"},
    {"path": "team/shared", "namespaces": ["demo", "ns-b"]},
    {"path": "database", "namespaces": ["*"]},
]


@pytest.mark.parametrize(
    ("path", "namespace", "allowed"),
    [
        ("my-postgres-se", "demo", True),
        ("my-postgres-se", "evil", False),
        ("my-postgres-se", "", False),
        ("team/evil", "evil", True),
        ("team/evil/db", "evil", True),
        ("team/demo", "evil", False),
        ("team/demo/db", "evil", False),
        ("team/evilness", "evil", False),
        ("team/", "", False),
        ("team/shared", "ns-b", True),
        ("team/shared", "shared", False),  # the rule for just this path decides
        ("legacy", "demo", True),
        ("legacy", "evil", False),
        ("database", "evil", True),
        ("database", "", True),
        ("elsewhere", "demo", False),
    ],
)
def test_m7_a_mount_is_for_the_namespaces_that_it_names(
    tmp_path: Path, path: str, namespace: str, allowed: bool
) -> None:
    found = entry(tmp_path, mounts={"owned": RULES, "adoptable": [{"path": "legacy", "namespaces": ["demo"]}]})
    if allowed:
        found.check_mount(path, namespace=namespace)
    else:
        with pytest.raises(PathNotOwnedError, match=r"mounts\.owned"):
            found.check_mount(path, namespace=namespace)
    assert found.mounts.permit_adoption(path, namespace=namespace) is ((path, namespace) == ("legacy", "demo"))


def test_a_refused_path_comes_with_one_to_choose(tmp_path: Path) -> None:
    with pytest.raises(PathNotOwnedError, match="such as team/evil"):
        entry(tmp_path).check_mount("my-postgres-se", namespace="evil")
