"""The watcher on a real API server, with its own rights alone: hard orders, foreign hands, and servers that go away."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator

import pytest

from dev.stack.stack import LocalStack
from leasegate.access.v1 import requester_service_pb2
from services.common import errors
from tests.eventually import eventually
from tests.integration.watcher_stack import KINDS, Running, running_watcher

CLAIM = requester_service_pb2.ClaimCredentialRequest
_NUMBER = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A cluster of its own, as the watcher looks after everything that is in it."""
    with LocalStack.start(tmp_path_factory.mktemp("cluster"), services=False) as running:
        yield running


@pytest.fixture
def watcher(cluster: LocalStack) -> Iterator[Running]:
    with running_watcher(cluster) as running:
        yield running


@pytest.fixture
def namespace(watcher: Running) -> Iterator[str]:
    """An empty namespace, which has to go in the end with whatever is in it."""
    name = f"watched-{next(_NUMBER)}"
    watcher.kubectl("create", "namespace", name)
    yield name
    watcher.kubectl("delete", KINDS, "--all", "-n", name, "--timeout=30s")
    watcher.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def test_from_the_first_apply_to_the_namespaces_end(watcher: Running, namespace: str) -> None:
    secret = watcher.granted(namespace)
    assert {key: base64.b64decode(value) for key, value in secret["data"].items()} == {
        "username": b"user-1",
        "password": b"password-1",
    }
    for kind, name in (("secretengine", "postgresql-engine"), ("postgresrole", "psql-role")):
        assert watcher.phase(namespace, kind, name) == "Success"
    eventually(
        lambda: watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["status"].get("lease"),
        what="the lease",
    )
    reader = f"system:serviceaccount:{namespace}:demo-sa"
    name = secret["metadata"]["name"]
    eventually(lambda: _may(watcher, namespace, reader, f"secret/{name}"), what="the subject's right")
    assert not _may(watcher, namespace, reader, "secret/postgres-user-cred")
    watcher.kubectl("delete", "namespace", namespace, "--timeout=60s")
    assert (watcher.services.engine.mounts, watcher.services.roles.roles) == ({}, {})
    assert all(request.ended for request in watcher.services.access.requests.values())


