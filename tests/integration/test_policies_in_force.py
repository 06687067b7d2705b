"""F18: policies that are weakened or removed on a real API server, what every object says, and what goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from dev.stack.stack import LocalStack
from tests.eventually import eventually
from tests.integration.admission_world import POLICIES
from tests.integration.watcher_stack import KINDS, Running, manifest, running_watcher
from watcher.delivery.policy_trials import PolicyTrials
from watcher.kube.client import HttpKubeClient
from watcher.kube.connection import connect
from watcher.specs.status import NOT_IN_FORCE

BINDING, POLICY = "validatingadmissionpolicybinding", "validatingadmissionpolicy"
REQUEST = "databaseaccessrequest"
RESYNC_S = 2.0
_NUMBER = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A cluster of its own, as its policies are weakened."""
    with LocalStack.start(tmp_path_factory.mktemp("cluster"), services=False) as running:
        yield running


@pytest.fixture
def watcher(cluster: LocalStack) -> Iterator[Running]:
    """A watcher that compares policies, often."""
    with running_watcher(cluster) as running:
        running.stop()
        running.start(resync_s=RESYNC_S, compare_policies=True)
        yield running


@pytest.fixture
def namespace(cluster: LocalStack) -> Iterator[str]:
    name = f"force-{next(_NUMBER)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def without_binding(watcher: Running, *names: str) -> Iterator[None]:
    """Inside, these policies are bound to nothing."""
    watcher.kubectl("delete", *(f"{BINDING}/{name}" for name in names))
    try:
        yield
    finally:
        put_back(watcher)


@contextmanager
def weakened(watcher: Running, name: str) -> Iterator[None]:
    """Inside, a policy does not look at mallory."""
    excluded = [{"name": "not-mallory", "expression": "request.userInfo.username != 'mallory'"}]
    patch = json.dumps({"spec": {"matchConditions": excluded}})
    watcher.kubectl("patch", POLICY, name, "--type=merge", "-p", patch)
    try:
        yield
    finally:
        patch = json.dumps({"spec": {"matchConditions": None}})
        watcher.kubectl("patch", POLICY, name, "--type=merge", "-p", patch)


def put_back(watcher: Running) -> None:
    watcher.kubectl("apply", "--server-side", "--force-conflicts", "-R", "-f", str(POLICIES))


def said(watcher: Running, namespace: str) -> dict[str, str]:
    """What each object says of the policies; nothing where it says nothing."""
    found = json.loads(watcher.kubectl("get", KINDS, "-n", namespace, "-o", "json"))["items"]
    return {
        f"{item['kind']}/{item['metadata']['name']}": "".join(
            c["message"] for c in item.get("status", {}).get("conditions", []) if c["type"] == NOT_IN_FORCE
        )
        for item in found
    }


def all_say(watcher: Running, namespace: str, text: str) -> None:
    """Wait until every object says so."""

    def say() -> bool:
        found = said(watcher, namespace)
        assert len(found) >= 5
        assert all(text in each if text else not each for each in found.values()), found
        return True

    eventually(say, timeout_s=30, what=f"{text or 'nothing'!r} on every object")


def another_request(watcher: Running, namespace: str, name: str) -> None:
    """Apply another access request, and approve it."""
    body = yaml.safe_load(manifest("postgresAccessRequest", namespace))
    body["metadata"] = {"name": name, "namespace": namespace}
    watcher.kubectl("apply", "-f", "-", input=yaml.safe_dump(body))
    eventually(lambda: watcher.get(namespace, REQUEST, name).get("status", {}).get("digest"), what="a digest")
    watcher.decide(namespace, name=name)


@pytest.mark.parametrize("how", ["unbound", "weakened"])
def test_every_kind_says_so_and_pending_work_goes_on(watcher: Running, namespace: str, how: str) -> None:
    watcher.granted(namespace)
    all_say(watcher, namespace, "")
    put_out = without_binding if how == "unbound" else weakened
    with put_out(watcher, "leasegate-decision"):
        all_say(watcher, namespace, "leasegate-decision")
        described = watcher.kubectl("describe", "secretengine", "-n", namespace)
        assert "Nothing new is issued while Leasegate's admission policies are not in force" in described
        another_request(watcher, namespace, "later")
        eventually(
            lambda: any(
                (c["type"], c["reason"]) == ("Failed", NOT_IN_FORCE)
                for c in watcher.get(namespace, REQUEST, "later")["status"]["conditions"]
            ),
            what="why it gets nothing",
        )
        first = watcher.secrets(namespace)
        assert [each["metadata"]["ownerReferences"][0]["name"] for each in first] == ["postgres-cred-rqst"]
        watcher.decide(namespace, "Denied")
        eventually(lambda: not watcher.secrets(namespace), what="the end of what was denied")
        assert all("leasegate-decision" in text for text in said(watcher, namespace).values())
    all_say(watcher, namespace, "")
    eventually(lambda: watcher.secrets(namespace), what="the Secret that waited")


def test_a_namespace_that_is_enabled_has_them_compared(watcher: Running, namespace: str) -> None:
    watcher.stop()
    watcher.start(resync_s=300, compare_policies=True)
    watcher.granted(namespace)
    second = f"{namespace}-b"
    watcher.kubectl("create", "namespace", second)
    with without_binding(watcher, "leasegate-own-decision"):
        watcher.apply(second, "vault", "postgres-app", "postgresSecretEngine", "postgresRole", "postgresAccessRequest")
        eventually(
            lambda: "NamespaceNotEnabled" in watcher.kubectl("describe", "secretengine", "-n", second),
            what="that it is not enabled",
        )
        watcher.apply(second, "enabled")
        all_say(watcher, second, "leasegate-own-decision is missing")
        all_say(watcher, namespace, "leasegate-own-decision is missing")
    all_say(watcher, second, "")
    watcher.kubectl("delete", "namespace", second, "--wait=false")


def test_f18_each_trial_reaches_its_policy_and_stores_nothing(watcher: Running, namespace: str) -> None:
    watcher.granted(namespace)
    watcher.stop()
    watcher.start()  # which compares nothing, so that only the trials look
    running = watcher.watcher
    api = HttpKubeClient(connect(str(watcher.kubeconfig), pool_size=2))
    trials = PolicyTrials(api, objects=running._objects, namespaces=running.namespaces)
    names = ("leasegate-decision", "leasegate-watcher-limits", "leasegate-watcher-readers", "leasegate-watcher-secrets")

    def accepted() -> set[str]:
        found = trials.find_accepted()
        return {name for name in names if name in found}

    eventually(lambda: len(list(trials._trials())) == len(names), what="something to try each policy on")
    assert accepted() == set()
    for name in names:
        also = ["leasegate-watcher-reader-role"] if name.endswith("readers") else []
        with without_binding(watcher, name, *also):
            eventually(lambda wanted=name: accepted() == {wanted}, timeout_s=30, what=f"{name} not in force")  # type: ignore[misc]
        eventually(lambda: accepted() == set(), timeout_s=30, what=f"{name} in force")
    assert "leasegate-trial" not in watcher.kubectl("get", f"{KINDS},secrets,roles", "-n", namespace, "-o", "yaml")
    assert "leasegate.dev/trial" not in watcher.kubectl("get", KINDS, "-A", "-o", "yaml")
