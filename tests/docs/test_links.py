"""Every link and every path that documents and comments mention leads somewhere in this repository."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.sources import ROOT, find_in_prose, name_of, text_of, tracked

TOP = "services|watcher|cli|deploy|dev|tests|benchmarks|docs|protos|styles"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(rf"(?<![\w/.:$}}<-])(?:{TOP})/[\w./*-]*[\w*/]")
MODULE = re.compile(rf"``?((?:{TOP})(?:\.\w+)+)")
OUTSIDE = re.compile(
    r"\bdesign(?:-v\d)?\.md|\bhouse\.md|\bproofs/|\bshared/|\battacks\.md|\bfield-reports|\(design\b|design, section",
    re.IGNORECASE,
)
NOT_PATHS = {
    "protos/leasegate/AREA/v1": "a placeholder",
    "dev/null": "the device",
    "dev/urandom": "the device",
    "dev/stdin": "the device",
}
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

DOCUMENTS = tracked(".md")
SOURCES = tracked(".md", ".proto", ".py", ".yaml", ".toml", "Makefile")


@cache
def _anchors(file: Path) -> frozenset[str]:
    """Anchors of a document, as GitHub makes them of its headings."""
    found: dict[str, int] = {}
    anchors = set(re.findall(r'<a (?:id|name)="([^"]+)"', text_of(file)))
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(file)), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        count = found[slug] = found.get(slug, -1) + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return frozenset(anchors)


def _broken(file: Path) -> Iterator[str]:
    for target in LINK.findall(FENCE.sub("", text_of(file))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (file.parent / path).resolve() if path else file
        if not other.exists() or not other.is_relative_to(ROOT):
            yield f"{target}: there is no such file"
        elif anchor and other.suffix == ".md" and anchor not in _anchors(other):
            yield f"{target}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    assert list(_broken(document)) == []


def _exists(path: str) -> bool:
    clean = path.rstrip("/.")
    return (
        clean in NOT_PATHS or any(ROOT.glob(clean)) if "*" in clean else clean in NOT_PATHS or (ROOT / clean).exists()
    )


def _module_exists(dotted: str) -> bool:
    """Whether the packages and the module of a dotted name exist; what follows a module is a name in it."""
    place = ROOT
    for part in dotted.split("."):
        if (place / f"{part}.py").is_file():
            return True
        if not (place / part).is_dir():
            init = place / "__init__.py"
            return init.is_file() and re.search(rf"\b{part}\b", text_of(init)) is not None
        place = place / part
    return True


def test_every_path_that_is_mentioned_exists() -> None:
    missing = [f"{place}: {path}" for place, path in find_in_prose(PATH, SOURCES) if not _exists(path)]
    assert missing == []


def test_every_module_that_is_mentioned_exists() -> None:
    missing = [f"{place}: {dotted}" for place, dotted in find_in_prose(MODULE, SOURCES) if not _module_exists(dotted)]
    assert missing == []


def test_no_document_outside_the_repository_is_mentioned() -> None:
    sources = [file for file in SOURCES if file != Path(__file__)]
    assert [f"{place}: {text}" for place, text in find_in_prose(OUTSIDE, sources)] == []
