"""A service's own auth at a Vault: its files are read at each authentication."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.errors import VaultAuthRefusedError, VaultNotAllowedError
from services.common.vault.target import AppRoleAuth, CertificateAuth, KubernetesAuth, VaultTarget
from services.common.vault.vaults import Vaults
from services.common.vault_config.address import Address
from tests.vaults import any_vault, entry, vaults


def own(tmp_path: Path, **auth: dict[str, str]) -> Vaults:
    for name in ("jwt", "role", "secret", "cert", "key"):
        (tmp_path / name).write_text(f"{name}-content\n")
    return vaults(entry("https://a:8200", auth={"access": auth}), service="access")


def test_all_methods_with_their_defaults(tmp_path: Path) -> None:
    methods = {
        "kubernetes": {"role": "leasegate-access", "tokenFile": f"{tmp_path}/jwt"},
        "approle": {"mount": "other", "roleIdFile": f"{tmp_path}/role", "secretIdFile": f"{tmp_path}/secret"},
        "certificate": {"name": "n", "certFile": f"{tmp_path}/cert", "keyFile": f"{tmp_path}/key"},
    }
    expected = {
        "kubernetes": KubernetesAuth("kubernetes", "leasegate-access", "jwt-content"),
        "approle": AppRoleAuth("other", "role-content", "secret-content"),
        "certificate": CertificateAuth("cert", "n", b"cert-content\n", b"key-content\n"),
    }
    for method, options in methods.items():
        found = own(tmp_path, **{method: options}).find_auth("main")
        assert found is not None
        assert found.auth_method() == expected[method]


def test_a_rotated_file_is_read_again_and_a_missing_one_named(tmp_path: Path) -> None:
    found = own(tmp_path, kubernetes={"role": "r", "tokenFile": f"{tmp_path}/jwt"}).find_auth("main")
    assert found is not None
    (tmp_path / "jwt").write_text("rotated")
    assert found.auth_method() == KubernetesAuth("kubernetes", "r", "rotated")
    (tmp_path / "jwt").unlink()
    with pytest.raises(VaultAuthRefusedError, match=r"Vault main of --vault-config needs the file .*jwt"):
        found.auth_method()


def test_only_the_services_own_part_is_used() -> None:
    assert list(vaults(entry("https://a"))) == []
    assert any_vault().find_auth("main") is None
    assert vaults(entry("https://a"), service="access").find_auth("other") is None


def target(address: str, **more: str) -> VaultTarget:
    described = VaultTarget(
        name="vault",
        namespace="demo",
        address=address,
        ca_bundle=b"PEM",
        insecure_skip_tls_verify=True,
        server_name="x",
    )
    return VaultTarget(**{name: getattr(described, name) for name in VaultTarget.__slots__} | more)


def test_m7_of_what_a_caller_says_only_the_entry_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("the entry's")
    named = vaults(
        entry(
            "https://first:8200",
            "https://vault.*.svc",
            caFile=f"{tmp_path}/ca",
            vaultNamespace="org",
            formerNames=["o"],
        )
    )
    spellings = [target("HTTPS://Vault.Demo.SVC.:443/"), target("https://first:8200", vault="main")]
    for found in (named.resolve(each) for each in spellings):
        assert (found.vault, found.address, found.vault_namespace) == ("o", "https://first:8200", "org")
        assert (found.ca_bundle, found.insecure_skip_tls_verify, found.server_name) == (b"the entry's", False, "")
        assert found.key == named.resolve(spellings[0]).key


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://first:8201", "http://first:8200", "https://evil"])
def test_m8_no_other_address_is_taken_or_connected_to(address: str) -> None:
    named = vaults(entry("https://first:8200"))
    for given in ({}, {"vault": "main"}, {"vault": "other"}):
        with pytest.raises(VaultNotAllowedError):
            named.resolve(target(address, **given))
    with pytest.raises(VaultNotAllowedError):
        named.check_address(Address.parse(address))
    with pytest.raises(VaultNotAllowedError):
        Vaults().resolve(target(address))
    any_vault().check_address(Address.parse(address))
    assert any_vault().resolve(target(address, vault="main")).vault == ""
