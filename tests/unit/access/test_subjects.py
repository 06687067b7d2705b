"""M4 and F15: the subjects that access lets read a credential, whatever admission let through."""

from __future__ import annotations

import pytest

from services.access.domain.decide import Wait, WaitReason, decide
from services.access.domain.models import Approval, AttemptState, Subject
from services.access.domain.subjects import is_permitted, why_forbidden
from tests.unit.access.access_builders import a_request, a_role, an_attempt

DEMO_SA = Subject("ServiceAccount", "", "demo-sa", "demo")
RBAC = "rbac.authorization.k8s.io"


@pytest.mark.parametrize(
    "subject",
    [
        Subject("Group", RBAC, "system:masters", ""),
        Subject("Group", RBAC, "system:serviceaccounts:kube-system", ""),
        Subject("User", RBAC, "system:serviceaccount:demo:demo-sa", ""),
        Subject("User", "", "system:admin", ""),
        Subject("ServiceAccount", "", "default", "kube-system"),
    ],
    ids=lambda subject: subject.name,
)
def test_m4_a_forbidden_subject_gets_nothing(subject: Subject) -> None:
    request = a_request(subjects=(DEMO_SA, subject), last_sequence=1)
    assert subject.name in why_forbidden(request, a_role())
    assert not is_permitted(request, a_role(), verified_only=False)
    for attempts in ((), (an_attempt(AttemptState.ACTIVE),)):
        step = decide(request, attempts, a_role(), paused=None, secret_attempt=len(attempts), now=100.0)
        assert step == Wait(WaitReason.SUBJECTS_FORBIDDEN)


def test_m4_of_the_own_namespace_the_roles_and_those_that_its_owner_names() -> None:
    role = a_role(namespace="databases", allow_from=("demo",), allow_subjects_from=("ci",))
    spaces = ("", "demo", "databases", "ci")
    subjects = tuple(Subject("ServiceAccount", "", "sa", namespace) for namespace in spaces)
    people = (Subject("User", RBAC, "alice@example.com", ""), Subject("Group", RBAC, "system-admins", ""))
    request = a_request(role_namespace="databases", subjects=(*subjects, *people))
    assert is_permitted(request, role, verified_only=False)
    why = why_forbidden(request, a_role(namespace="databases", allow_from=("demo",)))
    assert "PostgresRole databases/psql-role annotates it with leasegate.dev/allow-subjects-from: ci" in why


def test_m4_at_most_64_subjects() -> None:
    assert is_permitted(a_request(subjects=(DEMO_SA,) * 64), a_role(), verified_only=False)
    assert "at most 64" in why_forbidden(a_request(subjects=(DEMO_SA,) * 65), a_role())


def test_a_denial_counts_whatever_the_subjects_are() -> None:
    denied = a_request(subjects=(Subject("Group", RBAC, "system:masters", ""),), approval=Approval.DENIED)
    step = decide(denied, (), a_role(), paused=None, secret_attempt=1, now=100.0)
    assert not isinstance(step, Wait)
