"""kubectl's connection flags over a kubeconfig. The kubeconfigs are read by the official client; nothing is connected to."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.kubectl_vault.kubeconfig import Access, Flags, load
from cli.kubectl_vault.problem import CommandError

CA = base64.b64encode(b"a certificate").decode()


def a_kubeconfig(**top: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [
            {"name": "east", "cluster": {"server": "https://east:6443/", "certificate-authority-data": CA}},
            {"name": "west", "cluster": {"server": "https://west:6443", "insecure-skip-tls-verify": True}},
        ],
        "users": [
            {"name": "alice", "user": {"token": "alice-token"}},
            {
                "name": "robot",
                "user": {"token": "robot-token", "as": "bob", "as-groups": ["approvers", "staff"], "as-uid": "7"},
            },
        ],
        "contexts": [
            {"name": "one", "context": {"cluster": "east", "user": "alice", "namespace": "demo"}},
            {"name": "two", "context": {"cluster": "west", "user": "robot"}},
        ],
    } | top


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(a_kubeconfig()))
    return str(file)


def token(access: Access) -> str:
    return str(access.configuration.get_api_key_with_prefix("BearerToken"))


def test_the_current_context_says_where_and_who(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig))
    assert (access.configuration.host, token(access), access.namespace) == (
        "https://east:6443",
        "Bearer alice-token",
        "demo",
    )
    assert access.configuration.verify_ssl
    assert Path(access.configuration.ssl_ca_cert or "").read_bytes() == b"a certificate"
    assert access.impersonate == ()


def test_the_environment_names_the_kubeconfig(kubeconfig: str) -> None:
    assert load(Flags(), {"KUBECONFIG": kubeconfig}).configuration.host == "https://east:6443"


def test_of_several_kubeconfigs_the_first_wins_as_in_kubectl(kubeconfig: str, tmp_path: Path) -> None:
    second = tmp_path / "second"
    contexts = [{"name": "three", "context": {"cluster": "west", "user": "alice"}}]
    second.write_text(yaml.safe_dump(a_kubeconfig(contexts=contexts, **{"current-context": "three"})))
    both = {"KUBECONFIG": f"{kubeconfig}:{second}"}
    assert load(Flags(), both).configuration.host == "https://east:6443"
    assert load(Flags(context="three"), both).configuration.host == "https://west:6443"


def test_another_context_cluster_user_and_namespace(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig, context="two"))
    assert (access.configuration.host, access.configuration.verify_ssl, access.namespace) == (
        "https://west:6443",
        False,
        "default",
    )
    access = load(Flags(kubeconfig=kubeconfig, cluster="west", namespace="other"))
    assert (access.configuration.host, token(access), access.namespace) == (
        "https://west:6443",
        "Bearer alice-token",
        "other",
    )
    assert token(load(Flags(kubeconfig=kubeconfig, user="robot"))) == "Bearer robot-token"


def test_a_token_takes_the_place_of_the_kubeconfigs_login(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig, context="two", token="mine"))
    assert token(access) == "Bearer mine"
    assert access.impersonate == ()


def test_a_server_alone_is_enough(tmp_path: Path) -> None:
    access = load(
        Flags(server="https://there:6443/", token="mine", certificate_authority="ca.pem"),
        {"KUBECONFIG": str(tmp_path / "none")},
    )
    assert (access.configuration.host, access.configuration.ssl_ca_cert) == ("https://there:6443", "ca.pem")


def test_insecure_means_no_check(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig, insecure=True))
    assert not access.configuration.verify_ssl
    assert access.configuration.ssl_ca_cert is None


def test_acting_as_somebody_with_several_groups(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig, as_user="bob", as_groups=("approvers", "staff"), as_uid="9"))
    groups = [("Impersonate-Group", "approvers"), ("Impersonate-Group", "staff")]
    assert list(access.impersonate) == [("Impersonate-User", "bob"), ("Impersonate-Uid", "9"), *groups]


def test_a_kubeconfig_may_act_as_somebody_too(kubeconfig: str) -> None:
    access = load(Flags(kubeconfig=kubeconfig, context="two"))
    groups = [("Impersonate-Group", "approvers"), ("Impersonate-Group", "staff")]
    assert list(access.impersonate) == [("Impersonate-User", "bob"), ("Impersonate-Uid", "7"), *groups]


def test_no_retries_and_so_no_redirects(kubeconfig: str) -> None:
    assert load(Flags(kubeconfig=kubeconfig)).configuration.retries is False


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"context": "nope"}, 'no context "nope", only: one, two'),
        ({"cluster": "nope"}, 'no cluster "nope", only: east, west'),
        ({"user": "nope"}, 'no user "nope", only: alice, robot'),
        ({"as_groups": ("approvers",)}, "--as-group needs --as"),
    ],
)
def test_what_the_kubeconfig_lacks_is_named(kubeconfig: str, flags: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        load(Flags(kubeconfig=kubeconfig, **flags))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no kubeconfig"),
        ("just words", "is no kubeconfig"),
        ("a: [", "can not read the kubeconfig"),
        ("clusters: 7", "is no kubeconfig"),
        (yaml.safe_dump(a_kubeconfig(**{"current-context": ""})), "no current-context"),
        (yaml.safe_dump(a_kubeconfig(clusters=[])), 'no cluster "east", only: none'),
        (yaml.safe_dump(a_kubeconfig(users=[])), 'no user "alice", only: none'),
        (yaml.safe_dump(a_kubeconfig(contexts=[{"name": "one"}])), "can not be used"),
    ],
)
def test_an_odd_kubeconfig_is_told_in_one_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "odd"
    file.write_text(content)
    with pytest.raises(CommandError, match=says) as problem:
        load(Flags(kubeconfig=str(file)))
    assert "\n" not in str(problem.value)


def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CommandError, match="no cluster to talk to"):
        load(Flags(), {"KUBECONFIG": str(tmp_path / "none")})
    with pytest.raises(CommandError, match="there is no kubeconfig"):
        load(Flags(kubeconfig=str(tmp_path / "none")), {})


def test_tokens_are_not_printed(kubeconfig: str) -> None:
    flags = Flags(kubeconfig=kubeconfig, token="mine")
    assert "mine" not in repr(flags)
    assert "mine" not in repr(load(flags))
