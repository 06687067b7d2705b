"""The guide's objects, from the first apply to the last delete, over a Kubernetes and services in memory."""

from __future__ import annotations

import base64

from leasegate.access.v1 import watcher_service_pb2
from leasegate.engine.v1 import engine_service_pb2
from tests.fakes.peers import digest_of
from tests.unit.watcher.watcher_world import MOUNT, VAULT, World
from watcher.kube.resources import ROLE, ROLE_BINDING
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, FINALIZER, POSTGRES_ROLE, SECRET_ENGINE


def test_engine_role_and_request_converge(world: World) -> None:
    world.guide()
    assert world.status(SECRET_ENGINE, "postgresql-engine")["phase"] == "Success"
    assert world.status(POSTGRES_ROLE, "psql-role")["phase"] == "Success"
    status = world.status(ACCESS_REQUEST, "rqst")
    assert (status["phase"], status["digest"]) == (
        "WaitingForApproval",
        digest_of(world.access.roles["demo", "psql-role"]),
    )
    assert world.secret() is None


def test_the_engine_service_gets_the_whole_desired_state(world: World) -> None:
    world.guide()
    request = world.engine.asked(engine_service_pb2.EnsureEngineRequest)[-1]
    assert (request.mount, request.target.address, request.postgres.name) == (MOUNT, VAULT, "k8s.-.demo.postgres-app")
    assert request.target.kubernetes.jwt.startswith("jwt-vault")
    assert (request.owner.uid, request.owner.cluster_uid) == (
        world.uid(SECRET_ENGINE, "postgresql-engine"),
        "kube-system-uid",
    )
    assert request.postgres.database.service.host == "postgres.demo.svc"
    assert (request.postgres.database.username, request.postgres.database.password) == ("postgres", "root")


def test_an_approval_puts_a_credential_into_a_secret(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    secret, status = world.secret(), world.status(ACCESS_REQUEST, "rqst")
    assert secret is not None
    assert {k: base64.b64decode(v) for k, v in secret["data"].items()} == {
        "username": b"user-1",
        "password": b"password-1",
    }
    assert secret["type"] == "Opaque"
    assert secret["metadata"]["annotations"]["leasegate.dev/attempt"] == "1"
    owner = secret["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("DatabaseAccessRequest", "rqst", True)
    assert status["phase"] == "Approved"
    assert status["secret"] == {"name": secret["metadata"]["name"]}
    assert status["attempt"] == 1
    assert status["lease"] == {
        "id": "mount/creds/role/lease-1", "duration": "1h0m0s", "renewable": True, "expireTime": "2033-05-18T03:33:20Z",
    }  # fmt: skip
    assert "Normal SuccessfullyIssuedCredential: The requested credentials successfully issued." in world.kube.events(
        "rqst"
    )


def test_only_the_subjects_may_read_the_one_secret(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    name, secret = "DatabaseAccessRequest-demo-rqst-credential-reader", world.secret()
    role, binding = world.kube.see(ROLE, f"demo/{name}"), world.kube.see(ROLE_BINDING, f"demo/{name}")
    assert role is not None
    assert binding is not None
    assert secret is not None
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret["metadata"]["name"]], "verbs": ["get"]}
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "demo-sa", "namespace": "demo"}]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}


def test_the_decision_is_passed_on_and_never_touched(world: World) -> None:
    world.guide()
    world.decide()
    before = world.condition(ACCESS_REQUEST, "rqst", "Approved")
    world.settle()
    decision = world.access.asked(watcher_service_pb2.EnsureAccessRequestRequest)[-1].decisions[0]
    assert (decision.approver, decision.reason, decision.message, decision.digest) == (
        "bob", "KubectlApprove", "by hand", world.status(ACCESS_REQUEST, "rqst")["digest"],
    )  # fmt: skip
    assert decision.decide_time.ToJsonString() == "2026-01-01T00:00:00Z"
    assert world.condition(ACCESS_REQUEST, "rqst", "Approved") == before


