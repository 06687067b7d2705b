"""M3: a policy looks at no list that is longer than it has to be.

The time that an expression takes grows with the square of a list's length, and the API server ends a call after half a
minute: 30,000 finalizers or 120,000 commas in an annotation, which one user may write, kept it busy for that long.
"""

from __future__ import annotations

import time

import pytest

from tests.integration.admission_world import policed_namespace
from tests.integration.kube import (
    WATCHER,
    Json,
    Kube,
    Running,
    a_request,
    a_role,
    an_app_binding,
    an_engine,
    refusal,
    with_value,
)

FINALIZER = "leasegate.dev/finalizer"
BEHALF, SUBJECTS_FROM = "leasegate.dev/on-behalf-of", "leasegate.dev/allow-subjects-from"
TOO_SLOW_S = 10.0
"""A call that walks the list takes longer."""


@pytest.fixture(scope="module")
def namespace(cluster: Running) -> str:
    return policed_namespace(cluster)


@pytest.fixture(scope="module")
def alice(cluster: Running) -> Kube:
    return Kube(cluster, "alice")


@pytest.fixture(scope="module")
def watcher(cluster: Running) -> Kube:
    return Kube(cluster, act_as=WATCHER)


def annotated(namespace: str, key: str, value: str, **spec: object) -> Json:
    return with_value(a_request(namespace, **spec), "metadata.annotations", {key: value})


def test_m3_on_behalf_of_names_few_users(alice: Kube, namespace: str) -> None:
    says = "leasegate.dev/on-behalf-of: write at most 32 user names with commas between them"
    for value in ("," * 250_000, ",".join("u" for _ in range(33)), "u" * 8193):
        assert says in refusal(alice, "create", annotated(namespace, BEHALF, value)).message
        request = alice.create(a_request(namespace))
        assert says in refusal(alice, "patch", request, {"metadata": {"annotations": {BEHALF: value}}}).message
    most = ",".join(f"{'u' * 250}{number:02}" for number in range(32))
    assert alice.create(annotated(namespace, BEHALF, most))


def test_m3_namespaces_of_subjects_are_few(alice: Kube, namespace: str) -> None:
    subjects = [{"kind": "ServiceAccount", "name": f"s{number}", "namespace": "kube-system"} for number in range(64)]
    began = time.monotonic()
    refused = refusal(alice, "create", annotated(namespace, SUBJECTS_FROM, "," * 250_000, subjects=subjects))
    assert refused.status == 422
    assert "leasegate-consent" in refused.message or "leasegate-subjects" in refused.message
    assert time.monotonic() - began < TOO_SLOW_S


@pytest.mark.parametrize("maker", [a_request, a_role, an_engine, an_app_binding])
def test_m3_the_watcher_adds_its_finalizer_to_few(alice: Kube, watcher: Kube, namespace: str, maker: object) -> None:
    assert callable(maker)
    of_others = [f"example.com/{number}" for number in range(65)]
    thing = alice.create(with_value(maker(namespace), "metadata.finalizers", of_others))
    refused = refusal(watcher, "patch", thing, {"metadata": {"finalizers": [*of_others, FINALIZER]}})
    assert refused.status == 422
    assert "metadata.finalizers has 65 items: Leasegate's watcher adds its finalizer to 64 at most" in refused.message
    alice.patch(thing, {"metadata": {"finalizers": of_others[:64]}})
    assert watcher.patch(thing, {"metadata": {"finalizers": [*of_others[:64], FINALIZER]}})
    assert watcher.patch(thing, {"metadata": {"finalizers": of_others[:64]}})
