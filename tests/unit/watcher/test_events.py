"""Events for kubectl describe: written once, counted when repeated, and lost without harm."""

from __future__ import annotations

import datetime
import logging
import threading

import pytest

from tests.fakes.kube import FakeKube
from tests.unit.watcher.watcher_world import write_events
from watcher.kube.client import KubeError
from watcher.kube.recorder import BACKLOG, EventRecorder
from watcher.kube.resources import EVENT, Body, Resource
from watcher.specs.kinds import SECRET_ENGINE


class Clock:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def recorder(kube: FakeKube, clock: Clock) -> EventRecorder:
    return EventRecorder(kube, now=clock)


@pytest.fixture
def engine(kube: FakeKube) -> Body:
    return kube.put(SECRET_ENGINE, {"metadata": {"name": "engine"}, "spec": {}}, namespace="demo")


def record(recorder: EventRecorder, engine: Body, *, transition: bool = True, message: str = "Vault is sealed") -> None:
    recorder.record(engine, reason="VaultSealed", message=message, warning=True, transition=transition)
    write_events(recorder)


def test_an_event_names_its_object(recorder: EventRecorder, kube: FakeKube, engine: Body) -> None:
    record(recorder, engine)
    (event,) = kube.all(EVENT)
    about = event["involvedObject"]
    assert (about["apiVersion"], about["kind"], about["namespace"], about["name"], about["uid"]) == (
        "engine.kubevault.com/v1alpha1", "SecretEngine", "demo", "engine", engine["metadata"]["uid"],
    )  # fmt: skip
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Warning",
        "VaultSealed",
        "Vault is sealed",
        1,
    )
    assert event["source"] == {"component": "leasegate-watcher"}
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-02T03:04:05Z"


def test_a_repetition_is_counted(recorder: EventRecorder, kube: FakeKube, engine: Body, clock: Clock) -> None:
    record(recorder, engine)
    clock.advance(5)
    record(recorder, engine)
    (event,) = kube.all(EVENT)
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        2,
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:10Z",
    )


def test_a_repeated_failure_is_written_once_a_minute(
    recorder: EventRecorder, kube: FakeKube, engine: Body, clock: Clock
) -> None:
    record(recorder, engine)
    for _ in range(30):
        clock.advance(4)
        record(recorder, engine, transition=False)
    patches = [call for call in kube.calls if call.startswith("PATCH events")]
    assert len(patches) == 2
    assert kube.all(EVENT)[0]["count"] == 31


def test_another_message_is_another_event(recorder: EventRecorder, kube: FakeKube, engine: Body) -> None:
    record(recorder, engine)
    record(recorder, engine, message="Vault does not answer")
    assert len(kube.all(EVENT)) == 2


def test_an_event_that_the_server_deleted_is_created_again(
    recorder: EventRecorder, kube: FakeKube, engine: Body, clock: Clock
) -> None:
    record(recorder, engine)
    kube.vanish(EVENT, f"demo/{kube.all(EVENT)[0]['metadata']['name']}")
    clock.advance(5)
    record(recorder, engine)
    assert [event["count"] for event in kube.all(EVENT)] == [1]


def test_an_event_about_a_namespace_is_in_default(recorder: EventRecorder, kube: FakeKube) -> None:
    namespace: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}
    recorder.record(namespace, reason="VaultCleanupSkipped", message="what stays", warning=True)
    write_events(recorder)
    (event,) = kube.all(EVENT)
    assert (event["metadata"]["namespace"], event["involvedObject"]["name"]) == ("default", "demo")
    assert "namespace" not in event["involvedObject"]


def test_a_namespace_that_is_being_deleted_takes_no_events(
    recorder: EventRecorder, kube: FakeKube, engine: Body
) -> None:
    kube.terminating.add("demo")
    record(recorder, engine)
    assert kube.all(EVENT) == []


def test_an_event_that_cannot_be_written_is_lost_and_the_next_is_not(
    recorder: EventRecorder, kube: FakeKube, engine: Body, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(method: str, resource: Resource, name: str) -> None:
        kube.fail = lambda *_: None
        raise KubeError("etcd is full", status=500)

    kube.fail = fail
    with caplog.at_level(logging.DEBUG):
        record(recorder, engine)
        record(recorder, engine, message="another")
    assert [event["message"] for event in kube.all(EVENT)] == ["another"]


def test_a_full_backlog_drops_events_and_blocks_nothing(recorder: EventRecorder, engine: Body) -> None:
    for number in range(BACKLOG + 10):
        recorder.record(engine, reason="VaultSealed", message=str(number), warning=True)


def test_an_event_contains_no_secret(recorder: EventRecorder, kube: FakeKube, engine: Body) -> None:
    record(recorder, engine, message="refused: token=hvs.CAESIabcdefghijkl password=hunter2")
    assert "hunter2" not in kube.events()[0]
    assert "hvs.CAES" not in kube.events()[0]


def test_waiting_events_are_written_before_the_end(recorder: EventRecorder, kube: FakeKube, engine: Body) -> None:
    stop = threading.Event()
    stop.set()
    recorder.record(engine, reason="Provisioned", message="ready", warning=False)
    recorder.run(stop)
    assert kube.events() == ["Normal Provisioned: ready"]