def test_nothing_is_read_from_kubernetes_between_decision_and_secret(world: World) -> None:
    world.guide()
    world.kube.calls.clear()
    world.decide()
    world.settle()
    assert not [call for call in world.kube.calls if call.startswith(("GET", "LIST"))]
    assert world.kube.calls[-1].startswith("POST events")
    assert sum("secrets" in call for call in world.kube.calls) == 1


def test_a_denial_issues_nothing(world: World) -> None:
    world.guide()
    world.decide("Denied")
    world.settle()
    assert world.secret() is None
    assert world.status(ACCESS_REQUEST, "rqst")["phase"] == "Denied"


def test_a_denial_after_an_approval_takes_everything_back(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.decide("Denied")
    world.settle()
    status = world.status(ACCESS_REQUEST, "rqst")
    assert world.secret() is None
    assert not world.kube.all(ROLE)
    assert not world.kube.all(ROLE_BINDING)
    assert status["phase"] == "Denied"
    assert not {"secret", "lease", "attempt"} & set(status)
    assert any("AccessEnded" in event for event in world.kube.events("rqst"))


def test_deleting_a_request_ends_its_access_first(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    uid = world.uid(ACCESS_REQUEST, "rqst")
    world.delete(ACCESS_REQUEST, "rqst")
    world.settle()
    assert world.kube.see(ACCESS_REQUEST, "demo/rqst") is None
    assert world.access.requests[uid].ended
    assert world.secret() is None
    assert not world.kube.all(ROLE)


def test_a_request_is_deleted_within_five_seconds_before_its_user(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.access.stuck = True
    world.delete(ACCESS_REQUEST, "rqst")
    world.advance(2.5)
    assert world.kube.see(ACCESS_REQUEST, "demo/rqst") is not None
    assert world.secret() is None
    world.advance(2.5)
    assert world.kube.see(ACCESS_REQUEST, "demo/rqst") is None
    assert any("Warning RevocationPending: 1 database users" in event for event in world.kube.events("rqst"))


def test_deleting_all_in_any_order_leaves_nothing(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    for resource, name in (
        (APP_BINDING, "vault"),
        (APP_BINDING, "postgres-app"),
        (SECRET_ENGINE, "postgresql-engine"),
        (POSTGRES_ROLE, "psql-role"),
        (ACCESS_REQUEST, "rqst"),
    ):
        world.delete(resource, name)
    world.settle()
    for resource in (APP_BINDING, SECRET_ENGINE, POSTGRES_ROLE, ACCESS_REQUEST):
        assert world.kube.all(resource) == []
    assert (world.engine.mounts, world.roles.roles, world.access.roles) == ({}, {}, {})


def test_an_app_binding_in_use_keeps_its_finalizer(world: World) -> None:
    world.guide()
    world.delete(APP_BINDING, "vault")
    world.settle()
    binding = world.kube.see(APP_BINDING, "demo/vault")
    assert binding is not None
    assert binding["metadata"]["finalizers"] == [FINALIZER]
    world.delete(POSTGRES_ROLE, "psql-role")
    world.settle()
    assert world.kube.see(APP_BINDING, "demo/vault") is not None
    world.delete(SECRET_ENGINE, "postgresql-engine")
    world.settle()
    assert world.kube.see(APP_BINDING, "demo/vault") is None


def test_own_writes_come_back_to_rest(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    calls = len(world.kube.calls), len(world.access.calls), len(world.engine.calls)
    world.settle()
    world.advance(30)
    assert calls == (len(world.kube.calls), len(world.access.calls), len(world.engine.calls))


def test_a_resync_writes_nothing(world: World) -> None:
    world.guide()
    world.decide()
    world.settle()
    world.kube.calls.clear()
    list(world.watcher.triggers.resync(1))
    world.settle()
    assert not [call for call in world.kube.calls if call.split()[0] in ("PUT", "PATCH", "DELETE")]
