"""Metrics of the four processes, read from where the source makes them: some exist only while a ledger or watcher runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dev.docs.markdown import page, table

KINDS = {
    f"{kind}{suffix}": kind.lower()
    for kind in ("Counter", "Gauge", "Histogram", "Summary")
    for suffix in ("", "MetricFamily")
}
SOURCES = {
    "services/common": "engine, roles, access",
    "services/access": "access",
    "watcher": "watcher",
}
"""Folders that make metrics, and the processes that have them."""

INTRO = """Each process serves its metrics in the Prometheus format at `--metrics-listen`. Beside these every process has the usual
`process_*` and `python_info`. The samples of a histogram end in `_bucket`, `_sum` and `_count`."""


@dataclass(frozen=True, slots=True)
class FoundMetric:
    """A metric as the source makes it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    processes: str


def render(root: Path) -> str:
    """One table, by name."""
    rows = (
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.processes, each.help)
        for each in find_metrics(root)
    )
    columns = ("metric", "type", "labels", "process", "meaning")
    return page(
        "Metrics", source="the places that make them in `services` and `watcher`", parts=[INTRO, table(columns, rows)]
    )


def find_metrics(root: Path) -> list[FoundMetric]:
    """Every metric, by name.

    Raises:
        ValueError: A metric's name, help or labels are not literals.
    """
    found = set[FoundMetric]()
    for folder, processes in SOURCES.items():
        for file in sorted((root / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
            found.update(_metrics(tree, processes, str(file.relative_to(root))))
    return sorted(found, key=lambda metric: (metric.name, metric.processes))


_Makers: TypeAlias = Mapping[str, tuple[str, str]]


def _metrics(tree: ast.Module, processes: str, file: str) -> Iterator[FoundMetric]:
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client")
        for alias in node.names
    }
    literals = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    makers: dict[str, tuple[str, str]] = {name: (kind, "") for name, kind in KINDS.items() if name in imported}
    wrapped = dict(_wrappers(tree, makers))
    inside = {id(node) for name in wrapped for node in ast.walk(_function(tree, name))}
    makers |= wrapped
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _name(call.func) in makers and id(call) not in inside:
            kind, prefix = makers[_name(call.func)]
            name, text = (_text(call, position, file) for position in (0, 1))
            suffix = "_total" * (kind == "counter" and not name.endswith("_total"))
            yield FoundMetric(prefix + name + suffix, kind, _labels(call, literals), text, processes)


def _wrappers(tree: ast.Module, makers: _Makers) -> Iterator[tuple[str, tuple[str, str]]]:
    """Functions of the module that make a metric whose name is a prefix and their first argument."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in ast.walk(node):
            if (
                isinstance(call, ast.Call)
                and _name(call.func) in makers
                and call.args
                and isinstance(call.args[0], ast.JoinedStr)
            ):
                first = call.args[0].values[0]
                yield (
                    node.name,
                    (makers[_name(call.func)][0], str(first.value) if isinstance(first, ast.Constant) else ""),
                )


def _function(tree: ast.Module, name: str) -> ast.FunctionDef:
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(call: ast.Call, position: int, file: str) -> str:
    if len(call.args) > position:
        value = call.args[position]
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    raise ValueError(f"{file}:{call.lineno}: name and help of a metric are literals, which the reference is made of")


def _labels(call: ast.Call, literals: Mapping[str, ast.expr]) -> tuple[str, ...]:
    given = next((each.value for each in call.keywords if each.arg in ("labels", "labelnames")), None)
    if given is None and len(call.args) > 2:
        given = call.args[2]
    if isinstance(given, ast.Name):
        given = literals.get(given.id)
    if isinstance(given, ast.Tuple | ast.List):
        return tuple(str(each.value) for each in given.elts if isinstance(each, ast.Constant))
    return ()
