"""Every attack of docs/security/threat-model.md that is refused names a test that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.docs.sources import ROOT, text_of, tracked

DOCUMENT = ROOT / "docs/security/threat-model.md"
REFUSED = "\n## What was tried and is refused\n"
HEADINGS = (("attack", "rule", "test"), ("---", "---", "---"))
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def _rows() -> Iterator[tuple[str, ...]]:
    section = text_of(DOCUMENT).split(REFUSED)[1].split("\n## ")[0]
    for line in section.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | ")) if line.startswith("|") else ()
        if cells and cells not in HEADINGS and not line.startswith("|---"):
            yield cells


def test_every_refused_attack_has_a_rule_and_a_test() -> None:
    assert [cells for cells in _rows() if len(cells) != len(HEADINGS[0]) or not TEST.search(cells[-1])] == []


def test_every_test_that_an_attack_names_exists() -> None:
    named = {found for cells in _rows() for found in TEST.findall(cells[-1])}
    exist = {(file.name, title) for file in tracked(".py") for title in re.findall(r"def (test_\w+)", text_of(file))}
    assert named
    assert named - exist == set()
