"""Two stacks that start at once take different ports, also between a port's release and its server's bind."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from dev.stack.ports import Ports

OTHER = """
from dev.stack.ports import Ports
ports = Ports()
ports.reserve(["x"])
ports.release("x")
print(ports["x"], flush=True)
input()
"""


def prefer(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first port that is tried next."""
    chosen, first = random.randint, [number]
    monkeypatch.setattr(random, "randint", lambda low, high: first.pop() if first else chosen(low, high))


def test_a_released_port_is_not_taken_by_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        prefer(monkeypatch, theirs)
        ports = Ports()
        ports.reserve(["mine"])
        ports.close()
        other.communicate("\n", timeout=30)
    assert ports["mine"] != theirs


def test_a_released_port_is_not_taken_by_another_stack_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Ports(), Ports()
    first.reserve(["x"])
    first.release("x")
    prefer(monkeypatch, first["x"])
    second.reserve(["x"])
    second.close()
    assert second["x"] != first["x"]
