"""Targets: what tells two of them apart, and that none of them prints a secret."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leasegate.types.v1 import types_pb2
from services.common.errors import SpecInvalidError
from services.common.vault.object_ref import ObjectRef
from services.common.vault.target import KubernetesAuth, TokenAuth, UserpassAuth, VaultTarget
from services.common.vault.transport import Endpoint
from services.common.vault_config.address import Address

BASE = VaultTarget(
    name="vault",
    namespace="demo",
    cluster="-",
    address="https://vault:8200",
    auth=KubernetesAuth(mount="kubernetes", auth_role="r", jwt="e.y.J"),
)


def message(**more: object) -> types_pb2.VaultTarget:
    source = types_pb2.ObjectRef(cluster="-", cluster_uid="uid", namespace="demo", name="vault")
    return types_pb2.VaultTarget(**{"source": source, "address": "https://vault:8200", **more})  # type: ignore[arg-type]


def test_a_new_auth_is_the_same_target() -> None:
    for same in (
        replace(BASE, address="HTTPS://Vault:8200/"),
        replace(BASE, ca_bundle=b"other"),
        replace(BASE, auth=KubernetesAuth(mount="kubernetes", auth_role="other", jwt="e.y.K")),
        replace(BASE, auth=KubernetesAuth(mount="k2", auth_role="r", jwt="e.y.J")),
        replace(BASE, auth=None),
    ):
        assert same.key == BASE.key
    assert len(BASE.digest) == 16


def test_a_named_vault_is_the_same_target_wherever_it_is() -> None:
    named = replace(BASE, vault="main")
    assert replace(named, address="https://elsewhere", vault_namespace="org").key == named.key
    assert replace(named, vault="other").key != named.key != BASE.key


def test_another_address_or_vault_namespace_is_another_target() -> None:
    for other in (
        replace(BASE, address="https://vault:8201"),
        replace(BASE, vault_namespace="org"),
        replace(BASE, name="other"),
        replace(BASE, namespace="other"),
        replace(BASE, cluster="other"),
    ):
        assert other.key != BASE.key


def test_the_reference_has_no_secret_and_names_the_place() -> None:
    reference = BASE.ref()
    assert reference.digest == BASE.digest
    assert (reference.namespace, reference.name, reference.address) == ("demo", "vault", "https://vault:8200")
    assert "e.y.J" not in str(reference)


def test_nothing_prints_a_secret() -> None:
    endpoint = Endpoint(address=Address.parse(BASE.address), private_key=b"secret")
    for each in (BASE, BASE.auth, TokenAuth("secret"), UserpassAuth("userpass", "u", "secret"), endpoint):
        assert "secret" not in repr(each)
        assert "e.y.J" not in repr(each)


def test_decoding() -> None:
    target = VaultTarget.from_proto(
        message(
            vault_namespace="/org/",
            kubernetes=types_pb2.KubernetesAuth(mount="/k8s/", auth_role="r", jwt="e.y.J"),
            ca_bundle=b"",
        )
    )
    assert (target.cluster_uid, target.vault_namespace, target.vault) == ("uid", "org", "")
    assert target.auth == KubernetesAuth(mount="k8s", auth_role="r", jwt="e.y.J")
    assert target.display == "demo/vault"


def test_auth_without_its_secret_is_absent() -> None:
    assert VaultTarget.from_proto(message(userpass=types_pb2.UserpassAuth(username="u"))).auth is None


def test_a_reference_names_the_same_target() -> None:
    target = VaultTarget.from_proto(message(vault="main"))
    assert VaultTarget.from_ref(target.ref()).key == target.key
    with pytest.raises(SpecInvalidError, match=r"target\.vault"):
        VaultTarget.from_proto(message(vault="a/b"))


@pytest.mark.parametrize(
    ("auth", "mount"),
    [
        ({"kubernetes": types_pb2.KubernetesAuth(auth_role="r", jwt="j")}, "kubernetes"),
        ({"token": types_pb2.TokenAuth(token="t")}, "token"),
        ({"userpass": types_pb2.UserpassAuth(username="u", password="p w")}, "userpass"),
        ({"certificate": types_pb2.CertificateAuth(certificate=b"c", private_key=b"k")}, "cert"),
        ({"app_role": types_pb2.AppRoleAuth(role_id="r", secret_id="s")}, "approle"),
    ],
)
def test_default_mounts(auth: dict[str, object], mount: str) -> None:
    target = VaultTarget.from_proto(message(**auth))
    assert target.auth is not None
    assert target.auth.mount == mount


def test_all_wrong_fields_are_named_at_once() -> None:
    with pytest.raises(SpecInvalidError) as invalid:
        VaultTarget.from_proto(message(address="", ca_bundle=b"x", server_name="a/b"), path="spec.vault")
    assert [violation.field for violation in invalid.value.violations] == [
        "spec.vault.address",
        "spec.vault.server_name",
        "spec.vault.ca_bundle",
    ]


def test_a_ca_bundle_does_not_matter_where_nothing_is_checked() -> None:
    assert VaultTarget.from_proto(message(ca_bundle=b"x", insecure_skip_tls_verify=True)).insecure_skip_tls_verify


def test_names_in_vault() -> None:
    ref = types_pb2.ObjectRef(cluster="-", cluster_uid="u", namespace="demo", name="psql-role")
    assert ObjectRef.from_proto(ref).vault_name == "k8s.-.demo.psql-role"
    ref.cluster = "blue"
    assert ObjectRef.from_proto(ref).vault_name == "k8s.blue.demo.psql-role"
    assert ObjectRef.from_proto(ref).entry == "demo/psql-role"
    outside = ObjectRef.from_proto(types_pb2.ObjectRef(name="reader"))
    assert (outside.vault_name, outside.entry, outside.cluster_id) == ("reader", "reader", "-")
