"""Breadth-first exploration of a model."""

from __future__ import annotations

from dataclasses import dataclass

from services.access.domain.models import AttemptState
from tests.model.protocol.model import Model
from tests.model.protocol.state import State, Step, Trace, Violation


@dataclass(frozen=True, slots=True)
class Explored:
    """What an exploration found.

    Attributes:
        violation: The promise that is broken; None if all hold.
        text: How it is broken.
        trace: The shortest way there.
        states: How many states were visited.
        transitions: How many transitions were taken.
        at_rest: How many states are at rest.
        only_to_bound: States from which only the bound on attempts is reached, so that I6 is not shown for them.
        moves: Every change of an attempt's state that was seen.
    """

    violation: Violation | None
    text: str
    trace: Trace
    states: int
    transitions: int
    at_rest: int
    only_to_bound: int
    moves: frozenset[tuple[AttemptState, AttemptState]]


def explore(model: Model) -> Explored:
    """Visit every reachable state and stop at the first promise that is broken.

    I6 is checked at the end, backwards from the states at rest. A state at rest whose claim needs one more attempt
    than the bound counts as the bound.
    """
    states: list[State] = [model.canonical(model.start)]
    indexes = {states[0]: 0}
    reached_by: list[tuple[int, str]] = [(0, "")]
    back: list[list[int]] = [[]]
    at_rest: list[int] = []
    bounded: list[int] = []
    moves: set[tuple[AttemptState, AttemptState]] = set()
    count = 0

    def result(
        violation: Violation | None, text: str = "", index: int = 0, *last: str, only_to_bound: int = 0
    ) -> Explored:
        trace = last
        while index > 0:
            index, trace = reached_by[index][0], (reached_by[index][1], *trace)
        return Explored(violation, text, trace, len(states), count, len(at_rest), only_to_bound, frozenset(moves))

    for index, state in enumerate(states):  # the list grows meanwhile
        rests = True
        for by_itself, label, after, breaks in model.transitions(state):
            if breaks:
                return result(breaks, breaks.value, index, label)
            known = indexes.setdefault(after, len(states))
            if known == len(states):
                states.append(after)
                reached_by.append((index, label))
                back.append([])
                moves.update(
                    (former.state, new.state)
                    for former, new in zip(state.attempts, after.attempts, strict=False)
                    if former.state is not new.state
                )
            count += 1
            if by_itself:
                rests = False
                back[known].append(index)
        at_bound = (
            rests
            and len(state.attempts) == model.most
            and any(each.job and each.job[0].step is Step.CLAIM for each in state.replicas)
        )
        if broken := model.broken(state, at_rest=rests and not at_bound):
            return result(*broken, index)
        if rests:
            (bounded if at_bound else at_rest).append(index)
    can_rest = bytearray(len(states))
    _spread(at_rest, back, can_rest)
    only_to_bound = can_rest.count(0)
    _spread(bounded, back, can_rest)
    if 0 in can_rest:
        return result(Violation.I6, "no way to rest", can_rest.find(0))
    return result(None, only_to_bound=only_to_bound)


def _spread(ends: list[int], back: list[list[int]], can_rest: bytearray) -> None:
    """Mark every state from which one of these is reached without a user's event or a fault."""
    todo = ends[:]
    while todo:
        index = todo.pop()
        if not can_rest[index]:
            can_rest[index] = 1
            todo += back[index]
