"""The watcher's audit of Roles and RoleBindings on a real API server, without fast-rbac.yaml and with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from dev.stack.stack import LocalStack
from leasegate.access.v1 import watcher_service_pb2
from tests.eventually import eventually
from tests.integration.rbac_world import fast_rbac
from tests.integration.watcher_stack import Running, manifest, running_watcher
from watcher.kube.client import HttpKubeClient
from watcher.kube.resources import Body

NAMES = [f"reader-{number}" for number in range(5)]
SPACE = "readers"
REQUEST = "databaseaccessrequest"
ENSURE = watcher_service_pb2.EnsureAccessRequestRequest


@pytest.fixture(scope="module", params=["default", "fast"])
def watcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A watcher of a cluster of its own, with five requests that have their credentials."""
    with (
        LocalStack.start(tmp_path_factory.mktemp("cluster"), services=False) as cluster,
        running_watcher(cluster) as running,
        ExitStack() as stack,
    ):
        running.kubectl("create", "namespace", SPACE)
        running.apply(SPACE, "enabled")
        if request.param == "fast":
            stack.enter_context(fast_rbac(cluster, SPACE))
        running.apply(SPACE, "vault", "postgres-app", "postgresSecretEngine", "postgresRole")
        body = yaml.safe_load(manifest("postgresAccessRequest", SPACE))
        bodies = [body | {"metadata": {"name": name, "namespace": SPACE}} for name in NAMES]
        running.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(bodies))
        eventually(
            lambda: all(running.get(SPACE, REQUEST, name).get("status", {}).get("digest") for name in NAMES),
            what="all digests",
        )
        for name in NAMES:
            running.decide(SPACE, name=name)
        eventually(
            lambda: all(readers(running, kind).keys() >= set(NAMES) for kind in ("role", "rolebinding")),
            what="all readers",
        )
        eventually(
            lambda: all(running.get(SPACE, REQUEST, name)["status"].get("lease") for name in NAMES), what="all leases"
        )
        yield running


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The watcher's calls about Roles and RoleBindings, as "METHOD kind"; "LIST kind" for a whole collection."""
    made: list[str] = []
    call = HttpKubeClient._call

    def noted(self: HttpKubeClient, method: str, path: str, **options: Any) -> Body:
        group, _, rest = path.partition(f"/namespaces/{SPACE}/")
        if "rbac" in group:
            made.append(f"{'LIST' if method == 'GET' and '/' not in rest else method} {rest.split('/')[0]}")
        return call(self, method, path, **options)

    monkeypatch.setattr(HttpKubeClient, "_call", noted)
    return made


def readers(running: Running, kind: str) -> dict[str, Any]:
    """What a Role or RoleBinding of each request says."""
    items = json.loads(
        running.kubectl("get", kind, "-n", SPACE, "-l", "app.kubernetes.io/managed-by=leasegate", "-o", "json")
    )["items"]
    said = {item["metadata"]["ownerReferences"][0]["name"]: item for item in items}
    return {name: {key: item.get(key) for key in ("rules", "roleRef", "subjects")} for name, item in said.items()}


def change_rbac(running: Running, role: str, binding: str) -> None:
    """Delete one request's Role, and let somebody else read by another's RoleBinding."""
    running.kubectl("delete", "role", "-n", SPACE, f"DatabaseAccessRequest-{SPACE}-{role}-credential-reader")
    patch = json.dumps({"subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]})
    name = f"DatabaseAccessRequest-{SPACE}-{binding}-credential-reader"
    running.kubectl("patch", "rolebinding", "-n", SPACE, name, "--type=merge", "-p", patch)


def reconciled(running: Running) -> Callable[[], bool]:
    """Whether every request has been reconciled from now on."""
    asked = running.services.access.asked
    before = len(asked(ENSURE))
    uids = {running.get(SPACE, REQUEST, name)["metadata"]["uid"] for name in NAMES}
    return lambda: uids <= {call.object.uid for call in asked(ENSURE)[before:]}


def test_a_restart_reads_no_role_by_itself(watcher: Running, calls: list[str]) -> None:
    watcher.stop()
    every = reconciled(watcher)
    watcher.start()
    eventually(every, what="a reconcile of each")
    eventually(lambda: "LIST rolebindings" in calls, what="the audit")
    assert set(calls) == {"LIST roles", "LIST rolebindings"}


def test_changes_made_while_it_was_down_are_corrected_at_start(watcher: Running, calls: list[str]) -> None:
    before = {kind: readers(watcher, kind) for kind in ("role", "rolebinding")}
    watcher.stop()
    change_rbac(watcher, NAMES[1], NAMES[2])
    calls.clear()
    watcher.start()
    eventually(lambda: {kind: readers(watcher, kind) for kind in before} == before, timeout_s=30, what="all as it was")
    assert calls.count("POST roles") <= 4, "only the two that were changed"


def test_changes_made_while_it_runs_are_corrected_by_the_resync(watcher: Running) -> None:
    before = {kind: readers(watcher, kind) for kind in ("role", "rolebinding")}
    watcher.stop()
    watcher.start(resync_s=2.0)
    change_rbac(watcher, NAMES[3], NAMES[4])
    eventually(lambda: {kind: readers(watcher, kind) for kind in before} == before, timeout_s=60, what="all as it was")
