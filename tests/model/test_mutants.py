"""Each rule of the protocol is taken out of the real code: its order of events then loses a database user.

``LEASEGATE_MODEL_MUTANTS=N`` has the state machine find each missing rule by itself, too, within N examples.
"""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import ANY, patch

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from services.access.domain import attempt_states, decide
from services.access.domain.models import Attempt, AttemptState, DropBy
from services.access.leases import acknowledge, issue
from services.access.leases.recover import IssuanceRecovery
from services.access.ledger import attempts, recoveries, requests
from services.access.requests import catalog, quiesce, reassess
from services.access.vault import tokens
from services.access.worker.dispatch import AttemptDispatcher
from services.common.errors import LeasegateError
from tests.model.protocol.scenarios import Rule
from tests.model.test_machine import PROFILE, SEED, AccessMachine
from tests.model.test_orders import ORDERS, Play, played

Mutation = Callable[[], AbstractContextManager[Any]]
_move = attempts._move


def text(owner: Any, name: str, old: str, new: str) -> Mutation:
    """A change of one function's text, which has to be there."""

    def change() -> AbstractContextManager[Any]:
        function = getattr(owner, name)
        source = textwrap.dedent(inspect.getsource(function))
        assert old in source, f"{name} has changed: {old!r} is not there"
        made: dict[str, Any] = {}
        code = compile("from __future__ import annotations\n" + source.replace(old, new), name, "exec")
        exec(code, vars(sys.modules[function.__module__]), made)  # noqa: S102
        return patch.object(owner, name, made[name])

    return change


def value(owner: Any, name: str, new: Any) -> Mutation:
    """Something else in its place."""
    return lambda: patch.object(owner, name, new)


def unconditional(to: AttemptState, *, keeps: bool = False) -> Mutation:
    """A transition from any state; with ``keeps`` its caller believes that it happened although nothing is changed."""
    wanted = to

    def move(
        tx: Any,
        attempt_id: str,
        *states: AttemptState,
        to: AttemptState,
        expected_accessor: str | None = None,
        **columns: Any,
    ) -> bool:
        done = _move(tx, attempt_id, *states, to=to, expected_accessor=expected_accessor, **columns)
        if done or to is not wanted:
            return done
        return keeps or attempts._update(tx, attempt_id, tuple(AttemptState), {"state": to, **columns})

    return value(attempts, "_move", move)


def any_accessor(
    tx: Any,
    attempt_id: str,
    *states: AttemptState,
    to: AttemptState,
    expected_accessor: str | None = None,
    **columns: Any,
) -> bool:
    """A transition whatever accessor the ledger holds."""
    return _move(tx, attempt_id, *states, to=to, **columns)


def unadopted(self: Any, attempt: Attempt) -> None:
    """In place of asking for the cleanup role: the accessor is revoked, and that is that."""
    with self._ledger.write() as tx:
        attempts.close(tx, attempt.id, AttemptState.RECOVERING)


def adopted_once(self: Any, made: Any, target: Any) -> None:
    """In place of waiting for the second recovery."""
    with self._vaults.at(target) as vault:
        self._close(vault, made)


def recovered_as_it_is(self: Any, attempt: Attempt, *, drop_by: DropBy, error: str = "") -> None:
    """In place of the commit with which a recovery begins."""
    self._recovery.recover_attempt(attempt)


class Unassessed:
    """In place of ``reassess``: what the ledger has of an access request is taken as it is."""

    @staticmethod
    def reassess(_tx: Any, request: Any, _db_role: Any, **_: Any) -> Any:
        return request

    find_current = staticmethod(requests.find)


