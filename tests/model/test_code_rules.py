"""The pure rules of ``services.access.domain.attempt_states`` against the functions of tests/model/protocol, on every state of up to four attempts.

The functions of the model are written down here word for word but for its switches: ``pending``, ``due``, ``takes``, ``claimed`` and
``ENDING``, and the transitions that its exploration makes in all of its scenarios. Where the code differs on purpose, the test says why.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from services.access.domain import attempt_states as rules
from services.access.domain.attempt_states import ALLOWED, ENDING, Begin, GoOn, Nothing
from services.access.domain.models import Approval, Attempt, AttemptState
from tests.unit.access.access_builders import a_request, a_role, an_attempt

NOW = 100.0
PHASES = {
    "new": AttemptState.PENDING,
    "token": AttemptState.TOKEN_READY,
    "reading": AttemptState.ISSUING,
    "issued": AttemptState.ISSUED,
    "active": AttemptState.ACTIVE,
    "old": AttemptState.RETIRING,
    "super": AttemptState.REPLACED,
    "endt": AttemptState.REVOKING_TOKEN,
    "end": AttemptState.REVOKING,
    "undo": AttemptState.RECOVERING,
    "closed": AttemptState.CLOSED,
}
MODEL_TRANSITIONS = {
    ("new", "token"),
    ("new", "endt"),
    ("token", "reading"),
    ("token", "endt"),
    ("reading", "issued"),
    ("reading", "end"),
    ("reading", "undo"),
    ("issued", "active"),
    ("issued", "super"),
    ("issued", "end"),
    ("active", "old"),
    ("active", "end"),
    ("old", "end"),
    ("super", "old"),
    ("super", "end"),
    ("endt", "closed"),
    ("end", "undo"),
    ("end", "closed"),
    ("undo", "closed"),
}
CODE_TRANSITIONS = {
    (
        "token",
        "token",
    ): "a token is made anew, as its maker's memory is lost or it is too old; in the model the phase stays",
    (
        "new",
        "reading",
    ): "a claim commits the accessor and `reading` at once, which is two steps of the model that nothing comes between",
    ("reading", "endt"): "Vault refused the read before it did anything, which the model folds into `end`",
    (
        "end",
        "endt",
    ): "the login is dropped by lease id, where the model closes; the token of a closed attempt is of no use to anybody",
}
MODEL_ENDING = {
    "new": "endt",
    "token": "endt",
    "reading": "end",
    "issued": "end",
    "active": "end",
    "old": "end",
    "super": "end",
}


class Phase(NamedTuple):
    """An attempt as far as the model's functions look at it."""

    phase: str
    over: bool = False


KINDS = (
    *(Phase(phase) for phase in ("new", "token", "reading", "old", "super", "end")),
    *(Phase(p, o) for p in ("issued", "active") for o in (False, True)),
)
"""Of what is being ended or closed one stands for all, as no function tells them apart, which the code's are tested
for.
"""


class Model:
    """The model's functions of one request, with all of its rules. Attempts have numbers from 1, indexes from 0; -1 is
    none.
    """

    def __init__(self, approved: bool, due: bool, atts: Sequence[Phase]) -> None:
        self.approved, self.is_due, self.atts = approved, due, atts

    def last(self, *phases: str) -> int:
        return max((a for a, t in enumerate(self.atts) if t.phase in phases), default=-1)

    def pending(self) -> int:
        return self.last("new", "token", "reading", "issued")

    def due(self, secret_attempt: int) -> bool:
        a = self.last("active")
        return a < 0 or self.is_due or secret_attempt != a + 1 or self.atts[a].over or self.last("super") >= 0

    def takes(self, a: int) -> bool:
        return self.approved and a >= 0 and self.atts[a].phase == "issued" and not self.atts[a].over

    def claimed(self, secret_attempt: int) -> tuple[str, int]:
        """What a claim does, and with which attempt."""
        c = self.pending()
        phase = self.atts[c].phase if c >= 0 else ""
        if not self.approved or (c < 0 and not self.due(secret_attempt)) or (secret_attempt == c + 1 and self.takes(c)):
            return "refused", -1
        if phase in ("new", "token"):
            return "goes on with it", c
        replacing = {
            "": "begins one",
            "reading": "begins another, that is ended",
            "issued": "begins another, that is superseded",
        }
        return replacing[phase], c


