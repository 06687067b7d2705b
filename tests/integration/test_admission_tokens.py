"""H4: which tokens the watcher makes. RBAC limits the names, and a policy names, audience and lifetime."""

from __future__ import annotations

import pytest

from tests.integration.kube import WATCHER, Json, Kube, Running, refusal
from tests.integration.rbac_world import enabled_namespace, watcher_by_token

AUDIENCE = "leasegate-vault"


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    """An enabled namespace with the guide's ServiceAccount, and one with rights of its own."""
    name, admin = enabled_namespace(cluster), Kube(cluster)
    for account in ("vault", "deployer"):
        admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": name}})
    return name


@pytest.fixture(scope="module")
def watcher(cluster: Running, namespace: str) -> Kube:
    return watcher_by_token(cluster, namespace)


@pytest.fixture(scope="module")
def mighty(cluster: Running) -> Kube:
    """The watcher with all rights, so that nothing but the policy refuses it anything."""
    return Kube(cluster, act_as=WATCHER, groups=("system:masters",))


def path(namespace: str, account: str = "vault") -> str:
    return f"api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"


def asked(*audiences: str, seconds: int | None = 600) -> Json:
    lifetime = {} if seconds is None else {"expirationSeconds": seconds}
    return {"spec": lifetime | ({"audiences": list(audiences)} if audiences else {})}


def test_it_makes_what_vault_needs(watcher: Kube, namespace: str) -> None:
    for where in (path(namespace), path("leasegate-system", "leasegate-watcher")):
        assert watcher.call("POST", where, asked(AUDIENCE))["status"]["token"]


@pytest.mark.parametrize("account", ["deployer", "default"])
def test_rbac_refuses_other_service_accounts(watcher: Kube, namespace: str, account: str) -> None:
    """H4: whatever an AppBinding names."""
    refused = refusal(watcher, "call", "POST", path(namespace, account), asked(AUDIENCE))
    assert (refused.status, "serviceaccounts/token" in refused.message) == (403, True)


def test_rbac_refuses_a_namespace_that_is_not_enabled(admin: Kube, watcher: Kube) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vault", "namespace": "default"}}
    admin.create(account)
    try:
        assert refusal(watcher, "call", "POST", path("default"), asked(AUDIENCE)).status == 403
    finally:
        admin.delete("ServiceAccount", "vault", "default")


@pytest.fixture(scope="module")
def admin(cluster: Running) -> Kube:
    return Kube(cluster)


@pytest.mark.parametrize(
    ("account", "body", "why"),
    [
        ("vault", asked(), "for the audience leasegate-vault alone"),
        ("vault", asked("https://kubernetes.default.svc"), "for the audience leasegate-vault alone"),
        ("vault", asked("vault"), "for the audience leasegate-vault alone"),
        ("vault", asked(AUDIENCE, "https://kubernetes.default.svc"), "for the audience leasegate-vault alone"),
        ("vault", asked(AUDIENCE, seconds=601), "for ten minutes at most"),
        ("vault", asked(AUDIENCE, seconds=None), "for ten minutes at most"),
        ("vault", asked(AUDIENCE, seconds=86400), "for ten minutes at most"),
        ("deployer", asked(AUDIENCE), "makes no token of ServiceAccount"),
        ("leasegate-watcher", asked(AUDIENCE), "makes no token of ServiceAccount"),
    ],
)
def test_the_policy_refuses_other_tokens(
    admin: Kube, mighty: Kube, namespace: str, account: str, body: Json, why: str
) -> None:
    """H4: also to a watcher that holds every right; Invalid, as Forbidden means a namespace that is not enabled."""
    if account == "leasegate-watcher":
        meta = {"name": account, "namespace": namespace}
        admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    refused = refusal(mighty, "call", "POST", path(namespace, account), body)
    assert (refused.status, why in refused.message) == (422, True), refused.message


@pytest.mark.parametrize("account", ["leasegate-engine", "leasegate-access"])
def test_the_policy_refuses_tokens_of_the_services(mighty: Kube, account: str) -> None:
    """With one, the watcher could act at Vault as another process."""
    assert refusal(mighty, "call", "POST", path("leasegate-system", account), asked(AUDIENCE)).status == 422


def a_secret(namespace: str, name: str, kind: str, account: str = "deployer") -> Json:
    annotations = {"kubernetes.io/service-account.name": account}
    meta = {"name": name, "namespace": namespace, "annotations": annotations}
    data = {"type": kind} if kind else {}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"a": "b"}} | data


@pytest.mark.parametrize("kind", ["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "my/own"])
def test_no_secret_becomes_a_token(watcher: Kube, namespace: str, kind: str) -> None:
    """H4: Kubernetes would fill it with a token of any ServiceAccount, for ever, and the watcher reads Secrets."""
    refused = refusal(watcher, "create", a_secret(namespace, "filled", kind), dry_run=True)
    assert (refused.status, "of type Opaque alone" in refused.message) == (422, True), refused.message


def test_secrets_of_credentials_are_written(admin: Kube, watcher: Kube, namespace: str) -> None:
    """And others' Secrets of other types are changed by the watcher neither."""
    made = watcher.create(a_secret(namespace, "credential", ""))
    change = {"stringData": {"a": "c"}}
    assert watcher.patch(made, change)["type"] == "Opaque"
    other = admin.create(a_secret(namespace, "other", "my/own"))
    assert refusal(watcher, "patch", other, change).status == 422


def test_the_policy_is_about_the_watcher_alone(admin: Kube, namespace: str) -> None:
    assert admin.call("POST", path(namespace, "deployer"), asked("anything", seconds=3600))["status"]["token"]
