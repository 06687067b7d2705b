"""Rooms and titles: a folder shows at a glance what is in it, and a test's name is one fact."""

from __future__ import annotations

import ast

import pytest

from tests.docs.sources import ROOT, name_of, text_of, tracked

MOST_ENTRIES = 10
LONGEST_TITLE = 69


@pytest.mark.parametrize("room", ["watcher", "services/access"])
def test_a_house_shows_at_most_ten_entries(room: str) -> None:
    files = [file.relative_to(ROOT / room) for file in tracked() if file.is_relative_to(ROOT / room)]
    assert len({file.parts[0] for file in files}) <= MOST_ENTRIES


def test_every_test_title_has_less_than_seventy_characters() -> None:
    long = [
        f"{name_of(file)}: {node.name} ({len(node.name)})"
        for file in tracked(".py")
        if name_of(file).startswith("tests/")
        for node in ast.walk(ast.parse(text_of(file)))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > LONGEST_TITLE
    ]
    assert long == []
