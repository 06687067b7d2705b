"""The standard condition Ready on every kind whose status the watcher writes, as ``kubectl wait`` reads it."""

from __future__ import annotations

import pytest

from leasegate.access.v1 import watcher_service_pb2
from leasegate.types.v1 import types_pb2
from services.common import errors
from tests.unit.watcher.watcher_world import VAULT, World
from watcher.kube.client import KubeError
from watcher.kube.resources import ROLE, SECRET, Resource, key_of
from watcher.reconcilers.access_request_status import NOT_APPROVABLE
from watcher.specs.kinds import ACCESS_REQUEST, APP_BINDING, POSTGRES_ROLE, SECRET_ENGINE

BOUND_VAULT, BOUND_DATABASE = (APP_BINDING, "vault"), (APP_BINDING, "postgres-app")
ENGINE, DB_ROLE, REQUEST = (
    (SECRET_ENGINE, "postgresql-engine"),
    (POSTGRES_ROLE, "psql-role"),
    (ACCESS_REQUEST, "rqst"),
)


def ready(world: World, which: tuple[Resource, str]) -> tuple[str, str]:
    """Status and reason of the condition."""
    condition = world.condition(*which, "Ready")
    return condition["status"], condition["reason"]


@pytest.fixture
def granted(world: World) -> World:
    world.guide()
    world.decide()
    world.settle()
    return world


def test_engine_and_role_are_ready_with_success(world: World) -> None:
    world.guide()
    for which in (ENGINE, DB_ROLE):
        assert ready(world, which) == ("True", "Provisioned")
        condition = world.condition(*which, "Ready")
        assert condition["observedGeneration"] == 1
        assert {"lastTransitionTime", "message"} <= set(condition)


def test_app_bindings_in_use_are_ready(world: World) -> None:
    world.guide()
    assert ready(world, BOUND_VAULT) == ("True", "Registered")
    assert ready(world, BOUND_DATABASE) == ("True", "Complete")


def test_an_app_binding_that_nothing_uses_is_left_alone(world: World) -> None:
    world.vault()
    world.database()
    world.settle()
    assert world.status(*BOUND_VAULT) == {}
    assert world.status(*BOUND_DATABASE) == {}


def test_conditions_of_other_operators_stay(world: World) -> None:
    theirs = {"type": "Healthy", "status": "True", "reason": "Ours", "message": "", "observedGeneration": 1}
    world.vault()
    world.database()
    for which in (BOUND_VAULT, BOUND_DATABASE):
        resource, name = which
        world.kube.edit(
            resource, f"demo/{name}", lambda obj: obj.update(status={"conditions": [theirs], "phase": "Ready"})
        )
    world.settle()
    assert world.status(*BOUND_VAULT) == {"conditions": [theirs], "phase": "Ready"}
    world.secret_engine()
    world.settle()
    for which in (BOUND_VAULT, BOUND_DATABASE):
        assert world.status(*which)["phase"] == "Ready"
        assert world.status(*which)["conditions"][0] == theirs
        assert ready(world, which)[0] == "True"


def test_an_app_binding_that_nothing_uses_any_more_says_so(world: World) -> None:
    world.guide()
    for which in (REQUEST, DB_ROLE, ENGINE):
        world.delete(*which)
    world.advance(10)
    assert ready(world, BOUND_VAULT) == ("True", "NotUsed")
    assert ready(world, BOUND_DATABASE) == ("True", "NotUsed")


def test_another_namespace_does_not_make_an_app_binding_look_broken(world: World) -> None:
    world.guide()
    theirs = {"vaultRef": {"name": "vault"}, "path": "theirs"}
    database = {"databaseRef": {"name": "vault", "namespace": "demo"}}  # which is no database
    world.put(SECRET_ENGINE, "theirs", namespace="other", spec={**theirs, "postgres": database})
    world.settle()
    world.watcher.triggers.enqueue_all()
    world.advance(10)
    assert ready(world, BOUND_VAULT) == ("True", "Registered")
    assert ready(world, BOUND_DATABASE) == ("True", "Complete")


def test_another_namespace_alone_writes_no_status(world: World) -> None:
    world.vault()
    world.database()
    theirs = {"vaultRef": {"name": "vault"}, "path": "theirs"}
    database = {"databaseRef": {"name": "postgres-app", "namespace": "demo"}}
    world.put(SECRET_ENGINE, "theirs", namespace="other", spec={**theirs, "postgres": database})
    world.advance(5)
    world.delete(SECRET_ENGINE, "theirs", "other")
    world.advance(10)
    assert world.status(*BOUND_VAULT) == {}
    assert world.status(*BOUND_DATABASE) == {}


def test_an_app_binding_without_its_secret_is_not_ready(world: World) -> None:
    world.vault()
    world.database()
    world.delete(SECRET, "postgres-user-cred")
    world.secret_engine()
    world.settle()
    assert ready(world, BOUND_DATABASE) == ("False", "SecretNotFound")


def test_an_app_binding_whose_vault_access_does_not_take_is_not_ready(world: World) -> None:
    world.access.fail_always("EnsureVaultTarget", errors.PeerUnavailableError("cannot be reached"))
    world.guide()
    assert ready(world, BOUND_VAULT) == ("False", "PeerUnavailable")
    world.access.fail_always("EnsureVaultTarget", None)
    world.advance(10)
    assert ready(world, BOUND_VAULT) == ("True", "Registered")


@pytest.mark.parametrize("status", [403, 404])
def test_without_a_status_in_the_crd_app_bindings_are_used_all_the_same(world: World, status: int) -> None:
    def fail(method: str, resource: Resource, _name: str) -> None:
        if (method, resource) == ("PUT", APP_BINDING):
            raise KubeError("the server could not find the requested resource", status=status)

    world.kube.fail = fail
    world.guide()
    assert world.status(*BOUND_VAULT) == {}
    assert ready(world, ENGINE) == ("True", "Provisioned")


