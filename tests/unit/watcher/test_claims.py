"""What the watcher asks access for between a decision and the Secret, and what it makes of the answers."""

from __future__ import annotations

from collections import Counter

import pytest
from google.protobuf import any_pb2, duration_pb2

from leasegate.access.v1 import requester_service_pb2, watcher_service_pb2
from services.common import errors, failpoints
from services.common.rpc import status
from tests.unit.watcher.watcher_world import VAULT, World
from watcher.kube.client import KubeError
from watcher.kube.resources import SECRET, SERVICE_ACCOUNT, Resource
from watcher.specs.kinds import ACCESS_REQUEST, SECRET_ENGINE

ENSURE = watcher_service_pb2.EnsureAccessRequestRequest


@pytest.fixture
def decided(world: World) -> World:
    """Approved, and the watcher has not looked yet; calls are counted from here on."""
    world.guide()
    world.decide()
    world.access.rpcs.clear()
    world.access.calls.clear()
    return world


def test_one_call_leads_from_the_decision_to_the_secret(decided: World) -> None:
    seen: list[Counter[str]] = []

    def fail(method: str, resource: object, name: str) -> None:
        if (method, resource) == ("POST", SECRET):
            seen.append(Counter(decided.access.rpcs))

    decided.kube.fail = fail
    decided.settle()
    assert seen == [Counter(EnsureAccessRequest=1)]
    assert decided.access.rpcs["ClaimCredential"] == 0
    assert decided.secret() is not None


def test_nothing_is_claimed_before_somebody_decided(world: World) -> None:
    world.guide()
    assert world.access.asked(ENSURE)
    assert not world.access.asked(requester_service_pb2.ClaimCredentialRequest)
    assert world.secret() is None


def test_an_approval_over_grpc_is_claimed_without_a_condition(world: World) -> None:
    """``leasegate approve`` decides in access alone: no condition of the object says so."""
    world.guide()
    world.access.requests[world.uid(ACCESS_REQUEST, "rqst")].approved_elsewhere = True
    world.access.publish(access_request_changed=world.access.asked(ENSURE)[-1].object)
    world.access.rpcs.clear()
    world.follow_feed()
    world.follow_feed()
    assert world.secret() is not None
    assert world.access.rpcs["ClaimCredential"] == 0


def test_a_claim_that_fails_is_not_tried_twice_at_once(decided: World) -> None:
    """Its status has where the request stands, beside why there is no credential."""
    decided.access.fail_always("ClaimCredential", errors.VaultSealedError("Vault is sealed", address=VAULT))
    decided.settle()
    assert decided.access.rpcs == Counter(EnsureAccessRequest=1)
    found, failed = decided.status(ACCESS_REQUEST, "rqst"), decided.condition(ACCESS_REQUEST, "rqst", "Failed")
    assert (found["phase"], found["digest"]) == ("Approved", decided.access.digest(decided.uid(ACCESS_REQUEST, "rqst")))
    assert (failed["reason"], failed["message"]) == ("FailedToGetCredential", "Vault is sealed")
    decided.advance(4.5)
    assert decided.access.rpcs == Counter(EnsureAccessRequest=1)
    decided.advance(1)
    assert decided.access.rpcs == Counter(EnsureAccessRequest=2)


def test_a_claim_that_conflicts_is_tried_again_and_not_reported(decided: World) -> None:
    decided.access.fail("ClaimCredential", errors.ConflictError("the attempt was ended meanwhile"))
    decided.settle()
    assert decided.secret() is None
    assert not decided.condition(ACCESS_REQUEST, "rqst", "Failed")
    decided.advance(1)
    assert decided.secret() is not None


def test_a_request_that_changed_meanwhile_is_asked_for_again(decided: World) -> None:
    decided.access.fail("ClaimCredential", errors.AccessEndedError("access has ended"))
    decided.advance(1)
    assert decided.secret() is not None
    assert not decided.condition(ACCESS_REQUEST, "rqst", "Failed")


@pytest.mark.parametrize("foreign", [True, False])
def test_nothing_is_asked_to_be_claimed_that_could_not_be_kept(decided: World, foreign: bool) -> None:
    """Neither where the Secret's name is somebody else's, nor in a namespace that is not enabled."""
    if foreign:
        decided.settle()
        name = decided.secret()["metadata"]["name"]  # type: ignore[index]
        decided.delete(SECRET, name)
        decided.put(SECRET, name, data={})
        decided.access.calls.clear()
        decided.access.rpcs.clear()
    else:
        decided.kube.refused.add("demo")
        decided.watcher.namespaces._watched["demo"].informer.list_and_watch()
    decided.advance(30)
    assert decided.access.asked(ENSURE)
    assert not any(request.claim for request in decided.access.asked(ENSURE))
    assert decided.access.rpcs["ClaimCredential"] == 0


