"""docs/reference/events.md names every condition type and reason that the code writes, and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.docs import configuration, errors
from dev.docs.events import CONDITIONS, EVENTS, REASONS
from dev.docs.rpcs import PORTS

ROOT = Path(__file__).parents[2]
SOURCES = (
    *sorted((ROOT / "watcher").rglob("*.py")),
    ROOT / "services" / "access" / "domain" / "request_view.py",
    ROOT / "services" / "engine" / "wire.py",
    ROOT / "services" / "roles" / "wire.py",
)
CALLS = (
    "Condition",
    "Notice",
    "PendingError",
    "record",
    "record_event",
    "event",
    "report_failed",
    "failed",
    "ready_condition",
    "report_ready",
    "_check",
    "report_not_ready",
)
TABLES = ("KINDS", "NOT_WRITTEN")


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _texts(value)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _written(file: Path) -> Iterator[tuple[str, str]]:
    """What a module writes: ``type`` or ``reason``, and the word."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and _name(node.targets[0]) in (*TABLES, "reason"):
            yield from (("reason", text) for text in _texts(node.value))
        if not isinstance(node, ast.Call) or _name(node.func) not in CALLS:
            continue
        for keyword in node.keywords:
            if keyword.arg in ("reason", "type"):
                yield from ((keyword.arg, text) for text in _texts(keyword.value))
        if _name(node.func) == "Condition":
            for position, word in ((0, "type"), (2, "reason")):
                if len(node.args) > position:
                    yield from ((word, text) for text in _texts(node.args[position]))


WRITTEN = {each for file in SOURCES for each in _written(file)}


def test_every_condition_type_is_documented() -> None:
    types = {text for word, text in WRITTEN if word == "type"}
    notices = {"VaultSettingsNotUsed"}  # a notice's reason is its condition's type
    assert types | notices == {row.type for row in CONDITIONS}


def test_every_reason_is_documented() -> None:
    camel = {"".join(word.capitalize() for word in reason.split("_")) for reason in errors.meanings(ROOT)}
    reasons = {text for word, text in WRITTEN if word == "reason"}
    listed = {row.reason for row in (*REASONS, *EVENTS)}
    assert reasons - listed - camel == set()
    computed = {"InvalidSpec", "Denied", "Expired"}  # what reason_of makes of SPEC_INVALID, and phases
    assert listed - reasons - camel == computed


@pytest.mark.parametrize("service", ["engine", "roles", "access"])
def test_a_grpcurl_line_names_the_port_of_its_service(service: str) -> None:
    command = dict(configuration.PROCESSES)[service]
    default = next(option.default for option in command.params if option.name == "listen")
    assert str(default).endswith(f":{PORTS[f'leasegate.{service}.v1']}")
