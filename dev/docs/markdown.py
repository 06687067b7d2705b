"""Markdown of the generated pages: plain, in a stable order, with a note on where each page comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def page(title: str, *, source: str, parts: Iterable[str]) -> str:
    """A page.

    Args:
        title: Heading of the page.
        source: What it is generated from.
        parts: The paragraphs, tables and headings, in order.
    """
    note = f"<!-- Generated from {source} by `make docs`. -->"
    return "\n\n".join([f"# {title}", note, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; empty text if there are no rows."""
    lines = [_row(row) for row in rows]
    return "\n".join([_row(columns), _row(["---"] * len(columns)), *lines]) if lines else ""


def code(text: str, language: str = "") -> str:
    """A fenced block."""
    return f"```{language}\n{text.strip()}\n```"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