def test_what_is_pending_is_not_ready_and_says_why(world: World) -> None:
    world.vault()
    world.database()
    world.role()
    world.settle()
    assert ready(world, DB_ROLE) == ("False", "EngineNotReady")
    world.secret_engine()
    world.settle()
    assert ready(world, DB_ROLE) == ("True", "Provisioned")


def test_what_failed_is_not_ready_and_says_why(world: World) -> None:
    world.engine.fail_always("EnsureEngine", errors.VaultSealedError("Vault is sealed", address=VAULT))
    world.guide()
    assert ready(world, ENGINE) == ("False", "VaultSealed")
    assert world.condition(*ENGINE, "Ready")["message"] == "Vault is sealed"


def test_a_request_is_not_ready_before_its_approval(world: World) -> None:
    world.guide()
    assert ready(world, REQUEST) == ("False", "ApprovalRequired")
    message = world.condition(*REQUEST, "Ready")["message"]
    assert message.endswith("kubectl vault approve databaseaccessrequest rqst -n demo")
    assert world.status(*REQUEST)["phase"] == "WaitingForApproval"


@pytest.mark.parametrize("kind", [*NOT_APPROVABLE, "RoleChanging", "IssuancePaused"])
def test_a_request_that_an_approval_does_not_help_says_what_does(world: World, kind: str) -> None:
    text = "The owner has to do this"
    world.access.conditions = [types_pb2.Condition(type=kind, status=True, reason="Why", message=text)]
    world.access.step = watcher_service_pb2.NEXT_STEP_NONE
    world.guide()
    assert ready(world, REQUEST) == ("False", "Why" if kind in NOT_APPROVABLE else "ApprovalRequired")
    world.decide()
    world.settle()
    assert ready(world, REQUEST) == ("False", "Why")
    assert world.condition(*REQUEST, "Ready")["message"] == text


def test_a_request_is_ready_with_its_credential(granted: World) -> None:
    assert ready(granted, REQUEST) == ("True", "SuccessfullyIssuedCredential")
    secret = granted.secret()
    assert secret is not None
    assert secret["metadata"]["name"] in granted.condition(*REQUEST, "Ready")["message"]
    assert granted.condition(*REQUEST, "Available")["status"] == "True"


def test_a_request_is_not_ready_before_its_acknowledgement(world: World) -> None:
    world.guide()
    world.access.fail_always("AcknowledgeCredential", errors.LedgerUnavailableError("the disk is full"))
    world.decide()
    world.advance(10)
    assert world.secret() is not None
    assert ready(world, REQUEST)[0] == "False"
    world.access.fail_always("AcknowledgeCredential", None)
    world.advance(10)
    assert ready(world, REQUEST)[0] == "True"


def test_a_denied_request_is_not_ready(world: World) -> None:
    world.guide()
    world.decide("Denied")
    world.settle()
    assert ready(world, REQUEST) == ("False", "Denied")


def test_a_request_is_not_ready_once_its_access_has_ended(granted: World) -> None:
    granted.decide("Denied")
    granted.settle()
    assert ready(granted, REQUEST) == ("False", "Denied")


def test_a_claim_that_fails_leaves_the_request_not_ready(world: World) -> None:
    world.guide()
    world.access.fail_always("ClaimCredential", errors.VaultSealedError("Vault is sealed", address=VAULT))
    world.decide()
    world.settle()
    assert ready(world, REQUEST) == ("False", "FailedToGetCredential")


def test_a_credential_in_use_stays_ready_while_access_is_down(granted: World) -> None:
    granted.access.fail_always("EnsureAccessRequest", errors.PeerUnavailableError("cannot be reached"))
    granted.watcher.triggers.enqueue_all()
    granted.advance(10)
    assert granted.condition(*REQUEST, "Failed")["reason"] == "PeerUnavailable"
    assert ready(granted, REQUEST) == ("True", "SuccessfullyIssuedCredential")


def test_a_removed_secret_is_not_ready_while_access_is_down(granted: World) -> None:
    granted.access.fail_always("EnsureAccessRequest", errors.PeerUnavailableError("cannot be reached"))
    granted.delete(SECRET, key_of(granted.secret() or {}).name)
    granted.advance(10)
    assert ready(granted, REQUEST) == ("False", "PeerUnavailable")


def test_a_credential_that_nobody_may_read_is_not_ready(world: World) -> None:
    world.guide()

    def fail(method: str, resource: Resource, _name: str) -> None:
        if (method, resource) == ("POST", ROLE):
            raise KubeError("etcd is full", status=500)

    world.kube.fail = fail
    world.decide()
    world.settle()
    assert ready(world, REQUEST) == ("False", "FailedToCreateRole")
    world.kube.fail = lambda *_: None
    world.advance(10)
    assert ready(world, REQUEST)[0] == "True"


def test_a_credential_in_use_stays_ready_while_issuance_is_paused(granted: World) -> None:
    granted.access.conditions = [
        types_pb2.Condition(type="IssuancePaused", status=True, reason="LedgerMismatch", message="another ledger")
    ]
    granted.watcher.triggers.enqueue_all()
    granted.settle()
    assert granted.condition(*REQUEST, "IssuancePaused")
    assert ready(granted, REQUEST)[0] == "True"


def test_ready_has_no_event_of_its_own(granted: World) -> None:
    for which in (ENGINE, DB_ROLE, REQUEST):
        texts = granted.kube.events(which[1])
        assert len(texts) == len(set(texts))
