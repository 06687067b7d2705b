"""docs/safety.md covers every failpoint, docs/operations.md names what exists, docs/adr/README.md lists every ADR."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.access.domain import failpoints as access
from tests.model.protocol.scenarios import SCENARIOS
from watcher.reconcilers import failpoints as watcher

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORDS = sorted((DOCS / "adr").glob("[0-9]*.md"))


def _first_cells(heading: str) -> list[str]:
    """Returns the names in backticks of the first column of the table below a heading of docs/safety.md."""
    section = (DOCS / "safety.md").read_text(encoding="utf-8").partition(f"### {heading}\n")[2].partition("\n#")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    ("heading", "points"), [("The access service", access.ALL_POINTS), ("The watcher", watcher.POINTS)]
)
def test_safety_names_every_failpoint_in_order(heading: str, points: tuple[str, ...]) -> None:
    assert _first_cells(heading) == list(points)


def _operations() -> str:
    return (DOCS / "operations.md").read_text(encoding="utf-8")


def test_operations_names_conditions_and_events_that_exist() -> None:
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", _operations()))
    known = (DOCS / "reference" / "events.md").read_text(encoding="utf-8")
    kinds = {"AppBinding", "SecretEngine", "PostgresRole", "DatabaseAccessRequest"}
    assert named
    assert {name for name in named - kinds if not re.search(rf"\b{name}\b", known)} == set()


def test_operations_names_metrics_that_exist() -> None:
    section = _operations().partition("## Metrics\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"\b(?:leasegate|workqueue|grpc)_[a-z_]+", section))
    known = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert named
    assert {name for name in named if f"`{name}`" not in known} == set()


def test_operations_names_log_lines_that_exist() -> None:
    quoted = {line for row in re.findall(r"log.*$", _operations(), re.M) for line in re.findall(r'"([a-z ,]+)"', row)}
    code = "\n".join(
        file.read_text(encoding="utf-8") for folder in ("services", "watcher") for file in (ROOT / folder).rglob("*.py")
    )
    assert quoted
    assert {line for line in quoted if f'"{line}' not in code} == set()


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.stem)
def test_an_adr_has_its_parts_and_stands_in_the_index(record: Path) -> None:
    text = record.read_text(encoding="utf-8")
    number = int(record.name[:4])
    title = text.partition("\n")[0].removeprefix(f"# {number}. ")
    status = re.search(r"^Status: (.+)$", text, re.M)
    assert status
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences"]
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    assert f"| {number} | [{title}]({record.name}) | {status[1]} |" in index


def test_no_adr_number_is_used_twice() -> None:
    """A number may be missing: it is given out when work begins, and the work may end without a record."""
    numbers = [int(record.name[:4]) for record in RECORDS]
    assert sorted(set(numbers)) == sorted(numbers)


def test_documents_name_the_whole_model_and_its_parts() -> None:
    safety = (DOCS / "safety.md").read_text(encoding="utf-8")
    assert f"{len(SCENARIOS)} scenarios" in safety
    assert "`tests/model/protocol/scenarios.py`" in safety