def test_the_events_that_kubectl_describe_shows(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    described = eventually(
        lambda: (
            text
            if "SuccessfullyIssuedCredential" in (text := watcher.kubectl("describe", "dar", "-n", namespace))
            else ""
        ),
        what="the Event",
    )
    assert "leasegate-watcher" in described
    assert "secret engine is ready to use" in watcher.kubectl("describe", "secretengine", "-n", namespace)


def test_kubectl_wait_sees_when_each_kind_is_ready(watcher: Running, namespace: str) -> None:
    names = (
        "appbinding/vault",
        "appbinding/postgres-app",
        "secretengine/postgresql-engine",
        "postgresrole/psql-role",
        "databaseaccessrequest/postgres-cred-rqst",
    )
    watcher.granted(namespace)
    for name in names:
        assert "condition met" in watcher.kubectl(
            "wait", "--for=condition=Ready", name, "-n", namespace, "--timeout=60s"
        )


def test_a_namespace_works_once_it_is_enabled(watcher: Running, namespace: str) -> None:
    watcher.apply(namespace, "vault", "postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest")

    def is_reported() -> bool:
        found = watcher.get(namespace, "secretengine", "postgresql-engine")
        texts = [
            c["message"] for c in found.get("status", {}).get("conditions", []) if c["type"] == "NamespaceNotEnabled"
        ]
        return any(f"kubectl apply -n {namespace} -f deploy/rbac/enabled-namespace.yaml" in text for text in texts)

    eventually(is_reported, what="the command that enables it")
    watcher.apply(namespace, "enabled")
    eventually(lambda: watcher.phase(namespace, "postgresrole", "psql-role") == "Success", timeout_s=30, what="Success")


def test_a_restart_claims_nothing(watcher: Running, namespace: str) -> None:
    before = watcher.granted(namespace)
    eventually(
        lambda: watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["status"].get("lease"),
        what="the lease",
    )
    watcher.stop()
    watcher.start()
    watcher.kubectl("annotate", "databaseaccessrequest", "-n", namespace, "postgres-cred-rqst", "looked=at")
    asked = len(watcher.services.access.calls)
    eventually(lambda: len(watcher.services.access.calls) > asked, what="another look at it")
    assert watcher.secrets(namespace)[0]["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert len(watcher.services.access.asked(CLAIM)) == 1


def test_access_deleted_while_the_watcher_was_down_ends(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    watcher.stop()
    patch = json.dumps({"metadata": {"finalizers": []}})
    watcher.kubectl(
        "patch", "databaseaccessrequest", "-n", namespace, "postgres-cred-rqst", "--type=merge", "-p", patch
    )
    watcher.kubectl("delete", "databaseaccessrequest", "-n", namespace, "postgres-cred-rqst")
    watcher.start()
    eventually(
        lambda: all(request.ended for request in watcher.services.access.requests.values()),
        what="the end of its access",
    )


def test_a_changed_secret_is_restored_within_seconds(watcher: Running, namespace: str) -> None:
    name = watcher.granted(namespace)["metadata"]["name"]
    patch = json.dumps({"data": {"password": base64.b64encode(b"spoiled").decode()}})
    watcher.kubectl("patch", "secret", "-n", namespace, name, "--type=merge", "-p", patch)
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=10, what="a new credential")
    watcher.kubectl("delete", "secret", "-n", namespace, name)
    eventually(lambda: _password(watcher, namespace) == b"password-3", timeout_s=10, what="another one")


def test_a_foreign_secret_of_that_name_stays(watcher: Running, namespace: str) -> None:
    name = watcher.granted(namespace)["metadata"]["name"]
    patch = json.dumps({"metadata": {"ownerReferences": None, "labels": None}, "data": {"theirs": "eA=="}})
    watcher.kubectl("patch", "secret", "-n", namespace, name, "--type=merge", "-p", patch)

    def is_reported() -> bool:
        conditions = watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["status"]["conditions"]
        return any(c["reason"] == "FailedToCreateSecret" and name in c["message"] for c in conditions)

    eventually(is_reported, what="the conflict")
    assert watcher.get(namespace, "secret", name)["data"]["theirs"] == "eA=="
    assert len(watcher.services.access.asked(CLAIM)) == 1
    watcher.kubectl("delete", "secret", "-n", namespace, name)
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=10, what="the request's Secret")


def test_what_others_put_on_the_secret_stays(watcher: Running, namespace: str) -> None:
    """Reloader, Velero and GitOps mark what they look after, and some keep it by a finalizer (field report 7)."""
    name = watcher.granted(namespace)["metadata"]["name"]
    meta = watcher.get(namespace, "secret", name)["metadata"]
    watcher.kubectl("create", "configmap", "-n", namespace, "beside")  # Kubernetes removes an owner that is not there
    uid = watcher.get(namespace, "configmap", "beside")["metadata"]["uid"]
    beside = {"apiVersion": "v1", "kind": "ConfigMap", "name": "beside", "uid": uid}
    theirs = {
        "labels": {"velero.io/backup": "daily"},
        "annotations": {"reloader.stakater.com/match": "true"},
        "finalizers": ["example.com/kept"],
        "ownerReferences": [*meta["ownerReferences"], beside],
    }
    changes = {"metadata": theirs, "data": {"host": "aA==", "password": base64.b64encode(b"spoiled").decode()}}
    watcher.kubectl("patch", "secret", "-n", namespace, name, "--type=merge", "-p", json.dumps(changes))
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=10, what="a new credential")
    now = watcher.get(namespace, "secret", name)
    for part in ("labels", "annotations"):
        assert theirs[part].items() <= now["metadata"][part].items()  # type: ignore[attr-defined]
    assert now["metadata"]["finalizers"] == ["example.com/kept"]
    assert now["metadata"]["ownerReferences"] == theirs["ownerReferences"]
    assert now["metadata"]["uid"] == meta["uid"]
    assert now["data"].keys() == {"username", "password", "host"}
    watcher.kubectl("patch", "secret", "-n", namespace, name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_objects_without_their_owner_are_taken_over(watcher: Running, namespace: str) -> None:
    """As ``--cascade=orphan`` and restores leave them (field report 12): the request owns them again."""
    name = watcher.granted(namespace)["metadata"]["name"]
    request = watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["metadata"]
    role = f"DatabaseAccessRequest-{namespace}-postgres-cred-rqst-credential-reader"
    eventually(lambda: watcher.get(namespace, "rolebinding", role), what="the RoleBinding")
    for kind, each in (("role", role), ("rolebinding", role), ("secret", name)):
        patch = '{"metadata": {"ownerReferences": null, "labels": {"theirs": "stays"}}}'
        watcher.kubectl("patch", kind, "-n", namespace, each, "--type=merge", "-p", patch)
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=10, what="a new credential")

    def are_owned() -> bool:
        found = [
            watcher.get(namespace, kind, each)["metadata"]
            for kind, each in (("secret", name), ("role", role), ("rolebinding", role))
        ]
        assert all(meta["labels"]["theirs"] == "stays" for meta in found)
        return all(request["uid"] in {o["uid"] for o in meta.get("ownerReferences") or []} for meta in found)

    eventually(are_owned, timeout_s=30, what="their owner")


