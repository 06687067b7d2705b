"""The watcher's right to keep the ledger's id, on a real API server: one ConfigMap of one namespace."""

from __future__ import annotations

import pytest

from tests.eventually import eventually
from tests.integration.kube import WATCHER, Can, Kube, Running, refusal

PATH = "api/v1/namespaces/leasegate-system/configmaps"


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    token = cluster.kubectl("create", "token", "leasegate-watcher", "-n", "leasegate-system").stdout.strip()
    return Kube(cluster, token=token)


def test_it_makes_reads_and_changes_its_own_config_map(watcher: Kube) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "leasegate-ledger", "namespace": "leasegate-system"},
    }
    eventually(lambda: watcher.call("POST", PATH, body | {"data": {"ledger-id": "one"}}), what="its rights in force")
    found = watcher.call("GET", f"{PATH}/leasegate-ledger")
    changed = watcher.call("PUT", f"{PATH}/leasegate-ledger", found | {"data": {"ledger-id": "two"}})
    assert changed["data"] == {"ledger-id": "two"}


def test_it_does_no_more_with_config_maps(cluster: Running, watcher: Kube) -> None:
    assert refusal(watcher, "call", "GET", PATH).status == 403
    assert refusal(watcher, "call", "GET", f"{PATH}/kube-root-ca.crt").status == 403
    can = Can(Kube(cluster), user=WATCHER)
    assert not can("delete", "configmaps", group="", namespace="leasegate-system", name="leasegate-ledger")
    for verb in ("get", "update", "create"):
        assert not can(verb, "configmaps", group="", namespace="default", name="leasegate-ledger")
