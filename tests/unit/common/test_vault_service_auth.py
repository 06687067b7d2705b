"""The file of a service's own auths."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common.errors import VaultAuthRefusedError
from services.common.vault.service_auth import ServiceAuthError, ServiceAuths
from services.common.vault.target import AppRoleAuth, CertificateAuth, KubernetesAuth

ONE = "- {address: 'https://a', kubernetes: {role: r, token_file: f}}"


def read(tmp_path: Path, text: str) -> ServiceAuths:
    (tmp_path / "own.yaml").write_text(text)
    return ServiceAuths.read_file(tmp_path / "own.yaml")


def test_all_methods_with_their_defaults(tmp_path: Path) -> None:
    for name in ("jwt", "role", "secret", "cert", "key"):
        (tmp_path / name).write_text(f"{name}-content\n")
    own = read(
        tmp_path,
        f"""
- address: HTTPS://a:8200
  kubernetes: {{role: leasegate-access, token_file: {tmp_path}/jwt}}
- address: https://b
  namespace: /org/
  max_request_duration: 2m
  approle: {{mount: other, role_id_file: {tmp_path}/role, secret_id_file: {tmp_path}/secret}}
- address: https://c
  certificate: {{name: n, cert_file: {tmp_path}/cert, key_file: {tmp_path}/key}}
""",
    )
    first, second, third = (
        own.find_auth("https://a:8200"),
        own.find_auth("https://b:443", "org"),
        own.find_auth("https://c"),
    )
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.auth_method() == KubernetesAuth("kubernetes", "leasegate-access", "jwt-content")
    assert first.max_request_duration_s == 90
    assert second.auth_method() == AppRoleAuth("other", "role-content", "secret-content")
    assert second.max_request_duration_s == 120
    assert third.auth_method() == CertificateAuth("cert", "n", b"cert-content\n", b"key-content\n")
    assert own.find_auth("https://b") is None
    assert own.find_auth("nonsense") is None
    (tmp_path / "jwt").write_text("rotated")
    assert first.auth_method() == KubernetesAuth("kubernetes", "leasegate-access", "rotated")
    (tmp_path / "jwt").unlink()
    with pytest.raises(VaultAuthRefusedError, match="jwt"):
        first.auth_method()


def test_none_is_none() -> None:
    assert list(ServiceAuths.read_file(None)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "no YAML"),
        ("a: 1", "a list of entries"),
        ("", "a list of entries"),
        ("- 1", "entry 1 is no mapping"),
        ("- {address: 'https://a'}", "exactly one of"),
        ("- {address: 'https://a', kubernetes: {}, approle: {}}", "exactly one of"),
        ("- {address: 'https://a', adress: x, kubernetes: {}}", "unknown key 'adress'"),
        ("- {address: 'https://a', kubernetes: {role: r}}", "kubernetes needs role, token_file"),
        ("- {address: 'https://a', kubernetes: {role: r, token_file: f, x: y}}", "kubernetes needs role, token_file"),
        ("- {address: vault, kubernetes: {role: r, token_file: f}}", "address needs the scheme"),
        ("- {address: 'https://a', max_request_duration: soon, kubernetes: {role: r, token_file: f}}", "no duration"),
        (f"{ONE}\n{ONE.replace('https://a', 'https://A:443/')}", "two entries"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ServiceAuthError, match=expected):
        read(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ServiceAuthError, match="No such file"):
        ServiceAuths.read_file(tmp_path / "none")
