"""The watcher's client: the same cases against a real API server and the one in memory that unit tests use."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from tests.eventually import eventually
from tests.fakes.kube import FakeKube
from watcher.kube.client import HttpKubeClient, KubeClient, KubeError
from watcher.kube.connection import connect
from watcher.kube.resources import (
    EVENT,
    NAMESPACE,
    SECRET,
    SERVICE_ACCOUNT,
    Body,
    is_deleting,
    uid_of,
    version_of,
)
from watcher.specs.kinds import ACCESS_REQUEST, FINALIZER, SECRET_ENGINE

_NUMBER = itertools.count()


@pytest.fixture(params=["real", "fake"])
def api(request: pytest.FixtureRequest) -> KubeClient:
    """Kubernetes, as the admin."""
    if request.param == "fake":
        return FakeKube()
    stack: LocalStack = request.getfixturevalue("cluster")
    return HttpKubeClient(connect(str(stack.kubeconfig), pool_size=4))


@pytest.fixture
def namespace(api: KubeClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"api-{next(_NUMBER)}"
    if isinstance(api, FakeKube):
        yield name
        return
    stack: LocalStack = request.getfixturevalue("cluster")
    stack.kubectl("create", "namespace", name)
    wait = ("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")
    stack.kubectl(*wait)
    yield name
    stack.kubectl("delete", "namespace", name, "--wait=false")


def engine(name: str = "engine") -> Body:
    spec = {
        "vaultRef": {"name": "vault"},
        "path": "p",
        "postgres": {"databaseRef": {"name": "db", "namespace": "demo"}},
    }
    return {"apiVersion": SECRET_ENGINE.api_version, "kind": "SecretEngine", "metadata": {"name": name}, "spec": spec}


def made(api: KubeClient, namespace: str, name: str = "engine") -> Body:
    """An engine; a new CRD may refuse the first ones for a moment."""
    found: list[Body] = []

    def create() -> bool:
        try:
            found.append(api.create(SECRET_ENGINE, engine(name), namespace=namespace))
        except KubeError as err:
            if err.status not in (404, 429, 503):
                raise
        return bool(found)

    eventually(create, what="a SecretEngine")
    return found[0]


def test_a_created_object_can_be_read(api: KubeClient, namespace: str) -> None:
    obj = made(api, namespace)
    found = api.get(SECRET_ENGINE, namespace=namespace, name="engine")
    assert (uid_of(found), version_of(found)) == (uid_of(obj), version_of(obj))
    assert found["spec"]["path"] == "p"
    assert found["metadata"]["generation"] == 1


def test_a_name_is_unique(api: KubeClient, namespace: str) -> None:
    made(api, namespace)
    with pytest.raises(KubeError) as caught:
        api.create(SECRET_ENGINE, engine(), namespace=namespace)
    assert (caught.value.status, caught.value.reason) == (409, "AlreadyExists")


def test_a_missing_object_is_not_found(api: KubeClient, namespace: str) -> None:
    made(api, namespace)
    for call in (
        lambda: api.get(SECRET_ENGINE, namespace=namespace, name="none"),
        lambda: api.delete(SECRET_ENGINE, namespace=namespace, name="none"),
        lambda: api.patch(SECRET_ENGINE, {"metadata": {}}, namespace=namespace, name="none"),
    ):
        with pytest.raises(KubeError) as caught:
            call()
        assert (caught.value.status, caught.value.reason) == (404, "NotFound")


def test_a_status_replaces_only_the_version_that_was_read(api: KubeClient, namespace: str) -> None:
    obj = made(api, namespace)
    meta = {key: obj["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    body = {**engine(), "metadata": meta, "spec": obj["spec"] | {"path": "other"}, "status": {"phase": "Success"}}
    written = api.replace(SECRET_ENGINE, body, subresource="status")
    assert (written["status"], written["spec"]["path"], written["metadata"]["generation"]) == (
        {"phase": "Success"},
        "p",
        1,
    )
    with pytest.raises(KubeError) as caught:
        api.replace(SECRET_ENGINE, body, subresource="status")
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")


def test_a_finalizer_patch_applies_to_one_version_only(api: KubeClient, namespace: str) -> None:
    obj = made(api, namespace)
    patch = {"metadata": {"resourceVersion": version_of(obj), "finalizers": [FINALIZER]}}
    secret_attempt = api.patch(SECRET_ENGINE, patch, namespace=namespace, name="engine")
    assert secret_attempt["metadata"]["finalizers"] == [FINALIZER]
    with pytest.raises(KubeError) as caught:
        api.patch(
            SECRET_ENGINE,
            patch | {"metadata": patch["metadata"] | {"finalizers": []}},
            namespace=namespace,
            name="engine",
        )
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    api.delete(SECRET_ENGINE, namespace=namespace, name="engine")
    deleting = api.get(SECRET_ENGINE, namespace=namespace, name="engine")
    assert is_deleting(deleting)
    off = {"metadata": {"resourceVersion": version_of(deleting), "finalizers": []}}
    api.patch(SECRET_ENGINE, off, namespace=namespace, name="engine")
    with pytest.raises(KubeError, match="not found"):
        api.get(SECRET_ENGINE, namespace=namespace, name="engine")


def test_a_delete_of_another_uid_is_refused(api: KubeClient, namespace: str) -> None:
    made(api, namespace)
    with pytest.raises(KubeError) as caught:
        api.delete(SECRET_ENGINE, namespace=namespace, name="engine", uid="another")
    assert caught.value.status == 409


def test_a_delete_of_another_version_is_refused(api: KubeClient, namespace: str) -> None:
    created = version_of(made(api, namespace))
    edited = api.patch(SECRET_ENGINE, {"metadata": {"labels": {"a": "b"}}}, namespace=namespace, name="engine")
    with pytest.raises(KubeError) as caught:
        api.delete(SECRET_ENGINE, namespace=namespace, name="engine", version=created)
    assert caught.value.status == 409
    api.delete(SECRET_ENGINE, namespace=namespace, name="engine", version=version_of(edited))
    with pytest.raises(KubeError, match="not found"):
        api.get(SECRET_ENGINE, namespace=namespace, name="engine")


def test_a_secret_replaces_only_the_version_that_was_read(api: KubeClient, namespace: str) -> None:
    body: Body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": namespace},
        "type": "Opaque",
        "data": {"a": "YQ=="},
    }
    obj = api.create(SECRET, body, namespace=namespace)
    newer = body | {
        "metadata": body["metadata"] | {"resourceVersion": version_of(obj), "annotations": {"n": "1"}},
        "data": {"a": "Yg=="},
    }
    written = api.replace(SECRET, newer)
    assert (written["data"], written["metadata"]["annotations"]) == ({"a": "Yg=="}, {"n": "1"})
    with pytest.raises(KubeError) as caught:
        api.replace(SECRET, newer)
    assert caught.value.status == 409


def test_a_token_is_created_for_a_service_account(api: KubeClient, namespace: str) -> None:
    if isinstance(api, FakeKube):
        api.put(SERVICE_ACCOUNT, {"metadata": {"name": "default"}}, namespace=namespace)
    body: Body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = api.create(SERVICE_ACCOUNT, body, namespace=namespace, name="default", subresource="token")
    assert answer["status"]["token"]
    assert answer["spec"]["expirationSeconds"] == 600
    with pytest.raises(KubeError) as caught:
        api.create(SERVICE_ACCOUNT, body, namespace=namespace, name="none", subresource="token")
    assert caught.value.status == 404


def test_a_list_and_a_watch_from_its_version_miss_nothing(api: KubeClient, namespace: str) -> None:
    made(api, namespace, "one")
    page = api.page(SECRET_ENGINE, namespace=namespace)
    assert [item["metadata"]["name"] for item in page["items"]] == ["one"]
    api.create(SECRET_ENGINE, engine("two"), namespace=namespace)
    api.delete(SECRET_ENGINE, namespace=namespace, name="one")
    seen = []
    for event in api.watch(
        SECRET_ENGINE, namespace=namespace, version=page["metadata"]["resourceVersion"], server_s=3, silence_s=10
    ):
        if event["type"] != "BOOKMARK":
            seen.append((event["type"], event["object"]["metadata"]["name"]))
        if len(seen) == 2:
            break
    assert seen == [("ADDED", "two"), ("DELETED", "one")]


def test_a_list_by_label_has_no_others(api: KubeClient, namespace: str) -> None:
    made(api, namespace, "plain")
    for name, labels in (("ours", {"by": "us", "x": "1"}), ("theirs", {"by": "them"})):
        body = engine(name)
        api.create(SECRET_ENGINE, body | {"metadata": body["metadata"] | {"labels": labels}}, namespace=namespace)
    assert [
        item["metadata"]["name"] for item in api.page(SECRET_ENGINE, namespace=namespace, labels="by=us")["items"]
    ] == ["ours"]
    assert [
        item["metadata"]["name"] for item in api.page(SECRET_ENGINE, namespace=namespace, labels="by=us,x=2")["items"]
    ] == []


# -- what only a real server has


@pytest.fixture
def real(cluster: LocalStack) -> KubeClient:
    return HttpKubeClient(connect(str(cluster.kubeconfig), pool_size=4))


def test_a_long_list_comes_in_pages(real: KubeClient, cluster: LocalStack) -> None:
    cluster.kubectl("create", "namespace", "pages")
    for number in range(5):
        made(real, "pages", f"engine-{number}")
    names, token = [], ""
    while True:
        page = real.page(SECRET_ENGINE, namespace="pages", limit=2, token=token)
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == [f"engine-{number}" for number in range(5)]
    cluster.kubectl("delete", "namespace", "pages", "--wait=false")


def test_a_watch_ends_after_the_seconds_it_asked_for(real: KubeClient) -> None:
    page = real.page(EVENT, namespace="default")
    assert (
        list(
            real.watch(
                EVENT, namespace="default", version=page["metadata"]["resourceVersion"], server_s=1, silence_s=10
            )
        )
        == []
    )


def test_a_silent_watch_times_out(real: KubeClient) -> None:
    page = real.page(EVENT, namespace="default")
    with pytest.raises(KubeError) as caught:
        list(
            real.watch(
                EVENT, namespace="default", version=page["metadata"]["resourceVersion"], server_s=30, silence_s=0.5
            )
        )
    assert caught.value.status == 0


def test_an_unreachable_server_is_a_kube_error(cluster: LocalStack, tmp_path: object) -> None:
    config = json.loads(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = cluster.directory / "nowhere.kubeconfig"
    path.write_text(json.dumps(config))
    with pytest.raises(KubeError) as caught:
        HttpKubeClient(connect(str(path), pool_size=1)).get(NAMESPACE, name="default")
    assert caught.value.status == 0


def test_a_refusal_names_what_is_forbidden(cluster: LocalStack) -> None:
    config = json.loads(cluster.kubeconfig.read_text())
    config["current-context"] = "carol"
    path = cluster.directory / "carol.kubeconfig"
    path.write_text(json.dumps(config))
    with pytest.raises(KubeError, match="forbidden") as caught:
        HttpKubeClient(connect(str(path), pool_size=1)).page(SECRET, namespace="default")
    assert (caught.value.status, caught.value.is_terminating) == (403, False)


def test_nothing_is_created_in_a_namespace_being_deleted(real: KubeClient, cluster: LocalStack) -> None:
    cluster.kubectl("create", "namespace", "going")
    made(real, "going")
    secret_attempt = {"metadata": {"finalizers": [FINALIZER]}}
    real.patch(SECRET_ENGINE, secret_attempt, namespace="going", name="engine")
    cluster.kubectl("delete", "namespace", "going", "--wait=false")
    body: Body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {}}
    with pytest.raises(KubeError) as caught:
        real.create(SECRET, body, namespace="going")
    assert caught.value.is_terminating
    eventually(
        lambda: is_deleting(real.get(SECRET_ENGINE, namespace="going", name="engine")),
        what="the deletion to reach the engine",
    )
    real.patch(SECRET_ENGINE, {"metadata": {"finalizers": []}}, namespace="going", name="engine")
    eventually(
        lambda: cluster.kubectl("get", "namespace", "going", check=False).returncode != 0,
        timeout_s=60,
        what="the namespace to go",
    )


def test_connections_are_shared_by_calls_and_threads(real: KubeClient) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(20):
                real.page(ACCESS_REQUEST, limit=1)
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
