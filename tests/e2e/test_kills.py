"""A process that dies at any step of the story changes nothing of how the story goes on or ends."""

from __future__ import annotations

import random
import threading

import pytest

from dev.demo.story import Step, Story
from dev.stack.stack import LocalStack

SEED = 20261124


def _killed(stack: LocalStack, name: str, step: Step, *, after_s: float) -> None:
    """Run one step, with SIGKILL for a process a moment after it began; the process is started again at once."""
    process, failed = stack.process(name), []

    def strike() -> None:
        try:
            process.kill()
            process.start()
        except Exception as err:
            failed.append(err)

    timer = threading.Timer(after_s, strike)
    timer.start()
    printed = step.act()
    timer.join()
    assert not failed, failed
    process.wait_ready()
    step.wait(printed, timeout_s=90)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["watcher", "access", "engine", "roles"])
def test_a_kill_at_every_step_changes_no_end(stack: LocalStack, name: str) -> None:
    """SIGKILL at a random moment of every step: each step is seen as without it, and no user is left at the end."""
    chance = random.Random(f"{SEED}-{name}")
    story = Story(stack)
    for step in story.steps():
        _killed(stack, name, step, after_s=chance.uniform(0, 0.6))
    assert story.database_users() == []