def states(most: int) -> Iterator[tuple[Phase, ...]]:
    """Every sequence of up to so many attempts of which one at most is active (I4)."""
    for count in range(most + 1):
        for atts in itertools.product(KINDS, repeat=count):
            if sum(kind.phase == "active" for kind in atts) <= 1:
                yield atts


def coded(atts: Sequence[Phase]) -> list[Attempt]:
    """The same for the code."""
    return [ATTEMPTS[number, kind] for number, kind in enumerate(atts, 1)]


ATTEMPTS = {
    (number, kind): an_attempt(PHASES[kind.phase], number, ends_at=NOW if kind.over else NOW + 1)
    for number in range(1, 5)
    for kind in KINDS
}


def test_every_transition_is_one_of_the_model_or_explained() -> None:
    allowed = {(former, to) for former in AttemptState for to in ALLOWED[former]}
    assert allowed == {(PHASES[former], PHASES[to]) for former, to in (*MODEL_TRANSITIONS, *CODE_TRANSITIONS)}


def test_the_end_of_access_makes_of_each_attempt_what_the_model_says() -> None:
    assert {PHASES[former]: PHASES[to] for former, to in MODEL_ENDING.items()} == ENDING


@pytest.mark.parametrize("most", [3, 4])
def test_pending_due_and_what_is_acknowledged_are_the_models(most: int) -> None:
    granted, withdrawn, rotating = a_request(), a_request(approval=Approval.PENDING), a_request(rotation_due=True)
    role = a_role()
    for atts in states(most):
        model, found = Model(True, False, atts), coded(atts)
        current, mine = rules.pending(found), model.pending()
        assert (current.sequence - 1 if current else -1) == mine
        assert rules.takes(granted, current, now=NOW) is model.takes(mine)
        assert not rules.takes(withdrawn, current, now=NOW)
        assert rules.due(rotating, found, secret_attempt=0, role=role, now=NOW)
        for secret_attempt in range(len(atts) + 1):
            assert rules.due(granted, found, secret_attempt=secret_attempt, role=role, now=NOW) is model.due(
                secret_attempt
            ), (atts, secret_attempt)


@pytest.mark.parametrize("due", [False, True])
def test_what_a_claim_does_is_the_models(due: bool) -> None:
    request, role = a_request(rotation_due=due), a_role()
    for atts in states(4 if due else 3):
        model, found = Model(True, due, atts), coded(atts)
        for secret_attempt in range(len(atts) + 1):
            does, index = model.claimed(secret_attempt)
            plan = rules.plan(request, found, secret_attempt=secret_attempt, role=role, now=NOW)
            if does == "goes on with it" and secret_attempt > index:
                # Its number would not rise above what is held: only after the ledger was lost or restored, which the
                # model leaves out.
                assert plan == Begin(((found[index], AttemptState.REVOKING_TOKEN),))
            else:
                assert _said(plan) == (does, index), (atts, secret_attempt)


def _said(plan: rules.Plan) -> tuple[str, int]:
    if isinstance(plan, Nothing):
        return "refused", -1
    if isinstance(plan, GoOn):
        return "goes on with it", plan.attempt.sequence - 1
    if not plan.replaced:
        return "begins one", -1
    ((former, state),) = plan.replaced
    how = {
        AttemptState.REVOKING: "begins another, that is ended",
        AttemptState.REPLACED: "begins another, that is superseded",
    }
    return how[state], former.sequence - 1


@pytest.mark.parametrize(
    "state", [AttemptState.REVOKING, AttemptState.REVOKING_TOKEN, AttemptState.RECOVERING, AttemptState.CLOSED]
)
def test_what_is_being_ended_counts_for_nothing(state: AttemptState) -> None:
    rest = [an_attempt(AttemptState.ACTIVE, 1)]
    gone = [*rest, an_attempt(state, 2)]
    request, role = a_request(), a_role()
    for secret_attempt in range(4):
        assert rules.due(request, gone, secret_attempt=secret_attempt, role=role, now=0) is rules.due(
            request, rest, secret_attempt=secret_attempt, role=role, now=0
        )
        assert rules.plan(request, gone, secret_attempt=secret_attempt, role=role, now=0) == rules.plan(
            request, rest, secret_attempt=secret_attempt, role=role, now=0
        )
    assert rules.pending(gone) is None
