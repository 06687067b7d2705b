"""What every object says, and what goes on, while the admission policies are not in force (F18, M11)."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from services.common import errors
from tests.eventually import eventually
from tests.unit.watcher.test_policy_audit import BINDING, DECISION, stored
from tests.unit.watcher.test_ready import BOUND_DATABASE, BOUND_VAULT, DB_ROLE, ENGINE, REQUEST, ready
from tests.unit.watcher.watcher_world import World
from watcher.app import RESYNC_STEP_S, resync_steps
from watcher.delivery.policy_audit import RESOURCES
from watcher.kube.client import KubeError
from watcher.kube.resources import Resource
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING
from watcher.specs.status import NOT_IN_FORCE
from watcher.triggers import QUEUES

DOWN = errors.VaultSealedError("Vault is sealed", address="https://vault", retry_after_s=1.0)
EVERY_KIND = (BOUND_VAULT, BOUND_DATABASE, ENGINE, DB_ROLE, REQUEST)


@pytest.fixture
def policed() -> Iterator[World]:
    """A cluster with the policies of the release, and a watcher that compares them."""
    made = World()
    for obj in stored().values():
        assert obj is not None
        made.kube.put(RESOURCES[obj["kind"]], {key: obj[key] for key in ("metadata", "spec")})
    made.watcher.stop()
    made.compare_policies = True
    made.start()
    yield made
    made.watcher.stop()


def remove(world: World, *names: tuple[str, str]) -> None:
    for kind, name in names:
        world.kube.delete(RESOURCES[kind], namespace="", name=name)


def put_back(world: World, *names: tuple[str, str]) -> None:
    for kind, name in names:
        body = stored()[kind, name] or {}
        world.kube.put(RESOURCES[kind], {key: body[key] for key in ("metadata", "spec")})


def compare(world: World) -> None:
    """Compare, and reconcile all objects, as the thread of the resync does after a change."""
    assert world.watcher._policies is not None
    world.watcher._policies.compare()
    resync(world)


def resync(world: World) -> None:
    """One pass over all objects."""
    world.watcher._policy_reporter.begin_pass()
    for _ in world.watcher.triggers.resync(1):
        pass
    world.settle()


def said(world: World, which: tuple[Resource, str]) -> str:
    return str(world.condition(*which, NOT_IN_FORCE).get("message", ""))


def status_writes(world: World) -> list[str]:
    return [call for call in world.kube.calls if call.endswith("/status")]


def granted(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    assert world.secret() is not None


def test_every_object_says_so_and_stays_ready(policed: World) -> None:
    granted(policed)
    assert not any(said(policed, which) for which in EVERY_KIND)
    remove(policed, DECISION)
    compare(policed)
    for which in EVERY_KIND:
        assert "ValidatingAdmissionPolicy leasegate-decision is missing. Apply deploy/policies" in said(policed, which)
        assert policed.condition(*which, NOT_IN_FORCE)["status"] == "True"
        assert ready(policed, which)[0] == "True"
    assert policed.secret() is not None


def test_it_goes_from_every_object_when_they_are_in_force(policed: World) -> None:
    granted(policed)
    before = {which: policed.status(*which) for which in EVERY_KIND}
    remove(policed, DECISION)
    compare(policed)
    put_back(policed, DECISION)
    compare(policed)
    assert {which: policed.status(*which) for which in EVERY_KIND} == before


def test_nothing_new_is_issued_and_what_runs_ends(policed: World) -> None:
    granted(policed)
    policed.request("later")
    policed.settle()
    remove(policed, BINDING)
    compare(policed)
    policed.decide(name="later")
    policed.settle()
    assert policed.secret("later") is None
    failed = policed.condition(ACCESS_REQUEST, "later", "Failed")
    assert (failed["reason"], "leasegate-decision is missing" in failed["message"]) == (NOT_IN_FORCE, True)
    policed.decide("Denied")
    policed.settle()
    assert policed.secret() is None, "what a denial ends ends"
    put_back(policed, BINDING)
    compare(policed)
    assert policed.secret("later") is not None
    assert not said(policed, (ACCESS_REQUEST, "later"))


def test_new_objects_say_so_too(policed: World) -> None:
    remove(policed, DECISION)
    compare(policed)
    policed.guide()
    assert all(said(policed, which) for which in EVERY_KIND)


def test_it_shows_while_no_service_answers(policed: World) -> None:
    granted(policed)
    remove(policed, DECISION)
    for played, method in (
        (policed.engine, "EnsureEngine"),
        (policed.roles, "EnsureDbRole"),
        (policed.access, "EnsureAccessRequest"),
    ):
        played.fail_always(method, DOWN)
    compare(policed)
    assert all(said(policed, which) for which in EVERY_KIND)


def test_what_is_said_already_is_not_written_again(policed: World) -> None:
    granted(policed)
    remove(policed, DECISION)
    compare(policed)
    before = status_writes(policed)
    resync(policed)
    assert status_writes(policed) == before
    put_back(policed, DECISION)
    compare(policed)
    before = status_writes(policed)
    resync(policed)
    assert status_writes(policed) == before


def test_another_difference_writes_no_object_before_the_resync(policed: World) -> None:
    granted(policed)
    remove(policed, DECISION, BINDING)
    compare(policed)
    put_back(policed, DECISION)
    assert policed.watcher._policies is not None
    policed.watcher._policies.compare()
    before = status_writes(policed)
    policed.watcher.triggers.enqueue_all()
    policed.settle()
    assert status_writes(policed) == before
    resync(policed)
    assert "ValidatingAdmissionPolicy leasegate-decision" not in said(policed, ENGINE)
    assert "ValidatingAdmissionPolicyBinding leasegate-decision is missing" in said(policed, ENGINE)


def test_a_namespace_that_is_not_enabled_says_only_that(policed: World) -> None:
    policed.kube.refused.add("demo")
    remove(policed, DECISION)
    compare(policed)
    policed.guide()
    assert policed.condition(*ENGINE, "NamespaceNotEnabled")
    assert not any(said(policed, which) for which in EVERY_KIND)


def test_an_app_binding_of_others_is_left_alone(policed: World) -> None:
    remove(policed, DECISION)
    compare(policed)
    policed.vault()
    policed.settle()
    assert policed.status(*BOUND_VAULT) == {}


def test_an_app_binding_without_a_status_stops_nothing(policed: World) -> None:
    granted(policed)
    remove(policed, DECISION)

    def refuse(method: str, resource: Resource, name: str) -> None:
        if resource is APP_BINDING and name.endswith("/status"):
            raise KubeError("the server could not find the requested resource", status=404)

    policed.kube.fail = refuse
    compare(policed)
    assert said(policed, ENGINE)
    assert not policed.watcher.queues["appbindings"].delayed


def test_approvers_conditions_stay_as_they_are(policed: World) -> None:
    granted(policed)
    approval = policed.condition(*REQUEST, "Approved")
    remove(policed, DECISION)
    compare(policed)
    assert policed.condition(*REQUEST, "Approved") == approval


def test_f18_what_is_accepted_in_a_dry_run_is_named(policed: World) -> None:
    granted(policed)
    policed.kube.accepts_trials = True
    compare(policed)
    text = said(policed, ENGINE)
    for policy in ("limits", "secrets", "readers"):
        assert f"does not use ValidatingAdmissionPolicy leasegate-watcher-{policy}" in text
    assert "does not use ValidatingAdmissionPolicy leasegate-decision" in text
    policed.kube.accepts_trials = False
    compare(policed)
    assert not said(policed, ENGINE)


def test_a_trial_that_something_else_refuses_says_nothing(policed: World) -> None:
    granted(policed)
    policed.kube.accepts_trials = True

    def refuse(method: str, resource: Resource, name: str) -> None:
        if (method, resource) != ("GET", resource) and resource not in RESOURCES.values() and name:
            raise KubeError("exceeded quota", status=403)

    assert policed.watcher._policies is not None
    policed.kube.fail = refuse
    policed.watcher._policies.compare()
    assert "does not use" not in str(policed.watcher._policies.what_is_wrong())


def test_a_namespace_that_is_enabled_is_compared_at_once(policed: World) -> None:
    policies = policed.watcher._policies
    assert policies is not None
    policies._asked.clear()
    policed.kube.refused.add("demo")
    policed.guide()
    assert not policies._asked.is_set()
    policed.kube.refused.clear()
    for watched in policed.watcher.namespaces._watched.values():
        watched.informer.list_and_watch()
    assert policies._asked.is_set()


def test_ten_thousand_objects_have_their_turn_in_a_minute() -> None:
    quick = resync_steps(10_000, interval_s=300, quick=True)
    assert 45 <= quick * RESYNC_STEP_S <= 60
    assert resync_steps(10_000, interval_s=300, quick=False) * RESYNC_STEP_S == 300
    assert resync_steps(4, interval_s=300, quick=True) == 1
    assert resync_steps(10_000, interval_s=2, quick=True) * RESYNC_STEP_S == 2


def test_a_change_begins_a_pass_over_idle_objects(policed: World) -> None:
    """By the thread of the resync itself, in the minutes in which its pass has nothing left to queue."""
    granted(policed)
    policies, queues = policed.watcher._policies, policed.watcher.queues
    assert policies is not None
    thread = threading.Thread(target=policed.watcher._resync, daemon=True)
    thread.start()

    def all_queued() -> bool:
        return [len(queues[name]) for name in QUEUES.values()] == [2, 1, 1, 1]

    eventually(all_queued, what="the pass that the thread begins with")
    policed.settle()
    remove(policed, DECISION)
    policies.compare()
    eventually(all_queued, what="another pass")
    policed.settle()
    assert all(said(policed, which) for which in EVERY_KIND)
    policed.watcher._stop.set()
    thread.join(5)
    assert not thread.is_alive()
