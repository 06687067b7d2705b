"""The protocol in a bounded form: the smaller scenarios hold, and each rule that is taken away is missed.

``make model`` explores every scenario, 2.2 million states in a few minutes.
"""

from __future__ import annotations

import pytest

from services.access.domain.attempt_states import ALLOWED
from services.access.domain.models import AttemptState
from tests.model.protocol.explore import explore
from tests.model.protocol.model import Model
from tests.model.protocol.scenarios import RULES, SCENARIOS, STATES, Rule

BOUNDED = ("deny", "replicas", "rotate", "rotate-kill", "secret", "strict", "recreate")
"""The scenarios of fewer than 60,000 states."""

CODE_ONLY = {
    (AttemptState.PENDING, AttemptState.ISSUING): "a claim commits the accessor and ISSUING at once: two steps here",
    (AttemptState.ISSUING, AttemptState.REVOKING_TOKEN): "Vault refused the read before it did anything: REVOKING here",
    (AttemptState.REVOKING, AttemptState.REVOKING_TOKEN): "the lease is revoked and the token left: CLOSED here",
    (AttemptState.TOKEN_READY, AttemptState.TOKEN_READY): "another token is made: the state stays the same here",
}
"""Transitions that the code has and the protocol does not need, each with its reason."""

_seen: set[tuple[AttemptState, AttemptState]] = set()


@pytest.mark.parametrize("scenario", BOUNDED)
def test_every_promise_holds_in_every_order(scenario: str) -> None:
    found = explore(Model(Rule, SCENARIOS[scenario]))
    assert found.violation is None, (found.text, found.trace)
    assert found.states == STATES[scenario]
    _seen.update(found.moves)


@pytest.mark.parametrize("rule", Rule)
def test_a_rule_taken_away_breaks_a_promise(rule: Rule) -> None:
    found = explore(Model(set(Rule) - {rule}, SCENARIOS[RULES[rule].scenario]))
    assert found.violation is not None


def test_every_transition_of_the_protocol_is_the_codes() -> None:
    if not _seen:
        _seen.update(*(explore(Model(Rule, SCENARIOS[scenario])).moves for scenario in ("deny", "rotate-kill")))
    assert {(former, to) for former, after in ALLOWED.items() for to in after} == _seen | set(CODE_ONLY)


def test_every_scenario_is_explored_and_counted() -> None:
    assert SCENARIOS.keys() == STATES.keys()
    assert set(RULES) == set(Rule)
    assert {needed.scenario for needed in RULES.values()} <= SCENARIOS.keys()
