"""Compares the output of a command with the output that the guide printed in 2019.

A block passes if every row, column, key and value of the guide is in the output, in the same order; random values may
differ, and there may be more. ``CLIENT_CHANGES`` lists what kubectl and the Vault command line have changed since.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

GUIDE = Path(__file__).with_name("guide.console")

RANDOM_KEYS = frozenset({"caBundle", "lastUpdateTime", "password", "username", "uid"})
RANDOM_COLUMNS = frozenset({"AGE", "CLUSTER-IP"})
RANDOM_PARTS = (
    (re.compile(r"(postgres-cred-rqst)-[a-z0-9]{6}\b"), r"\1-******"),  # the six characters of the Secret
    (re.compile(r"(/creds/k8s\.-\.demo\.psql-role)/[A-Za-z0-9]{24}"), r"\1/*"),  # the random part of the lease id
)
CLIENT_CHANGES = (
    (re.compile(r'^(\S+ "[^"]+" deleted) from \S+ namespace$', re.M), r"\1"),  # kubectl 1.33 names the namespace
    (re.compile(r"^(No value found at \S+?)/$", re.M), r"\1"),  # vault list: the trailing slash of 2019 is gone
)
SORTED_TODAY = frozenset({".spec.parameters"})  # kubectl sorts the keys of a free-form object, unlike the guide


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block.

    Attributes:
        line: The shell command without its prompt.
        expected: What the guide prints for it, without blank lines at the end.
    """

    line: str
    expected: str

    @property
    def reads(self) -> bool:
        """Whether the command only reads, so that it may be repeated until the system has converged."""
        return bool(re.match(r"(kubectl get|vault (list|read)) ", self.line))


def guide_commands(text: str | None = None) -> list[Command]:
    """Read all commands of the guide in their order."""
    commands: list[Command] = []
    for block in (GUIDE.read_text(encoding="utf-8") if text is None else text).split("%%\n"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, expected = part.partition("\n")
            commands.append(Command(line.strip(), expected.rstrip()))
    return commands


def differences(command: Command, actual: str) -> list[str]:
    """List what the output lacks of the guide's; an empty list means that the block passes."""
    if command.line.endswith("-o yaml"):
        return _missing(yaml.safe_load(_same(command.expected)), yaml.safe_load(_same(actual)), "")
    if "| jq" in command.line:
        try:
            return _missing(json.loads(_same(command.expected)), json.loads(_same(actual)), "")
        except json.JSONDecodeError as err:
            return [f"no JSON: {err}"]
    if command.reads and not command.expected.startswith("No value"):
        return _missing_cells(_same(command.expected).splitlines(), _same(actual).splitlines())
    return _missing_lines(_same(command.expected).splitlines(), _same(actual).splitlines())


def _same(text: str) -> str:
    for pattern, plain in (*RANDOM_PARTS, *CLIENT_CHANGES):
        text = pattern.sub(plain, text)
    return text


def _missing(expected: Any, actual: Any, at: str) -> list[str]:
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping):
            return [f"{at or 'document'}: a mapping is expected"]
        return _missing_keys(expected, actual, at)
    if isinstance(expected, list):
        return _missing_items(expected, actual, at)
    if expected != actual and at.rpartition(".")[2] not in RANDOM_KEYS:
        return [f"{at}: {expected!r} is expected, {actual!r} is there"]
    return []


def _missing_keys(expected: Mapping[str, Any], actual: Mapping[str, Any], at: str) -> list[str]:
    found = [f"{at}.{key}: missing" for key in expected if key not in actual]
    if found:
        return found
    if at not in SORTED_TODAY and [key for key in actual if key in expected] != list(expected):
        return [f"{at or 'document'}: the keys are in another order"]
    return [text for key, value in expected.items() for text in _missing(value, actual[key], f"{at}.{key}")]


def _missing_items(expected: Sequence[Any], actual: Any, at: str) -> list[str]:
    left = list(actual) if isinstance(actual, list) else []
    for number, item in enumerate(expected):
        while left and _missing(item, left[0], at):
            left.pop(0)
        if not left:
            return [f"{at}[{number}]: {item!r} is expected, {actual!r} is there"]
        left.pop(0)
    return []


def _table(lines: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Read a printed table by the places of its header's words; an empty cell is an empty text."""
    heads = [(match.group(), match.start()) for match in re.finditer(r"\S+(?: \S+)*", lines[0])]
    ends = [start for _, start in heads[1:]] + [None]
    return [name for name, _ in heads], [
        {name: line[start:end].strip() for (name, start), end in zip(heads, ends, strict=True)} for line in lines[1:]
    ]


def _missing_cells(expected: Sequence[str], actual: Sequence[str]) -> list[str]:
    if not actual:
        return ["nothing was printed"]
    (wanted, rows), (there, lines) = _table(expected), _table(actual)
    columns = [there.index(name) for name in wanted if name in there]
    if len(columns) < len(wanted) or columns != sorted(columns):
        return [f"columns {wanted} are expected in this order, {there} are there"]
    left = iter(lines)
    missing = [row for row in rows if not any(_row_fits(row, line) for line in left)]
    return [f"no row like {row!r} in {lines!r}" for row in missing]


def _row_fits(row: Mapping[str, str], line: Mapping[str, str]) -> bool:
    return all((name in RANDOM_COLUMNS and line[name]) or line[name] == cell for name, cell in row.items())


def _missing_lines(expected: Sequence[str], actual: Sequence[str]) -> list[str]:
    lines = iter(actual)
    return [f"no line {line!r} in {list(actual)!r}" for line in expected if line not in lines]
