"""What decisions make of a request."""

from __future__ import annotations

import itertools

import pytest

from services.access.domain.approval import denial, granting, unseen, verdict
from services.access.domain.models import Approval, Decision
from tests.unit.access.access_builders import DIGEST, a_decision

A, D, OTHER = Approval.APPROVED, Approval.DENIED, "b" * 64


@pytest.mark.parametrize(
    ("decisions", "approval", "outdated"),
    [
        ([], Approval.PENDING, False),
        ([a_decision()], A, False),
        ([a_decision(D)], D, False),
        ([a_decision(), a_decision(D)], D, False),
        ([a_decision(D), a_decision()], D, False),  # final
        ([a_decision(digest=OTHER)], Approval.PENDING, True),
        ([a_decision(digest=OTHER), a_decision()], A, False),
        ([a_decision(digest="")], Approval.PENDING, True),  # it counts for nothing
    ],
)
def test_verdicts(decisions: list[Decision], approval: Approval, outdated: bool) -> None:
    found = verdict(decisions, digest=DIGEST)
    assert (found.approval, found.outdated) == (approval, outdated)


def test_nothing_is_approved_while_nobody_knows_what_would_be_granted() -> None:
    assert verdict([a_decision(digest="")], digest="").approval is Approval.PENDING


def test_a_denial_anywhere_denies() -> None:
    for order in itertools.permutations([a_decision(), a_decision(digest=OTHER), a_decision(D, digest="")]):
        assert verdict(order, digest=DIGEST).approval is D


def test_it_takes_as_many_approvers_as_the_role_says() -> None:
    one, two = a_decision(), a_decision(approver="dave")
    assert verdict([one, one], digest=DIGEST, approvals=2).approval is Approval.PENDING
    assert verdict([one, two], digest=DIGEST, approvals=2).approval is A


def test_a_decision_without_a_digest_counts_for_the_one_in_the_status() -> None:
    sent = a_decision(digest="", sent_digest="")
    assert [d.digest for d in unseen([sent], [], status_digest=DIGEST)] == [DIGEST]
    assert [d.digest for d in unseen([sent], [], status_digest="")] == [""]
    assert [d.digest for d in unseen([a_decision(digest="", sent_digest=OTHER)], [], status_digest=DIGEST)] == [OTHER]


def test_a_decision_is_taken_once_and_keeps_what_it_counts_for() -> None:
    sent = a_decision(digest="", sent_digest="")
    known = unseen([sent], [], status_digest=DIGEST)
    assert unseen([sent], known, status_digest=OTHER) == []
    assert len(unseen([sent, a_decision(D)], known, status_digest=OTHER)) == 1


def test_who_decided() -> None:
    made = [a_decision(approver="carol"), a_decision(approver="dave"), a_decision(D, approver="erin")]
    assert (granting(made, digest=DIGEST), denial(made)) == (made[1], made[2])
    assert granting(made, digest=OTHER) is None


def test_without_the_word_of_the_roles_owner_a_denial_alone_counts() -> None:
    decisions = [a_decision()]
    assert verdict(decisions, digest=DIGEST, allowed=False).approval is Approval.PENDING
    assert verdict([*decisions, a_decision(Approval.DENIED)], digest=DIGEST, allowed=False).approval is Approval.DENIED