@pytest.mark.parametrize("obstacle", ["immutable", "of type example.com/other"])
def test_a_secret_that_takes_no_change_is_replaced(watcher: Running, namespace: str, obstacle: str) -> None:
    """Unless somebody's finalizer keeps it: then nothing is issued, and the condition names the finalizer."""
    meta = watcher.granted(namespace)["metadata"]
    name, claims = meta["name"], len(watcher.services.access.asked(CLAIM))
    if obstacle == "immutable":
        change = {"immutable": True, "metadata": {"annotations": {"leasegate.dev/attempt": "0"}}}
        watcher.kubectl("patch", "secret", "-n", namespace, name, "--type=merge", "-p", json.dumps(change))
    else:
        watcher.stop()
        kept = {part: meta[part] for part in ("name", "labels", "ownerReferences")} | {"finalizers": ["example.com/x"]}
        body = {"apiVersion": "v1", "kind": "Secret", "type": "example.com/other", "metadata": kept}
        watcher.kubectl("delete", "secret", "-n", namespace, name)
        watcher.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body))
        watcher.start()

        def is_reported() -> bool:
            conditions = watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["status"]["conditions"]
            return any(obstacle in c["message"] and "example.com/x" in c["message"] for c in conditions)

        eventually(is_reported, timeout_s=20, what="what keeps it")
        assert len(watcher.services.access.asked(CLAIM)) == claims
        watcher.kubectl(
            "patch", "secret", "-n", namespace, name, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}'
        )
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=20, what="a new credential")
    now = watcher.get(namespace, "secret", name)
    assert now["metadata"]["uid"] != meta["uid"]
    assert (now["type"], now.get("immutable")) == ("Opaque", None)


def test_a_denial_removes_everything(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    watcher.decide(namespace, "Denied")
    eventually(lambda: not watcher.secrets(namespace), what="the Secret's end")
    eventually(
        lambda: watcher.phase(namespace, "databaseaccessrequest", "postgres-cred-rqst") == "Denied", what="Denied"
    )
    left = watcher.kubectl("get", "roles,rolebindings", "-n", namespace, "-o", "name")
    assert "postgres-cred-rqst" not in left


def test_a_namespace_is_deleted_after_an_outage_of_vault(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    sealed = errors.VaultSealedError("Vault is sealed", address="https://vault", retry_after_s=1.0)
    watcher.services.engine.fail_always("DeleteEngine", sealed)
    watcher.services.roles.fail_always("DeleteDbRole", sealed)
    watcher.kubectl("delete", "namespace", namespace, "--wait=false")

    def is_reported() -> bool:
        found = watcher.get(namespace, "secretengine", "postgresql-engine")
        return any(c["reason"] == "VaultSealed" for c in found["status"]["conditions"])

    eventually(is_reported, timeout_s=30, what="why it waits")
    watcher.services.engine.fail_always("DeleteEngine", None)
    watcher.services.roles.fail_always("DeleteDbRole", None)
    watcher.kubectl("wait", "--for=delete", f"namespace/{namespace}", "--timeout=60s")
    assert watcher.services.engine.mounts == {}


@pytest.mark.parametrize("name", ["engine", "roles", "access"])
def test_a_service_that_was_down_is_used_again(watcher: Running, namespace: str, name: str) -> None:
    watcher.services.stop(name)
    watcher.apply(
        namespace, "vault", "enabled", "postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest"
    )
    eventually(lambda: _finalizers(watcher, namespace) >= 3, what="finalizers on all three")
    watcher.services.start(name)
    eventually(lambda: watcher.phase(namespace, "postgresrole", "psql-role") == "Success", timeout_s=30, what="Success")
    eventually(
        lambda: watcher.get(namespace, "databaseaccessrequest", "postgres-cred-rqst")["status"].get("digest"),
        what="a digest",
    )


def test_an_api_server_that_restarts_is_used_again(watcher: Running, namespace: str, cluster: LocalStack) -> None:
    watcher.granted(namespace)
    server = cluster.process("kube-apiserver")
    server.kill()
    server.start()
    server.wait_ready()
    name = watcher.secrets(namespace)[0]["metadata"]["name"]
    watcher.kubectl("delete", "secret", "-n", namespace, name)
    eventually(lambda: _password(watcher, namespace) == b"password-2", timeout_s=40, what="a new credential")


def test_every_order_of_delete_leaves_nothing(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    for kind, name in (
        ("appbinding", "vault"),
        ("serviceaccount", "vault"),
        ("rolebinding", "leasegate-enabled-namespace"),
        ("secretengine", "postgresql-engine"),
        ("appbinding", "postgres-app"),
        ("databaseaccessrequest", "postgres-cred-rqst"),
        ("postgresrole", "psql-role"),
    ):
        watcher.kubectl("delete", "-n", namespace, kind, name, "--wait=false")
    eventually(
        lambda: not json.loads(watcher.kubectl("get", KINDS, "-n", namespace, "-o", "json"))["items"],
        timeout_s=30,
        what="an empty namespace",
    )
    eventually(lambda: not watcher.secrets(namespace), what="the Secret to go with its owner")
    assert (watcher.services.engine.mounts, watcher.services.roles.roles) == ({}, {})


def _password(watcher: Running, namespace: str) -> bytes:
    found = watcher.secrets(namespace)
    return base64.b64decode(found[0]["data"].get("password", "")) if found else b""


def _may(watcher: Running, namespace: str, user: str, what: str) -> bool:
    return watcher.kubectl("auth", "can-i", "get", what, "-n", namespace, "--as", user, check=False).strip() == "yes"


def _finalizers(watcher: Running, namespace: str) -> int:
    items = json.loads(
        watcher.kubectl("get", "secretengines,postgresroles,databaseaccessrequests", "-n", namespace, "-o", "json")
    )["items"]
    return sum("leasegate.dev/finalizer" in item["metadata"].get("finalizers", []) for item in items)