def test_a_replaced_credential_comes_by_the_same_call(decided: World) -> None:
    decided.settle()
    before, request = decided.secret()["data"], decided.access.asked(ENSURE)[-1]  # type: ignore[index]
    decided.access.step = watcher_service_pb2.NEXT_STEP_CLAIM
    decided.access.before = lambda method: (
        setattr(decided.access, "step", None) if method == "AcknowledgeCredential" else None
    )
    decided.access.calls.clear()
    decided.access.publish(access_request_changed=request.object)
    decided.follow_feed()
    asked = decided.access.asked(ENSURE)[0]
    assert (asked.secret_attempt, asked.claim) == (1, True)
    assert decided.access.rpcs["ClaimCredential"] == 0
    assert decided.secret()["data"] != before  # type: ignore[index]
    assert decided.status(ACCESS_REQUEST, "rqst")["attempt"] == 2


def test_the_points_of_a_claim_are_passed_in_order(decided: World) -> None:
    passed: list[str] = []

    class Noted(failpoints.Failpoints):
        def pass_by(self, name: str) -> None:
            passed.append(name)

    failpoints.install(Noted())
    try:
        decided.settle()
    finally:
        failpoints.install(failpoints.Failpoints())
    assert passed == [
        "finalizer.on",
        "claim.asked",
        "claim.answered",
        "secret.written",
        "finalizer.on",
        "acknowledged",
        "status.written",
    ]


# -- the error within the answer


def test_an_error_within_an_answer_is_that_of_a_call() -> None:
    sent = errors.VaultThrottledError("slower, please", retry_after_s=7.5, address=VAULT)
    answer = watcher_service_pb2.EnsureAccessRequestResponse(
        retry_after=duration_pb2.Duration(seconds=1), claim_error=status.to_any(sent)
    )
    found = status.from_any(
        watcher_service_pb2.EnsureAccessRequestResponse.FromString(answer.SerializeToString()).claim_error
    )
    assert type(found) is errors.VaultThrottledError
    assert (found.message, found.retry_after_s, found.metadata) == (sent.message, 7.5, {"address": VAULT})


def test_something_else_than_a_status_is_internal() -> None:
    packed = any_pb2.Any()
    packed.Pack(duration_pb2.Duration(seconds=1))
    assert isinstance(status.from_any(packed), errors.InternalError)


@pytest.mark.parametrize("status_code", [403, 422])
@pytest.mark.parametrize("words", ["ValidatingAdmissionPolicy 'x' with binding 'x' denied request: not on Fridays"])
def test_a_policys_refusal_of_the_secret_is_quoted(decided: World, status_code: int, words: str) -> None:
    """A policy's 403 is not one of RBAC: the namespace is enabled."""

    def fail(method: str, resource: object, name: str) -> None:
        if (method, resource) == ("POST", SECRET):
            raise KubeError(f'secrets "x" is forbidden: {words}', status=status_code, reason="Forbidden")

    decided.kube.fail = fail
    decided.settle()
    failed = decided.condition(ACCESS_REQUEST, "rqst", "Failed")
    assert failed["reason"] == "FailedToCreateSecret"
    assert words in failed["message"]


@pytest.mark.parametrize(("resource", "name"), [(SECRET_ENGINE, "postgresql-engine"), (ACCESS_REQUEST, "rqst")])
def test_a_policys_refusal_of_the_finalizer_is_quoted(world: World, resource: Resource, name: str) -> None:
    words = "ValidatingAdmissionPolicy 'x' with binding 'x' denied request: metadata.finalizers has 30000 items"

    def fail(method: str, of: object, _: str) -> None:
        if (method, of) == ("PATCH", resource):
            raise KubeError(f'"x" is forbidden: {words}', status=422, reason="Invalid")

    world.kube.fail = fail
    world.guide()
    world.settle()
    pending = world.condition(resource, name, "Ready")
    assert (pending["status"], pending["reason"]) == ("False", "FinalizerRefused")
    assert words in pending["message"]


def test_a_policys_refusal_of_a_token_is_quoted(world: World) -> None:
    words = "ValidatingAdmissionPolicy 'x' with binding 'x' denied request: not this ServiceAccount"

    def fail(method: str, resource: object, name: str) -> None:
        if (method, resource) == ("POST", SERVICE_ACCOUNT):
            raise KubeError(f'serviceaccounts "vault" is forbidden: {words}', status=403, reason="Forbidden")

    world.kube.fail = fail
    world.guide()
    failed = world.condition(SECRET_ENGINE, "postgresql-engine", "Ready")
    assert failed["reason"] == "TokenRefused"
    assert words in failed["message"]
