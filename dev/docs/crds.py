"""Fields of the custom resources, from deploy/crds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from dev.docs.markdown import page, table

Schema: TypeAlias = dict[str, Any]


def render(root: Path) -> str:
    """One section a kind: columns of `kubectl get`, fields and rules."""
    files = sorted((root / "deploy" / "crds").glob("*.yaml"))
    kinds = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    parts = [part for kind in kinds for part in _kind(kind)]
    return page("Custom resources", source="`deploy/crds`", parts=parts)


def _kind(crd: Schema) -> Iterator[str]:
    spec, names = crd["spec"], crd["spec"]["names"]
    yield f"## {names['kind']}"
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        short = "".join(f", `{name}`" for name in names.get("shortNames", []))
        yield schema.get("description", "")
        yield (
            f"`{spec['group']}/{version['name']}`, {spec['scope'].lower()}; `kubectl get {names['plural']}`"
            f" (also `{names['singular']}`{short})."
        )
        yield table(("field", "type", "required", "description"), _fields(schema, ""))
        rules = [(f"`{path or '.'}`", rule.get("message", "")) for path, rule in _rules(schema, "")]
        if rules:
            yield "The API server refuses an object that breaks one of these rules:"
            yield table(("field", "rule"), rules)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}".removeprefix(".")
        if where in ("apiVersion", "kind", "metadata"):
            continue
        yield f"`{where}`", _type(field), "yes" if name in required else "", _description(field)
        inner = field.get("items", field) if field.get("type") == "array" else field
        yield from _fields(inner, where + "[]" * (field.get("type") == "array"))


def _type(field: Schema) -> str:
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field and isinstance(field["additionalProperties"], dict):
        return f"map of {_type(field['additionalProperties'])}"
    return f"{kind} ({field['format']})" if field.get("format") else kind


def _description(field: Schema) -> str:
    text = field.get("description", "")
    values = field.get("enum") or field.get("items", {}).get("enum")
    if values:
        text += f" One of {', '.join(f'`{value}`' for value in values)}."
    if "default" in field:
        text += f" Default: `{field['default']}`."
    return str(text)


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}".removeprefix(".")
        yield from _rules(field, where)
        if field.get("type") == "array":
            yield from _rules(field["items"], f"{where}[]")
