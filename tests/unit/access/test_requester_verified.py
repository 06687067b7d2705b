"""Whether it is known who is behind an access request, and what one gets without with --require-verified-requester."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.access.domain.decide import Claim, Wait, WaitReason, decide
from services.access.domain.models import Approval, Attempt, AttemptState, Origin
from services.access.domain.request_view import AccessRequestView
from services.access.domain.subjects import is_permitted
from services.access.ledger import attempts, catalog, requests
from services.access.requests import reassess
from services.access.worker.startup import recover
from tests.unit.access.access_builders import a_decision, a_request, a_role, an_attempt
from tests.unit.access.access_world import World
from tests.unit.access.ensure_world import OWNER
from tests.unit.access.ensure_world import World as EnsureWorld

CLAIMED = {"on_behalf_of": "hal"}
UNSTAMPED = {"requester": ""}
VOUCHED = {"on_behalf_of": "hal", "verified_by": "portal"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "ledger.db")
    yield made
    made.ledger.close()


@pytest.mark.parametrize(
    ("facts", "verified"),
    [
        ({}, True),
        (VOUCHED, True),
        (CLAIMED, False),
        ({"on_behalf_of": " "}, False),
        (UNSTAMPED, False),
        (VOUCHED | UNSTAMPED, False),  # nobody knows who wrote it
        ({"verified_by": "portal"} | UNSTAMPED, False),
        ({"origin": Origin.GRPC, "requester": ""}, True),  # by its certificate
    ],
)
def test_who_is_behind_it_is_known(facts: dict[str, str], verified: bool) -> None:
    request = a_request(**facts)
    assert request.requester_verified is verified
    assert is_permitted(request, a_role(), verified_only=True) is verified
    assert is_permitted(request, None, verified_only=True) is verified
    assert is_permitted(request, a_role(), verified_only=False)


@pytest.mark.parametrize("facts", [CLAIMED, UNSTAMPED])
def test_nothing_is_due_with_the_option(facts: dict[str, str]) -> None:
    request, held = a_request(**facts), (an_attempt(AttemptState.ACTIVE),)
    for opened in ((), held):
        found = decide(
            request, opened, a_role(), paused=None, secret_attempt=len(opened), now=100.0, verified_only=True
        )
        assert isinstance(found, Wait)
    assert decide(request, (), a_role(), paused=None, secret_attempt=0, now=100.0) == Claim()


def shown(facts: dict[str, str], *, verified_only: bool) -> AccessRequestView:
    return AccessRequestView(
        request=a_request(**facts),
        attempts=(),
        decisions=(),
        db_role=a_role(),
        engine_paused=False,
        service_auth=True,
        now=100.0,
        verified_only=verified_only,
    )


@pytest.mark.parametrize(
    ("facts", "reason", "advice"),
    [
        (UNSTAMPED, "AdmissionPolicyMissing", "requester-stamp.yaml"),
        (CLAIMED, "OnBehalfOfUnverified", "sets the annotation leasegate.dev/verified-by to its own user name"),
    ],
)
def test_the_condition_says_what_to_do(facts: dict[str, str], reason: str, advice: str) -> None:
    for verified_only in (False, True):
        view = shown(facts, verified_only=verified_only)
        (condition,) = [each for each in view.conditions() if each.type == "RequesterUnverified"]
        assert condition.reason == reason
        assert advice in condition.message
        assert ("nothing is issued" in condition.message) is verified_only
        assert bool(view.digest) is bool(view.grant) is not verified_only
        assert (view.next_step(0) == Wait(WaitReason.REQUESTER_UNVERIFIED)) is verified_only
    for known in ({}, VOUCHED):
        view = shown(known, verified_only=True)
        assert view.next_step(0) == Claim()
        assert "RequesterUnverified" not in {each.type for each in view.conditions()}


def test_a_long_or_odd_name_is_shown_as_one_harmless_line() -> None:
    (first, *_) = shown({"on_behalf_of": "\x1b[31m\n" + "n" * 5000}, verified_only=False).conditions()
    assert len(first.message) < 1500
    assert first.message.isprintable()


@pytest.mark.parametrize("facts", [CLAIMED, UNSTAMPED])
def test_no_token_is_made_ahead(tmp_path: Path, facts: dict[str, str]) -> None:
    world = EnsureWorld(tmp_path / "ledger.db")
    world.ledger.verified_only = True

    def ensure(**changes: Any) -> list[AttemptState]:
        desired = replace(world.desired, **changes)
        world.ensurer.ensure_request(desired, owner=OWNER, secret_attempt=0, claim=True)
        return world.states()

    assert ensure(**facts) == []
    assert ensure(requester="portal", **VOUCHED) == [AttemptState.PENDING]
    world.ledger.close()


class TestSwitching:
    """The option is read at a start: what it is about is reassessed once, whoever else is left alone."""

    def approve(self, world: World, uid: str, **facts: str) -> Attempt:
        """An approved access request with a credential in use, which a worker looks at in 1000 s."""
        made = world.begin(AttemptState.ACTIVE, uid=uid)
        with world.ledger.write() as tx:
            request = requests.find(tx, uid)
            assert request
            requests.decide(tx, uid, [a_decision(digest=request.digest)])
            requests.update_silently(tx, uid, first_issued_at=tx.now, **facts)
            attempts.schedule(tx, made.id, due_at=tx.now + 1000)
        return made

    def start(self, world: World, *, verified_only: bool) -> list[str]:
        """Start with the option or without; returns the access requests whose owners hear of a change."""
        world.ledger.verified_only = verified_only
        changed: set[str] = set()
        world.ledger.listeners = [lambda tx: changed.update(tx.changed)]
        recover(world.ledger, max_access_s=None)
        return sorted(changed)

    def approval(self, world: World, uid: str) -> Approval:
        with world.ledger.read() as tx:
            found = requests.find(tx, uid)
            assert found
            return found.approval

    def test_it_is_applied_and_taken_back(self, world: World) -> None:
        known = self.approve(world, "known")
        vouched = self.approve(world, "vouched", **VOUCHED)
        held = {uid: self.approve(world, uid, **facts) for uid, facts in (("a", CLAIMED), ("b", UNSTAMPED))}
        assert self.start(world, verified_only=False) == []
        assert self.start(world, verified_only=True) == ["a", "b"]
        assert self.start(world, verified_only=True) == []
        for uid, made in held.items():
            assert self.approval(world, uid) is Approval.PENDING
            again = world.do(made)
            assert (again.state, again.due_at) == (AttemptState.ACTIVE, again.ends_at)  # unrenewed to its end
        assert world.vault.renewed == []
        assert self.approval(world, "known") is self.approval(world, "vouched") is Approval.APPROVED
        assert {world.attempt(known).due_at, world.attempt(vouched).due_at} == {world.clock.now + 1000}
        assert self.start(world, verified_only=False) == ["a", "b"]
        for uid, made in held.items():
            assert self.approval(world, uid) is Approval.APPROVED
            assert world.attempt(made).due_at == world.clock.now  # its renewal is scheduled again

    def test_what_is_verified_meanwhile_is_renewed_again(self, world: World) -> None:
        made = self.approve(world, "a", **CLAIMED)
        self.start(world, verified_only=True)
        assert world.do(made).due_at == world.attempt(made).ends_at
        with world.ledger.write() as tx:
            request = requests.find(tx, "a")
            assert request
            request = requests.update(tx, request, verified_by="portal")
            assert reassess.reassess(tx, request, catalog.role_of(tx, request)).approved
        assert world.attempt(made).due_at == world.clock.now

    def test_what_is_over_is_left_alone(self, world: World) -> None:
        made = self.approve(world, "a", **CLAIMED)
        with world.ledger.write() as tx:
            requests.update_silently(tx, "a", approval=Approval.DENIED)
        assert self.start(world, verified_only=True) == []
        assert self.approval(world, "a") is Approval.DENIED
        assert world.attempt(made).due_at == world.clock.now + 1000
