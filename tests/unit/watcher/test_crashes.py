"""Crashes, outages, changes by somebody else, and moves.

Nothing is lost, nothing is claimed for nothing, nothing foreign is touched.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from leasegate.access.v1 import change_pb2, lease_pb2, requester_service_pb2, watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from leasegate.roles.v1 import role_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.unit.watcher.watcher_world import CLUSTER, MOUNT, OTHER_VAULT, VAULT, World
from watcher.delivery.manifests import secret_body
from watcher.kube.client import KubeError
from watcher.kube.resources import NAMESPACE, ROLE, ROLE_BINDING, SECRET, SERVICE_ACCOUNT, Body, Resource
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

CLAIM = requester_service_pb2.ClaimCredentialRequest


@pytest.fixture
def granted(world: World) -> World:
    world.guide()
    world.decide()
    world.settle()
    return world


class Killed(BaseException):
    """The process died here."""


def die_at(world: World, method: str, plural: str) -> None:
    """Kill the watcher at its next call of that kind, after the server has done what was asked."""

    def fail(got: str, resource: Resource, name: str) -> None:
        if (got, resource.plural) == (method, plural):
            world.kube.fail = lambda *_: None
            raise Killed

    world.kube.fail = fail


def die(world: World) -> None:
    """Work until it dies, and start another one."""
    with pytest.raises(Killed):
        world.settle()
    world.watcher.stop()
    world.start()
    world.settle()


# -- crashes


@pytest.mark.parametrize(
    "at", [("PATCH", "databaseaccessrequests"), ("POST", "secrets"), ("PUT", "databaseaccessrequests")]
)
def test_a_crash_on_the_way_to_the_secret_ends_in_the_same_state(world: World, at: tuple[str, str]) -> None:
    world.guide()
    if at[0] == "PATCH":
        world.delete(ACCESS_REQUEST, "rqst")
        world.settle()
        die_at(world, *at)
        world.request()
    else:
        world.decide()
        die_at(world, *at)
    die(world)
    if at[0] == "PATCH":
        world.decide()
        world.settle()
    status, secret = world.status(ACCESS_REQUEST, "rqst"), world.secret()
    assert secret is not None
    assert secret["metadata"]["annotations"]["leasegate.dev/attempt"] == str(status["attempt"])
    assert status["secret"] == {"name": secret["metadata"]["name"]}


def test_a_crash_between_secret_and_acknowledge_claims_nothing_new(world: World) -> None:
    world.guide()
    world.decide()
    world.access.fail("AcknowledgeCredential", errors.PeerUnavailableError("it died", retry_after_s=30.0))
    world.settle()
    password = world.secret()["data"]["password"]  # type: ignore[index]
    world.watcher.stop()
    world.start()
    world.settle()
    assert len(world.access.asked(CLAIM)) == 1
    assert world.secret()["data"]["password"] == password  # type: ignore[index]
    assert world.status(ACCESS_REQUEST, "rqst")["attempt"] == 1


def test_a_restart_claims_and_writes_nothing(granted: World) -> None:
    granted.kube.calls.clear()
    granted.watcher.stop()
    granted.start()
    granted.settle()
    granted.follow_feed()
    assert len(granted.access.asked(CLAIM)) == 1
    assert not [call for call in granted.kube.calls if call.split()[0] in ("PUT", "PATCH", "DELETE")]


def test_what_was_made_before_a_crash_is_found_when_the_engine_is_deleted(world: World) -> None:
    world.vault()
    world.database()
    world.secret_engine()

    def fail(method: str, resource: Resource, name: str) -> None:
        if world.engine.mounts and method == "PUT" and name == "postgresql-engine/status":
            raise Killed

    world.kube.fail = fail
    with pytest.raises(Killed):
        world.settle()
    world.kube.fail = lambda *_: None
    world.watcher.stop()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.start()
    world.settle()
    assert world.engine.mounts == {}
    assert world.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None


def test_an_object_deleted_during_a_restart_has_its_access_closed(granted: World) -> None:
    uid = granted.uid(ACCESS_REQUEST, "rqst")
    granted.watcher.stop()
    granted.kube.vanish(ACCESS_REQUEST, "demo/rqst")
    granted.start()
    granted.settle()
    granted.follow_feed()
    assert granted.access.requests[uid].ended


def test_an_object_that_a_list_no_longer_has_has_its_access_closed(granted: World) -> None:
    uid = granted.uid(ACCESS_REQUEST, "rqst")
    granted.kube.vanish(ACCESS_REQUEST, "demo/rqst")
    store = granted.watcher._caches[ACCESS_REQUEST]
    store.retain([], version="999999")
    granted.settle()
    assert granted.access.requests[uid].ended


def test_an_object_that_only_a_list_lacks_keeps_its_access(granted: World) -> None:
    uid = granted.uid(ACCESS_REQUEST, "rqst")
    granted.watcher._caches[ACCESS_REQUEST].retain([], version="999999")
    granted.settle()
    assert not granted.access.requests[uid].ended


def test_an_object_created_again_closes_the_former_and_starts_its_own(granted: World) -> None:
    former = granted.uid(ACCESS_REQUEST, "rqst")
    granted.kube.listeners.clear()  # as if the watch had been down for both
    granted.kube.vanish(ACCESS_REQUEST, "demo/rqst")
    granted.request()
    store = granted.watcher._caches[ACCESS_REQUEST]
    store.put(granted.kube.see(ACCESS_REQUEST, "demo/rqst") or {})
    granted.settle()
    assert granted.access.requests[former].ended
    assert not granted.access.requests[granted.uid(ACCESS_REQUEST, "rqst")].ended


# -- foreign hands


def test_a_secret_that_somebody_removed_is_made_again(granted: World) -> None:
    granted.delete(SECRET, granted.secret()["metadata"]["name"])  # type: ignore[index]
    granted.settle()
    secret = granted.secret()
    assert secret is not None
    assert base64.b64decode(secret["data"]["password"]) == b"password-2"
    assert granted.access.asked(CLAIM)[-1].known_attempt == 0
    assert any("Warning SecretRecreated" in event for event in granted.kube.events("rqst"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["data"].update(password="aGFja2Vk"),
        lambda s: s["data"].update(username="aGFja2Vk"),
        lambda s: s["data"].pop("password"),
        lambda s: s["metadata"]["annotations"].update({"leasegate.dev/attempt": "999999"}),
        lambda s: s["metadata"].update(annotations={}),
    ],
)
def test_a_secret_that_somebody_edited_is_restored(granted: World, edit: object) -> None:
    name = granted.secret()["metadata"]["name"]  # type: ignore[index]
    granted.kube.edit(SECRET, f"demo/{name}", edit)  # type: ignore[arg-type]
    granted.settle()
    secret = granted.secret()
    assert secret is not None
    assert base64.b64decode(secret["data"]["password"]) == b"password-2"
    assert secret["metadata"]["annotations"]["leasegate.dev/attempt"] == "2"
    assert granted.status(ACCESS_REQUEST, "rqst")["attempt"] == 2


def test_a_label_on_a_secret_is_nobodys_business(granted: World) -> None:
    name = granted.secret()["metadata"]["name"]  # type: ignore[index]
    granted.kube.edit(SECRET, f"demo/{name}", lambda s: s["metadata"]["labels"].update(team="a"))
    granted.settle()
    assert len(granted.access.asked(CLAIM)) == 1


def test_a_foreign_secret_is_never_touched_and_nothing_is_claimed(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    name = world.secret()["metadata"]["name"]  # type: ignore[index]
    world.kube.edit(SECRET, f"demo/{name}", _theirs)
    world.settle()
    world.advance(120, step_s=5)
    found = world.kube.see(SECRET, f"demo/{name}")
    assert found is not None
    assert found["data"] == {"theirs": "eA=="}
    assert len(world.access.asked(CLAIM)) == 1
    condition = world.condition(ACCESS_REQUEST, "rqst", "Failed")
    assert condition["reason"] == "FailedToCreateSecret"
    assert name in condition["message"]
    world.delete(SECRET, name)
    world.settle()
    assert world.secret() is not None


def _theirs(secret: Body) -> None:
    secret["data"] = {"theirs": "eA=="}
    del secret["metadata"]["ownerReferences"], secret["metadata"]["labels"]


def test_credentials_of_an_older_attempt_never_replace_later_ones(granted: World) -> None:
    granted.access.requests[
        granted.uid(ACCESS_REQUEST, "rqst")
    ].active = 77  # what a paused former leader would be answered
    granted.kube.edit(SECRET, f"demo/{granted.secret()['metadata']['name']}", _at_attempt(50))  # type: ignore[index]
    granted.settle()
    secret = granted.secret()
    assert secret is not None
    assert secret["metadata"]["annotations"]["leasegate.dev/attempt"] == "50"


def _at_attempt(number: int) -> Callable[[Body], None]:
    def change(secret: Body) -> None:
        owner = secret["metadata"]["ownerReferences"][0]
        obj: Body = {"metadata": {"namespace": "demo", "name": owner["name"], "uid": owner["uid"]}}
        body = secret_body(obj, lease_pb2.Credential(attempt=number, username="u", password="p"))
        secret["data"] = body["data"]
        secret["metadata"]["annotations"] = body["metadata"]["annotations"]

    return change


@pytest.mark.parametrize("resource", [ROLE, ROLE_BINDING])
def test_an_edited_role_or_binding_is_restored(granted: World, resource: Resource) -> None:
    name = "demo/DatabaseAccessRequest-demo-rqst-credential-reader"
    before = granted.kube.see(resource, name)
    assert before is not None
    granted.kube.edit(resource, name, lambda obj: obj.update(rules=[], subjects=[{"kind": "User", "name": "mallory"}]))
    granted.advance(61, step_s=5)
    granted.watcher.triggers.enqueue_all()
    granted.settle()
    after = granted.kube.see(resource, name)
    assert after is not None
    assert (after.get("rules"), after.get("subjects")) == (
        before.get("rules") or after.get("rules"),
        before.get("subjects") or after.get("subjects"),
    )
    assert "mallory" not in str(after) or resource is ROLE


def test_a_binding_to_another_role_is_replaced(granted: World) -> None:
    name = "demo/DatabaseAccessRequest-demo-rqst-credential-reader"
    granted.kube.edit(ROLE_BINDING, name, lambda obj: obj["roleRef"].update(name="cluster-admin"))
    granted.advance(61, step_s=5)
    granted.watcher.triggers.enqueue_all()
    granted.settle()
    after = granted.kube.see(ROLE_BINDING, name)
    assert after is not None
    assert after["roleRef"]["name"].startswith("DatabaseAccessRequest-")


def test_a_finalizer_taken_off_by_hand_comes_back(granted: World) -> None:
    granted.kube.edit(ACCESS_REQUEST, "demo/rqst", lambda obj: obj["metadata"].update(finalizers=[]))
    granted.settle()
    found = granted.kube.see(ACCESS_REQUEST, "demo/rqst")
    assert found is not None
    assert found["metadata"]["finalizers"] == ["leasegate.dev/finalizer"]


def test_a_decision_that_comes_while_a_status_is_written_is_kept(world: World) -> None:
    world.guide()
    once = [True]

    def fail(method: str, resource: Resource, name: str) -> None:
        if method == "PUT" and resource == ACCESS_REQUEST and once.pop() if once else False:
            world.decide()
            raise KubeError("the object has been modified", status=409, reason="Conflict")

    world.kube.fail = fail
    world.access.conditions = [
        types_pb2.Condition(type="RoleDeleted", status=True, reason="PostgresRoleDeleted", message="gone")
    ]
    world.watcher.triggers.enqueue_all()
    world.settle()
    assert world.condition(ACCESS_REQUEST, "rqst", "Approved")["approver"] == "bob"
    assert world.condition(ACCESS_REQUEST, "rqst", "RoleDeleted")["status"] == "True"
    assert world.secret() is not None


# -- Vault away


@pytest.mark.parametrize(
    "refusal",
    [
        errors.VaultAuthRefusedError("no such role", target="demo/vault"),
        errors.VaultPolicyMissingError("the policy lacks it", path=f"sys/mounts/{MOUNT}"),
        errors.SpecInvalidError("the path is wrong"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_an_engine_that_made_nothing_is_deleted_at_once(world: World, refusal: errors.LeasegateError) -> None:
    """The engine service proves it in the error (``effects: none``)."""
    refusal.changed_nothing = True
    world.engine.fail_always("EnsureEngine", refusal)
    world.engine.fail_always("DeleteEngine", errors.VaultUnavailableError("away", address=VAULT))
    world.guide()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.settle()
    assert world.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None
    assert not world.engine.asked(engine_service_pb2.DeleteEngineRequest)


def test_an_engine_that_may_have_made_something_is_cleaned_up(world: World) -> None:
    """The same kind of error without the proof: the mount may be there, so that the deletion asks for its removal."""
    world.engine.fail_always("EnsureEngine", errors.DeadlineTooShortError("no time is left for the connection"))
    world.guide()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.settle()
    assert world.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None
    deleted = world.engine.asked(engine_service_pb2.DeleteEngineRequest)
    assert [request.mount for request in deleted] == [MOUNT]


def test_an_engine_whose_vault_never_answered_is_deleted_after_a_while(world: World) -> None:
    away = errors.VaultUnavailableError("away", address=VAULT)
    world.engine.fail_always("EnsureEngine", away)
    world.engine.fail_always("DeleteEngine", away)
    world.guide()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.advance(10)
    assert world.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is not None
    world.advance(10)
    assert world.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None
    assert any("Warning VaultCleanupSkipped" in event for event in world.kube.events("postgresql-engine"))
    assert any("Warning VaultCleanupSkipped" in event for event in world.kube.events("demo"))


def test_an_engine_waits_for_its_vault_as_long_as_it_takes_and_says_so(granted: World) -> None:
    granted.engine.fail_always("DeleteEngine", errors.VaultSealedError("Vault is sealed", address=VAULT))
    granted.delete(SECRET_ENGINE, "postgresql-engine")
    granted.advance(3600, step_s=10)
    assert granted.condition(SECRET_ENGINE, "postgresql-engine", "Failed")["reason"] == "VaultSealed"
    assert any("Warning VaultSealed" in event for event in granted.kube.events("postgresql-engine"))
    granted.engine.fail_always("DeleteEngine", None)
    granted.advance(6)
    assert granted.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None
    assert granted.engine.mounts == {}


def test_a_role_waits_for_its_vault_too(granted: World) -> None:
    granted.roles.fail_always("DeleteDbRole", errors.VaultUnavailableError("away", address=VAULT))
    granted.delete(POSTGRES_ROLE, "psql-role")
    granted.advance(600, step_s=10)
    assert granted.condition(POSTGRES_ROLE, "psql-role", "Failed")["reason"] == "VaultUnavailable"
    granted.roles.fail_always("DeleteDbRole", None)
    granted.advance(3)
    assert granted.kube.see(POSTGRES_ROLE, "demo/psql-role") is None


def test_what_lets_nobody_in_for_long_is_abandoned_and_reported(granted: World) -> None:
    granted.engine.fail_always("DeleteEngine", errors.VaultAuthMissingError("no session", target="demo/vault"))
    granted.delete(SECRET_ENGINE, "postgresql-engine")
    granted.advance(118, step_s=2)
    assert granted.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is not None
    granted.advance(6)
    assert granted.kube.see(SECRET_ENGINE, "demo/postgresql-engine") is None
    assert any("Warning VaultCleanupSkipped" in event for event in granted.kube.events("demo"))


def test_a_claim_that_fails_is_reported_and_tried_again(world: World) -> None:
    world.guide()
    world.access.fail("ClaimCredential", errors.VaultSealedError("Vault is sealed", address=VAULT))
    world.decide()
    world.settle()
    condition = world.condition(ACCESS_REQUEST, "rqst", "Failed")
    assert (condition["reason"], condition["message"]) == ("FailedToGetCredential", "Vault is sealed")
    assert world.status(ACCESS_REQUEST, "rqst")["phase"] == "Approved"
    world.advance(5.5)
    assert world.secret() is not None
    assert not world.condition(ACCESS_REQUEST, "rqst", "Failed")


def test_a_secret_that_cannot_be_written_is_reported_and_tried_again(world: World) -> None:
    world.guide()
    broken = [KubeError("etcd is full", status=500)] * 2

    def fail(method: str, resource: Resource, name: str) -> None:
        if method == "POST" and resource == SECRET and broken:
            raise broken.pop()

    world.kube.fail = fail
    world.decide()
    world.settle()
    assert world.condition(ACCESS_REQUEST, "rqst", "Failed")["reason"] == "FailedToCreateSecret"
    world.advance(5)
    assert world.secret() is not None
    assert not world.condition(ACCESS_REQUEST, "rqst", "Failed")


@pytest.mark.parametrize(
    ("resource", "reason"), [(ROLE, "FailedToCreateRole"), (ROLE_BINDING, "FailedToCreateRoleBinding")]
)
def test_a_role_that_cannot_be_written_costs_no_second_credential(
    world: World, resource: Resource, reason: str
) -> None:
    world.guide()
    broken = [KubeError("etcd is full", status=500)]

    def fail(method: str, got: Resource, name: str) -> None:
        if method == "POST" and got == resource and broken:
            raise broken.pop()

    world.kube.fail = fail
    world.decide()
    world.settle()
    assert world.condition(ACCESS_REQUEST, "rqst", "Failed")["reason"] == reason
    assert world.status(ACCESS_REQUEST, "rqst")["attempt"] == 1
    assert world.condition(ACCESS_REQUEST, "rqst", "Ready")["status"] == "False"  # nobody may read the Secret yet
    world.advance(5)
    assert world.condition(ACCESS_REQUEST, "rqst", "Ready")["status"] == "True"
    assert world.kube.see(resource, "demo/DatabaseAccessRequest-demo-rqst-credential-reader") is not None
    assert len(world.access.asked(CLAIM)) == 1
    assert not world.condition(ACCESS_REQUEST, "rqst", "Failed")


def test_a_deletion_asks_access_once_where_all_users_are_dropped_at_once(granted: World) -> None:
    granted.delete(ACCESS_REQUEST, "rqst")
    granted.settle()
    assert len(granted.access.asked(watcher_service_pb2.DeleteAccessRequestRequest)) == 1


def test_the_removal_of_its_own_secret_does_not_repeat_a_deletion(granted: World) -> None:
    granted.access.stuck = True
    granted.delete(ACCESS_REQUEST, "rqst")
    granted.settle()
    assert granted.secret() is None
    assert len(granted.access.asked(watcher_service_pb2.DeleteAccessRequestRequest)) == 1


def test_a_request_keeps_its_finalizer_while_access_is_down(granted: World) -> None:
    granted.access.fail_always("DeleteAccessRequest", errors.PeerUnavailableError("cannot be reached"))
    granted.delete(ACCESS_REQUEST, "rqst")
    granted.advance(60, step_s=1)
    assert granted.kube.see(ACCESS_REQUEST, "demo/rqst") is not None
    granted.access.fail_always("DeleteAccessRequest", None)
    granted.advance(2)
    assert granted.kube.see(ACCESS_REQUEST, "demo/rqst") is None


# -- a namespace that goes with everything in it


def test_a_namespace_that_is_deleted_leaves_nothing(granted: World) -> None:
    granted.kube.terminating.add("demo")
    granted.kube.refused.add("demo")
    granted.delete(SERVICE_ACCOUNT, "vault")
    granted.watcher.namespaces._watched["demo"].informer.list_and_watch()
    for resource in (APP_BINDING, SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST):
        for obj in granted.kube.all(resource):
            granted.delete(resource, obj["metadata"]["name"])
    granted.advance(6)
    for resource in (APP_BINDING, SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST):
        assert granted.kube.all(resource) == []
    assert (granted.engine.mounts, granted.roles.roles) == ({}, {})
    deleted = granted.engine.asked(engine_service_pb2.DeleteEngineRequest)[-1]
    assert (deleted.target.address, deleted.target.kubernetes.mount) == (VAULT, "kubernetes")
    assert granted.kube.all(NAMESPACE) == []


# -- moves and sharing


def test_a_moved_database_waits_until_nothing_depends_on_it(granted: World) -> None:
    granted.access.remaining = 1
    granted.kube.edit(
        APP_BINDING, "demo/postgres-app", lambda o: o["spec"]["clientConfig"]["service"].update(port=5433)
    )
    granted.advance(3)
    condition = granted.condition(SECRET_ENGINE, "postgresql-engine", "Available")
    assert (condition["reason"], granted.status(SECRET_ENGINE, "postgresql-engine")["phase"]) == (
        "LeasesInUse",
        "Processing",
    )
    assert not granted.access.asked(watcher_service_pb2.QuiesceRequest)[-1].revoke_leases
    granted.access.remaining = 0
    granted.advance(3)
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert granted.engine.connections[VAULT, MOUNT, "k8s.-.demo.postgres-app"].service.port == 5433
    assert granted.access.paused == set()


def test_a_role_whose_connection_changes_waits_too(granted: World) -> None:
    granted.database("other-app", "other")
    granted.kube.edit(SECRET_ENGINE, "demo/postgresql-engine", lambda o: o["metadata"].update(annotations={"x": "y"}))
    granted.access.remaining = 1
    granted.kube.edit(
        POSTGRES_ROLE, "demo/psql-role", lambda o: o["spec"].update(databaseRef=None, databaseName="by-hand")
    )
    granted.advance(3)
    assert granted.condition(POSTGRES_ROLE, "psql-role", "Available")["reason"] == "LeasesInUse"
    granted.access.remaining = 0
    granted.advance(3)
    assert granted.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    assert granted.access.paused == set()


def test_leases_are_ended_before_an_engine_goes(granted: World) -> None:
    granted.access.remaining = 2
    granted.delete(SECRET_ENGINE, "postgresql-engine")
    granted.advance(3)
    assert granted.access.asked(watcher_service_pb2.QuiesceRequest)[-1].revoke_leases
    assert granted.condition(SECRET_ENGINE, "postgresql-engine", "Available")["reason"] == "RevokingLeases"
    assert granted.engine.mounts
    granted.access.remaining = 0
    granted.advance(3)
    assert granted.engine.mounts == {}


def test_a_shared_mount_goes_with_its_last_owner(world: World) -> None:
    world.guide()
    world.database("other-app", "other", allow_from="demo")
    world.kube.put(SECRET, {"metadata": {"name": "x"}}, namespace="other")
    spec = {
        "vaultRef": {"name": "vault"},
        "path": MOUNT,
        "postgres": {"databaseRef": {"name": "other-app", "namespace": "other"}},
    }
    world.put(SECRET_ENGINE, "second", spec=spec)
    world.settle()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.settle()
    asked = world.access.asked(watcher_service_pb2.QuiesceRequest)[-1]
    assert (asked.mount, asked.connection) == (MOUNT, "k8s.-.demo.postgres-app")
    assert world.engine.mounts == {(VAULT, MOUNT): {"demo/second"}}
    world.delete(SECRET_ENGINE, "second")
    world.settle()
    assert world.access.asked(watcher_service_pb2.QuiesceRequest)[-1].connection == ""
    assert world.engine.mounts == {}


def test_a_shared_connection_is_left_to_the_other(world: World) -> None:
    world.guide()
    world.secret_engine("second")
    world.settle()
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.settle()
    assert world.engine.asked(engine_service_pb2.DeleteEngineRequest)[-1].connection_shared
    assert not world.access.asked(watcher_service_pb2.QuiesceRequest)
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"


def test_a_mount_that_is_made_again_has_issuance_resumed(granted: World) -> None:
    granted.delete(SECRET_ENGINE, "postgresql-engine")
    granted.settle()
    assert granted.access.paused
    granted.secret_engine()
    granted.settle()
    assert granted.access.paused == set()


def test_another_vault_is_another_place(granted: World) -> None:
    granted.kube.edit(
        APP_BINDING, "demo/vault", lambda o: o["spec"]["clientConfig"]["service"].update(name="vault-two")
    )
    granted.advance(3)
    two = OTHER_VAULT
    assert set(granted.engine.mounts) == {(two, MOUNT)}
    assert {place[0] for place in granted.roles.roles} == {two}
    assert granted.status(SECRET_ENGINE, "postgresql-engine")["target"]["address"] == two


def test_a_role_on_another_path_leaves_the_former(granted: World) -> None:
    granted.secret_engine("second", path="team-a")
    granted.settle()
    granted.kube.edit(POSTGRES_ROLE, "demo/psql-role", lambda o: o["spec"].update(path="team-a"))
    granted.settle()
    assert set(granted.roles.roles) == {(VAULT, "team-a", "k8s.-.demo.psql-role")}


# -- the feed


def test_a_change_on_the_feed_brings_its_request_back(granted: World) -> None:
    asked = len(granted.access.asked(watcher_service_pb2.EnsureAccessRequestRequest))
    granted.follow_feed()
    ref = CLUSTER.ref(granted.kube.see(ACCESS_REQUEST, "demo/rqst") or {})
    granted.access.publish(access_request_changed=ref)
    granted.follow_feed()
    assert len(granted.access.asked(watcher_service_pb2.EnsureAccessRequestRequest)) > asked


def test_a_cleanup_role_is_made_and_reported_and_removed(granted: World) -> None:
    granted.follow_feed()
    ref = types_pb2.VaultTargetRef(namespace="demo", name="vault", address=VAULT)
    needed = change_pb2.CleanupRoleNeeded(
        name="leasegate-cleanup.0123456789ab", target=ref, mount=MOUNT, connection="x", force_drop=True
    )
    granted.access.publish(cleanup_role_needed=needed)
    granted.follow_feed()
    made = granted.roles.asked(role_service_pb2.EnsureCleanupRoleRequest)[-1]
    assert (made.name, made.mount, made.connection, made.force_drop, made.target.address) == (
        needed.name,
        MOUNT,
        "x",
        True,
        VAULT,
    )
    assert [(report.name, report.error) for report in granted.access.reports] == [(needed.name, "")]
    granted.access.publish(
        cleanup_role_unneeded=change_pb2.CleanupRoleUnneeded(name=needed.name, target=ref, mount=MOUNT)
    )
    granted.follow_feed()
    assert granted.roles.cleanup_roles == set()


def test_a_cleanup_role_that_fails_is_reported_and_tried_again(granted: World) -> None:
    granted.follow_feed()
    granted.roles.fail("EnsureCleanupRole", errors.VaultSealedError("Vault is sealed", address=VAULT))
    ref = types_pb2.VaultTargetRef(namespace="demo", name="vault", address=VAULT)
    granted.access.publish(
        cleanup_role_needed=change_pb2.CleanupRoleNeeded(name="leasegate-cleanup.0123456789ab", target=ref, mount=MOUNT)
    )
    granted.follow_feed()
    assert [report.error for report in granted.access.reports] == ["Vault is sealed"]
    granted.advance(6)
    assert [report.error for report in granted.access.reports] == ["Vault is sealed", ""]


def test_a_missing_session_is_answered_with_a_new_token(granted: World) -> None:
    granted.follow_feed()
    before = granted.access.targets["demo", "vault"].kubernetes.jwt
    granted.access.publish(vault_auth_needed=types_pb2.VaultTargetRef(namespace="demo", name="vault", address=VAULT))
    granted.follow_feed()
    assert granted.access.targets["demo", "vault"].kubernetes.jwt not in ("", before)


def test_a_feed_that_restarts_has_everything_sent_again(granted: World) -> None:
    granted.follow_feed()
    granted.access.targets.clear()
    granted.access.roles.clear()
    granted.access.requests.clear()
    granted.watcher.feed._cursor = ""
    granted.follow_feed()
    assert set(granted.access.targets) == {("demo", "vault")}
    assert set(granted.access.roles) == {("demo", "psql-role")}
    assert len(granted.access.requests) == 1


def test_tokens_are_made_once_per_target_and_again_before_they_end(granted: World) -> None:
    def made() -> int:
        return sum(call == "POST serviceaccounts demo/vault" for call in granted.kube.calls)

    assert made() == 1
    for number in range(5):
        granted.request(f"more-{number}")
    granted.settle()
    assert made() == 1
    granted.now += 400
    granted.watcher.triggers.enqueue_all()
    granted.settle()
    assert made() == 2


def test_a_refused_token_is_replaced_at_once(world: World) -> None:
    """Field report 29: of a ServiceAccount that was deleted and made again; no condition ever says so."""
    world.engine.fail(
        "EnsureEngine", errors.VaultAuthRefusedError("the ServiceAccount is another one now", target="demo/vault")
    )
    world.guide()
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert "VaultAuthRefused" not in str(world.kube.events())
    jwts = [call.target.kubernetes.jwt for call in world.engine.asked(engine_service_pb2.EnsureEngineRequest)]
    assert jwts[0] != jwts[-1]


def test_no_secret_reaches_a_status_or_an_event(granted: World) -> None:
    granted.access.fail(
        "DeleteAccessRequest", errors.VaultFailedError("token=hvs.ABCDEFGHIJKLMNOP1234 password=password-1", path="x")
    )
    granted.delete(ACCESS_REQUEST, "rqst")
    granted.settle()
    seen = str(
        [granted.kube.all(resource) for resource in (APP_BINDING, SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST)]
        + [granted.kube.events()]
    )
    for secret in ("password-1", "jwt-vault", "hvs.ABCDEF", "cm9vdA"):
        assert secret not in seen
