"""The watcher as a process: a thread that dies, a stop that ends in time, tokens and Events."""

from __future__ import annotations

import datetime
import threading
import time
from typing import Any

import pytest

from leasegate.access.v1 import change_pb2
from services.common import errors
from services.common.vault_config.entries import TeamAuth
from tests.eventually import eventually
from tests.fakes.kube import FakeKube
from tests.unit.watcher.watcher_world import CLUSTER, MOUNT, VAULTS, World, write_events
from watcher.delivery.namespaces import Enablement, Namespaces
from watcher.kube.backoff import Backoff
from watcher.kube.client import KubeError
from watcher.kube.controller import Controller
from watcher.kube.informer import Informer, InformerTiming
from watcher.kube.recorder import EventRecorder
from watcher.kube.resources import EVENT, SERVICE_ACCOUNT, Key
from watcher.kube.result import DONE, Result
from watcher.kube.workqueue import WorkQueue
from watcher.reconcilers.failure_window import FailureWindow
from watcher.reconcilers.vault_targets import VaultTargets
from watcher.specs.kinds import APP_BINDING

NEVER = Backoff(base_s=1.0, cap_s=1.0, random=lambda: 1.0)


def test_a_thread_that_dies_makes_the_process_unhealthy(world: World) -> None:
    """Feed, resync and informers, too: what they did nobody else does."""
    assert world.watcher.alive()

    def defect() -> None:
        raise RuntimeError("a defect")

    world.watcher._run("resync", defect).join(10)
    assert not world.watcher.alive()


def test_a_thread_that_ends_leaves_the_process_healthy(world: World) -> None:
    world.watcher._run("begin", lambda: None).join(10)
    assert world.watcher.alive()


def test_hanging_workers_share_one_timeout_at_the_end() -> None:
    hang = threading.Event()

    def reconcile(_key: str) -> Result:
        hang.wait(60)
        return DONE

    queue: WorkQueue[str] = WorkQueue(NEVER)
    controller = Controller("things", queue, reconcile, workers=40)
    for number in range(40):
        queue.add(str(number))
    controller.start()
    eventually(lambda: not len(queue), timeout_s=30)
    began = time.monotonic()
    controller.stop(0.5)
    took_s = time.monotonic() - began
    hang.set()
    assert took_s < 10, took_s


def test_the_last_events_are_written_before_the_end(world: World) -> None:
    world.guide()
    world.watcher._recording = world.watcher._run("events", lambda: world.watcher.events.run(world.watcher._stop))
    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo", "namespace": "demo", "uid": "x"}}
    world.watcher.events.record(obj, reason="Last", message="last words", warning=True)
    world.watcher.stop()
    assert any("Last" in event for event in world.kube.events("demo"))


def test_a_stopped_informer_enables_no_namespace() -> None:
    """A namespace that is watched again does not count as enabled before its Secrets are listed."""
    started: list[Informer] = []
    timing = InformerTiming(backoff=NEVER, random=lambda: 0.5)
    changed: list[Any] = []
    enabled: list[str] = []
    namespaces = Namespaces(
        FakeKube(),
        timing=timing,
        on_secret=lambda _old, _new: None,
        on_enablement=changed.append,
        on_enabled=enabled.append,
        start=lambda informer, _stop: started.append(informer),
    )
    namespaces.watch_namespace("demo")
    namespaces.unwatch_namespace("demo")
    namespaces.watch_namespace("demo")
    before, now = started
    before._on_synced()
    assert namespaces.enablement("demo") is Enablement.UNKNOWN
    before._on_failed(KubeError("refused", status=403))
    assert (namespaces.enablement("demo"), changed) == (Enablement.UNKNOWN, [])
    now._on_synced()
    assert (namespaces.enablement("demo"), enabled) == (Enablement.ENABLED, ["demo"])


def test_failures_of_one_kind_are_not_those_of_another() -> None:
    now = [0.0]
    failures = FailureWindow(lambda: now[0], finalizer_timeout_s=60)
    for what in ("passing", "end"):
        assert failures.elapsed_s("uid", what) == 0
    now[0] = 5
    failures.reset_failures("uid", "end")
    assert (failures.elapsed_s("uid", "passing"), failures.elapsed_s("uid", "end")) == (5, 0)
    failures.reset_failures("uid")
    assert failures._since == {}


def test_a_cleanup_role_that_cannot_be_removed_is_logged(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.guide()
    world.roles.fail("DeleteCleanupRole", errors.VaultRefusedError("no such thing", path="x"))
    status = world.access.targets["demo", "vault"]
    change = change_pb2.CleanupRoleUnneeded(name="leasegate-cleanup.0123456789ab", mount=MOUNT)
    change.target.CopyFrom(change_pb2.CleanupRoleUnneeded().target)
    change.target.namespace, change.target.name, change.target.address = "demo", "vault", status.address
    world.access.publish(cleanup_role_unneeded=change)
    world.follow_feed()
    assert len(world.roles.calls) > 1
    out = capsys.readouterr()
    assert "cleanup role not made or removed, requeueing" in out.out + out.err


def test_a_slow_token_delays_no_other_namespace(world: World) -> None:
    world.guide()
    for namespace in ("slow", "quick"):
        world.put(SERVICE_ACCOUNT, "vault", namespace)
        spec = {
            "clientConfig": {"url": "https://vault.vault.svc:8200"},
            "parameters": {"vaultRole": "r", "serviceAccountName": "vault"},
        }
        world.put(APP_BINDING, "vault", namespace, spec=spec)
    made = VaultTargets(
        world.kube,
        world.watcher._objects,
        cluster=CLUSTER,
        vaults=VAULTS,
        addresses={},
        allowed=TeamAuth(token_audience="v"),
        clock=lambda: 0.0,
    )
    asked, answer = threading.Event(), threading.Event()
    create = world.kube.create

    def slow(resource: Any, body: Any, *, namespace: str, **more: Any) -> Any:
        if namespace == "slow":
            asked.set()
            answer.wait(60)
        return create(resource, body, namespace=namespace, **more)

    world.kube.create = slow  # type: ignore[method-assign]
    waiting = threading.Thread(target=lambda: made.vault(Key("slow", "vault")))
    waiting.start()
    try:
        assert asked.wait(30)
        assert made.vault(Key("quick", "vault")).kubernetes.jwt
    finally:
        answer.set()
        waiting.join(30)


def test_an_event_about_a_long_name_has_a_valid_name() -> None:
    """Names are cut, and none of their parts may end in a dash (RFC 1123)."""
    kube = FakeKube()
    recorder = EventRecorder(kube, now=lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    meta = {"name": "a" * 229 + "-" + "b" * 20, "namespace": "demo", "uid": "x"}
    recorder.record({"apiVersion": "v1", "kind": "Thing", "metadata": meta}, reason="Is", message="so", warning=False)
    write_events(recorder)
    (event,) = kube.all(EVENT)
    assert all(part and part[0] != "-" and part[-1] != "-" for part in event["metadata"]["name"].split("."))