MUTATIONS: dict[str, tuple[Mutation, ...]] = {
    "commit-current": (
        text(issue.LeaseIssuer, "_commit", "request.approved and ", ""),
        unconditional(AttemptState.ISSUED),
    ),
    "recover": (value(IssuanceRecovery, "_cleanup_role", unadopted),),
    "second-recovery": (value(IssuanceRecovery, "_complete_first", adopted_once),),
    "conditional-commits": (unconditional(AttemptState.ISSUING, keeps=True),),
    "same-token": (
        value(attempts, "_move", any_accessor),
        text(tokens.PreparedTokens, "find_token", " or token.accessor != attempt.accessor", ""),
    ),
    "recovering-first": (
        value(AttemptDispatcher, "_begin_recovery", recovered_as_it_is),
        text(recoveries, "commit", "state is not AttemptState.RECOVERING", "state is State.CLOSED"),
        unconditional(AttemptState.CLOSED),
    ),
    "newest-recovery": (
        value(recoveries, "newest", lambda *_: ANY),
        text(recoveries, "commit", "state is not AttemptState.RECOVERING or ", ""),
        unconditional(AttemptState.CLOSED),
    ),
    "cleanup-token": (
        text(IssuanceRecovery, "_drop_database_user", "*(each.accessor for each in made.earlier)", "*()"),
    ),
    "retire-after-ack": (
        value(attempt_states, "REPLACING", {**attempt_states.REPLACING, AttemptState.ISSUED: AttemptState.REVOKING}),
    ),
    "replaced-is-due": (text(decide, "replacement_due", "or last(attempts, AttemptState.REPLACED) is not None", ""),),
    "secret-is-due": (text(decide, "replacement_due", "or secret_attempt != active.sequence", ""),),
    "expired-is-due": (
        text(decide, "replacement_due", "or active.expired(now)", ""),
        text(decide, "acknowledgeable", "and not attempt.expired(now)", ""),
    ),
    "overlap": (text(acknowledge, "_retire", "overlap_ends_at = tx.now + ", "overlap_ends_at = tx.now + 0 * "),),
    "lockout": (text(AttemptDispatcher, "_drop_by", "failure is Drop.UNREACHED or", "True or"),),
    "nothing-made": (value(issue, "_NOTHING_MADE", (LeasegateError,)),),
    "paused-waits": (
        text(decide, "_obstacle", "db_role.paused", "False"),
        text(reassess, "prepare", "or db_role.paused ", ""),
    ),
    "reads-are-counted": (text(quiesce, "_end_unread", "attempt.state is AttemptState.ISSUING", "False"),),
    "slow-reads-are-ended": (value(quiesce, "_recover", lambda *_: None),),
    "unread-is-ended": (text(quiesce, "_end_unread", "attempt.state in PREPARED", "False"),),
    "newest-pause": (text(catalog.Catalog, "put_role", "pause_number != number", "False"),),
    "assessed-at-use": (value(reassess, "current", lambda _tx, request: request), value(issue, "reassess", Unassessed)),
    "rising-numbers": (),
    "absent-user": (),
}
"""The rules by their names in the model; three of the code: the overlap, the lockout where a drop is refused, and which
failures of a read say that nothing was made; six about changes of a role, which the protocol model leaves out; and two
that live elsewhere, in the watcher and in roles, here in the world."""


@contextmanager
def without(rule: str) -> Iterator[None]:
    """The code without a rule."""
    with ExitStack() as stack:
        for mutation in MUTATIONS[rule]:
            stack.enter_context(mutation())
        yield


def test_every_rule_of_the_protocol_is_taken_out_of_the_code() -> None:
    of_changes = {"paused-waits", "reads-are-counted", "slow-reads-are-ended", "unread-is-ended", "newest-pause"}
    of_changes |= {"assessed-at-use"}
    assert (
        {*Rule, "overlap", "lockout", "nothing-made", *of_changes}
        == MUTATIONS.keys()
        == {rule for rule, _, _ in ORDERS}
    )


@pytest.mark.parametrize("at_once", [True, False], ids=["claimed-at-once", "claimed-apart"])
@pytest.mark.parametrize(
    ("rule", "order", "breaks"), ORDERS, ids=[f"{rule}-{order.__name__}" for rule, order, _ in ORDERS]
)
def test_without_a_rule_a_user_is_lost(rule: str, order: Callable[[Play], None], breaks: str, at_once: bool) -> None:
    with without(rule):
        assert played(order, rule=rule, at_once=at_once).startswith(f"{breaks}:")


if os.environ.get("LEASEGATE_MODEL_MUTANTS"):

    @pytest.mark.timeout(1200)
    @pytest.mark.parametrize("rule", MUTATIONS)
    def test_the_machine_finds_that_a_rule_is_missing(rule: str) -> None:
        class Machine(AccessMachine):
            rising, absent = rule != "rising-numbers", rule != "absent-user"

        profile = settings(PROFILE, max_examples=int(os.environ["LEASEGATE_MODEL_MUTANTS"]), phases=(Phase.generate,))
        with without(rule), pytest.raises(AssertionError, match=r"I\d\+?: "):
            run_state_machine_as_test(seed(SEED)(Machine), settings=profile)
