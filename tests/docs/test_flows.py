"""docs/architecture.md names the functions of the four flows in order, each with what calls it.

A fenced block ``flow`` has one function a line, ``module:Class.method``. The nearest line above that is indented less
leads to it: its source mentions the function's name, or the name after ``via`` where it is reached by another one,
such as a queue or a callback. A line at the margin goes on with what the ledger or the change feed hands over.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "architecture.md"
BLOCK = re.compile(r"^```flow (\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"( *)([\w.]+):([\w.]+)(?: +via (\w+))?")


class Stop(NamedTuple):
    """A function of a flow, how deep it is indented, and the name by which it is reached."""

    depth: int
    module: str
    name: str
    via: str

    @property
    def function(self) -> Any:
        """The function itself."""
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        return found


def _flows() -> dict[str, list[Stop]]:
    flows: dict[str, list[Stop]] = {}
    for name, block in BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")):
        lines = [LINE.fullmatch(line) for line in block.splitlines()]
        assert all(lines), f"{name}: a line is not module:name [via NAME]"
        flows[name] = [
            Stop(len(line[1]), line[2], line[3], line[4] or line[3].rpartition(".")[2]) for line in lines if line
        ]
    return flows


FLOWS = _flows()


def _calls() -> Iterator[tuple[str, Stop, Stop]]:
    """Each function of a flow, with the one that leads to it."""
    for flow, stops in FLOWS.items():
        for index, stop in enumerate(stops):
            if stop.depth:
                yield flow, next(each for each in reversed(stops[:index]) if each.depth < stop.depth), stop


def test_the_four_flows_are_documented() -> None:
    assert set(FLOWS) == {"apply", "delete", "renew", "engine"}
    assert all(len(stops) > 4 and stops[0].depth == 0 for stops in FLOWS.values())
    assert all(callable(stop.function) for stops in FLOWS.values() for stop in stops)


@pytest.mark.parametrize(
    ("caller", "called"), [pytest.param(above, stop, id=f"{flow}-{stop.name}") for flow, above, stop in _calls()]
)
def test_each_function_is_reached_from_the_one_above(caller: Stop, called: Stop) -> None:
    assert re.search(rf"\b{called.via}\b", inspect.getsource(caller.function)), (
        f"{caller.name} does not mention {called.via}"
    )
