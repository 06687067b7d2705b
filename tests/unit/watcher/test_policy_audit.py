"""M11 and F18: the watcher compares the admission policies in its cluster with those of its release."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deploy.render import rendered
from watcher.delivery.policy_audit import USER, PolicyAudit, differences, read_released
from watcher.kube.client import KubeError
from watcher.kube.resources import SELF_SUBJECT_REVIEW, Body, Resource
from watcher.kube.result import PendingError

OTHER = "system:serviceaccount:db-access:watch"
Found = dict[tuple[str, str], Body | None]
DECISION = ("ValidatingAdmissionPolicy", "leasegate-decision")
BINDING = ("ValidatingAdmissionPolicyBinding", "leasegate-decision")
MUTATING = ("MutatingAdmissionPolicy", "leasegate-requester-stamp")


def stored(*, namespace: str = "leasegate-system", account: str = "leasegate-watcher") -> Found:
    """The policies as an API server returns them: with what it adds to a manifest."""
    return copy.deepcopy(_stored(namespace, account))


@functools.cache
def _stored(namespace: str, account: str) -> Found:
    found: Found = {}
    for name, text in rendered(namespace=namespace, account=account).items():
        for document in yaml.safe_load_all(text) if name.startswith("policies/") else ():
            constraints = document["spec"].get("matchConstraints")
            if constraints:
                constraints |= {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}}
                for rule in constraints["resourceRules"]:
                    rule["scope"] = "*"
            document["metadata"] |= {"uid": "u", "generation": 1}
            found[document["kind"], document["metadata"]["name"]] = document | {"status": {}}
    return found


def compared(found: Found, user: str = USER) -> list[str]:
    return differences(found, user=user, released=read_released())


def test_what_is_applied_is_in_force() -> None:
    assert compared(stored()) == []
    assert compared(stored(namespace="db-access", account="watch"), OTHER) == []


def test_m11_policies_for_another_name_are_not() -> None:
    assert "ValidatingAdmissionPolicy leasegate-watcher-limits is not that of this release for" in str(
        compared(stored(), OTHER)
    )
    assert compared(stored(namespace="db-access", account="watch"))
    assert compared(stored(), "admin")


WEAKER: dict[str, tuple[tuple[str, str], Callable[[dict[str, Any]], object]]] = {
    "not for mallory": (
        DECISION,
        lambda spec: spec.update(
            matchConditions=[{"name": "x", "expression": "request.userInfo.username != 'mallory'"}]
        ),
    ),
    "ignored if it fails": (DECISION, lambda spec: spec.update(failurePolicy="Ignore")),
    "a rule less": (DECISION, lambda spec: spec["validations"].pop()),
    "another variable": (DECISION, lambda spec: spec["variables"][0].update(expression="[]")),
    "another resource": (DECISION, lambda spec: spec["matchConstraints"]["resourceRules"][0].update(resources=["x"])),
    "some namespaces": (
        DECISION,
        lambda spec: spec["matchConstraints"].update(namespaceSelector={"matchLabels": {"a": "b"}}),
    ),
    "a resource is excluded": (DECISION, lambda spec: spec["matchConstraints"].update(excludeResourceRules=[{}])),
    "only warned": (BINDING, lambda spec: spec.update(validationActions=["Warn"])),
    "bound to some": (BINDING, lambda spec: spec.update(matchResources={"namespaceSelector": {"matchLabels": {}}})),
    "bound to another": (BINDING, lambda spec: spec.update(policyName="other")),
    "another stamp": (MUTATING, lambda spec: spec["mutations"].clear()),
    "tokens of anybody": (
        ("ValidatingAdmissionPolicy", "leasegate-tokens"),
        lambda spec: spec.update(matchConditions=[{"name": "never", "expression": "false"}]),
    ),
}


@pytest.mark.parametrize("how", WEAKER)
def test_f18_a_weaker_policy_is_noticed(how: str) -> None:
    (kind, name), weaken = WEAKER[how]
    found = stored()
    obj = copy.deepcopy(found[kind, name])
    assert obj
    weaken(obj["spec"])
    assert compared(found | {(kind, name): obj}) == [f"{kind} {name} is not that of this release for {USER}"]


def test_what_is_missing_or_goes_is_not_in_force() -> None:
    found = stored()
    going = copy.deepcopy(found[BINDING]) or {}
    going["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z"
    assert compared(found | {DECISION: None}) == ["ValidatingAdmissionPolicy leasegate-decision is missing"]
    assert compared(found | {BINDING: going}) == [f"{BINDING[0]} {BINDING[1]} is being deleted"]
    older = {key: None if key[0].startswith("Mutating") else obj for key, obj in found.items()}
    assert compared(older) == [], "Kubernetes before 1.36"


def test_what_an_operator_names_is_not_compared() -> None:
    found = stored()
    tokens = copy.deepcopy(found["ValidatingAdmissionPolicy", "leasegate-tokens"]) or {}
    tokens["spec"]["validations"][0]["expression"] = "object.spec.audiences == ['vault.example.com']"
    assert compared(found | {("ValidatingAdmissionPolicy", "leasegate-tokens"): tokens}) == []


class Served:
    """An API server with policies, and whether it accepts what they must refuse."""

    def __init__(self) -> None:
        self.found = stored()
        self.error: KubeError | None = None
        self.accepted = ""
        self.changes = 0
        self.compared = 0

    def audit(self) -> PolicyAudit:
        return PolicyAudit(self, find_accepted=lambda: self.accepted, on_change=self._count)  # type: ignore[arg-type]

    def _count(self) -> None:
        self.changes += 1

    def get(self, resource: Resource, *, namespace: str = "", name: str) -> Body:
        if self.error:
            raise self.error
        found = self.found.get((resource.kind, name))
        if found is None:
            raise KubeError("not found", status=404)
        return found

    def create(self, resource: Resource, body: Body, *, namespace: str, name: str = "", subresource: str = "") -> Body:
        assert resource is SELF_SUBJECT_REVIEW
        self.compared += 1
        return {"status": {"userInfo": {"username": USER}}}


def test_m11_nothing_is_issued_until_they_are_in_force() -> None:
    served = Served()
    audit = served.audit()
    with pytest.raises(PendingError, match="not compared yet"):
        audit.check_in_force()
    audit.compare()
    audit.check_in_force()
    served.error = KubeError("forbidden", status=403)
    audit.compare()
    with pytest.raises(PendingError, match=r"they cannot be read \(forbidden\)"):
        audit.check_in_force()
    served.error = None
    served.found[DECISION] = None
    audit.compare()
    with pytest.raises(PendingError, match=r"leasegate-decision is missing[.] Apply deploy/policies") as pending:
        audit.check_in_force()
    assert pending.value.reason == "PoliciesNotInForce"


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_no_answer_says_nothing(status: int) -> None:
    served = Served()
    audit = served.audit()
    served.error = KubeError("no answer", status=status)
    audit.compare()
    assert audit.what_is_wrong() is None
    served.error = None
    audit.compare()
    served.error = KubeError("no answer", status=status)
    audit.compare()
    audit.check_in_force()
    assert audit.what_is_wrong() == ""


def test_f18_a_policy_that_refuses_nothing_is_not_in_force() -> None:
    served = Served()
    audit = served.audit()
    served.accepted = "the API server accepts it"
    audit.compare()
    with pytest.raises(PendingError, match="the API server accepts it"):
        audit.check_in_force()
    served.accepted = ""
    audit.compare()
    audit.check_in_force()


def test_only_a_change_between_in_force_and_not_is_one() -> None:
    served = Served()
    audit = served.audit()
    changes = []
    for missing in ([], [], [DECISION], [DECISION, BINDING], [BINDING], []):
        served.found = stored() | dict.fromkeys(missing)
        audit.compare()
        changes.append(served.changes)
    assert changes == [1, 1, 2, 2, 2, 3]


def test_namespaces_that_are_enabled_are_compared_once_a_tick() -> None:
    served = Served()
    audit = served.audit()
    audit.compare()

    class Ticks(threading.Event):
        """Three ticks; twenty namespaces are enabled before the second."""

        left = 3

        def wait(self, timeout: float | None = None) -> bool:
            assert timeout == 1
            self.left -= 1
            for _ in range(20 if self.left == 1 else 0):
                audit.ask_comparison()
            return self.left < 0

    audit.run(Ticks(), interval_s=300)
    assert served.compared == 2
