"""Each rule of the protocol taken out of the real code: the world in which the model says that a login is then lost has to show it.

A rule goes by a change of the source text of the function that holds it, which fails if the text is not there. The orders of events are those that
``attempt_model.py --without RULE`` prints. ``LEASEGATE_MODEL_MUTANTS`` has the state machine find each by itself, too.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from services.access import adoption, ending, issuing
from services.access import attempts as rules
from services.access.ledger import adoptions
from services.access.ledger import attempts as ledger_attempts
from services.access.records import Approval, State
from services.common.errors import VaultUnavailable
from tests.fakes import attempt_checks as checks
from tests.fakes.attempt_jobs import Job
from tests.fakes.attempt_world import World
from tests.unit.test_access_model import template


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one function's text."""

    owner: Any
    name: str
    old: str
    new: str


RULES: dict[str, tuple[Change, ...]] = {
    "current": (
        Change(issuing.Issuing, "_commit", "request.approved and ", ""),
        Change(ledger_attempts, "commit_lease", "_move(tx, attempt_id, State.READING, to=State.ISSUED, ", "_update(tx, attempt_id, tuple(State), (), {}, state=State.ISSUED, "),
    ),
    "adopt": (Change(adoption.Undoing, "step", "if adopter := self._adopter(attempt):", "self._unadopted(attempt)\n            if False:"),),
    "second": (Change(adoption.Undoing, "_round", "if first:\n", "if True:\n"),),
    "open": (
        Change(ledger_attempts, "commit_reading", "_move(tx, attempt_id, *states, to=State.READING, where=same, ", "_forced(tx, attempt_id, "),
    ),
    "same-token": (Change(ledger_attempts, "commit_reading", "() if replacing else (_table.accessor == accessor,)", "()"),),
    "undo-first": (
        Change(ledger_attempts, "begin_undo", "return _move(", "return False and _move("),
        Change(ending.Work, "_begin_undo", 'crash.point("undo.begun")', "self._undoing.step(attempt)"),
        Change(adoptions, "commit", "state is not State.UNDOING", "state is State.CLOSED"),
        Change(ledger_attempts, "close", "_move(tx, attempt_id, *states, to=State.CLOSED, ", "_update(tx, attempt_id, tuple(State), (), {}, state=State.CLOSED, "),
    ),
    "adopting": (
        Change(adoption.Undoing, "_close", "adoptions.newest(tx, made.attempt.id) == made.adoption.number and ", ""),
        Change(adoptions, "commit", "(after is not None and newest(tx, attempt_id) != after)", "False"),
        Change(issuing.Issuing, "_give_back", "attempts.close(tx, attempt.id, State.END)", "attempts.close(tx, attempt.id, State.END, State.UNDOING)"),
    ),
}
