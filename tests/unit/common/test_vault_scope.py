"""Which paths and addresses are taken, and which a process may touch."""

from __future__ import annotations

import pytest

from services.common.errors import PathNotOwnedError, SpecInvalidError
from services.common.texts import escaped
from services.common.vault.paths import mount_path
from services.common.vault.scope import Scope
from services.common.vault_config.address import Address, AddressError
from services.engine.scope import SCOPE as ENGINE
from services.roles.scope import SCOPE as ROLES


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        (ENGINE, "GET", "sys/mounts/my-postgres-se"),
        (ENGINE, "DELETE", "sys/mounts/team/orders"),
        (ENGINE, "POST", "sys/mounts/team/orders/tune"),
        (ENGINE, "POST", "my-postgres-se/config/k8s.-.demo.postgres-app"),
        (ENGINE, "POST", "team/orders/config/k8s.-.demo.postgres-app"),
        (ROLES, "GET", "sys/mounts/my-postgres-se"),
        (ROLES, "DELETE", "team/orders/roles/k8s.-.demo.psql-role"),
    ],
)
def test_a_process_may_touch_its_own_family(scope: Scope, method: str, path: str) -> None:
    scope.check_request(method, path)


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        (ENGINE, "GET", "my-postgres-se/roles/x"),
        (ENGINE, "GET", "my-postgres-se/creds/x"),
        (ENGINE, "LIST", "my-postgres-se/config/x"),
        (ENGINE, "POST", "sys/policies/acl/config/x"),
        (ENGINE, "POST", "auth/kubernetes/config/x"),
        (ENGINE, "POST", "identity/config/x"),
        (ENGINE, "GET", "sys/mounts"),
        (ENGINE, "GET", "sys/mounts/"),
        (ENGINE, "GET", "sys/mounts/sys/x"),
        (ENGINE, "GET", "/sys/mounts/x"),
        (ENGINE, "GET", "x/config/../roles/y"),
        (ENGINE, "GET", "x/config/%2e%2e/y"),
        (ENGINE, "GET", "x/config/y?list=true"),
        (ENGINE, "GET", "x/config/y#z"),
        (ENGINE, "GET", "x/config/a b"),
        (ENGINE, "GET", "x/config/a\r\nX: y"),
        (ROLES, "POST", "sys/mounts/my-postgres-se"),
        (ROLES, "DELETE", "sys/mounts/my-postgres-se"),
        (ROLES, "POST", "my-postgres-se/config/x"),
        (ROLES, "POST", "my-postgres-se/roles/a/b"),
        (ROLES, "POST", "auth/token/roles/x"),
        (ROLES, "GET", "my-postgres-se/roles/"),
        (ROLES, "GET", ""),
    ],
)
def test_and_nothing_else(scope: Scope, method: str, path: str) -> None:
    with pytest.raises(PathNotOwnedError) as refused:
        scope.check_request(method, path)
    assert refused.value.metadata["path"] == escaped(path)


def test_a_refusal_shows_no_whole_lease_id() -> None:
    with pytest.raises(PathNotOwnedError) as refused:
        ROLES.check_request("POST", "sys/leases/revoke/m/creds/r/chQO2c89Wf2zieXYA9KoL9sb")
    assert "chQO2c89" not in refused.value.message + str(refused.value.metadata)


@pytest.mark.parametrize("pattern", ["x/config/*", "PATCH x", "GET,put x", "GET"])
def test_a_malformed_pattern_is_found_at_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match="METHODS path"):
        Scope(pattern)


@pytest.mark.parametrize(
    ("given", "path"),
    [("", "database"), ("/", "database"), ("a/", "a"), ("//a/b//", "a/b"), ("My_Mount-1.2", "My_Mount-1.2")],
)
def test_a_mount_path(given: str, path: str) -> None:
    assert mount_path(given, field="path") == path


@pytest.mark.parametrize(
    "given",
    [
        "a//b",
        "a/../b",
        ".",
        "..",
        "a b",
        "a\n",
        "ä",
        "sys",
        "sys/x",
        "auth/x",
        "identity",
        "cubbyhole/x",
        "x/creds",
        "x/roles/y",
        "a%2fb",
    ],
)
def test_no_mount_path(given: str) -> None:
    with pytest.raises(SpecInvalidError) as invalid:
        mount_path(given, field="spec.path")
    assert invalid.value.violations[0].field == "spec.path"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("HTTPS://Vault.Demo.svc:8200", "https://vault.demo.svc:8200"),
        ("https://vault:8200/", "https://vault:8200"),
        ("https://vault", "https://vault:443"),
        ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
        ("https://[::1]:8200", "https://[::1]:8200"),
    ],
)
def test_an_address_is_compared_in_one_form(given: str, address: str) -> None:
    assert str(Address.parse(given)) == address


@pytest.mark.parametrize(
    "given",
    [
        "",
        "vault",
        "vault:8200",
        "ftp://vault",
        "https://",
        "https://a@vault",
        "https://a:b@vault",
        "https://vault/v1",
        "https://vault?x",
        "https://vault#x",
        "https://vault:0",
        "https://vault:x",
        "https://vault:70000",
        "https://va ult",
        "https://vault\r\nX: y",
        "https://[::1",
    ],
)
def test_no_address(given: str) -> None:
    with pytest.raises(AddressError) as wrong:
        Address.parse(given)
    assert ":b@" not in str(wrong.value)
