"""Which module of the watcher writes which kind to Kubernetes; pyproject.toml has the contracts about imports."""

from __future__ import annotations

import ast
from pathlib import Path

import watcher

ROOT = Path(watcher.__file__).parent
VERBS = {"create", "replace", "patch", "delete"}


def writes(module: str) -> set[tuple[str, str]]:
    """The writing calls of a module that name a kind, as verb and kind."""
    tree = ast.parse((ROOT / module).read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return {
        (call.func.attr, ast.unparse(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr in VERBS and call.args
    }


def test_delivery_alone_writes_secrets_roles_and_bindings() -> None:
    rooms = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")}
    found = {module: writes(module) for module in rooms if not module.startswith(("kube/", "delivery/"))}
    assert {module: calls for module, calls in found.items() if calls} == {
        "clients/ledger_id.py": {("create", "CONFIG_MAP"), ("replace", "CONFIG_MAP")},
        "clients/token_audience.py": {("create", "SERVICE_ACCOUNT"), ("create", "SELF_SUBJECT_REVIEW")},
        "reconcilers/vault_targets.py": {("create", "SERVICE_ACCOUNT")},
    }
    assert ("replace", "resource") in writes("delivery/publisher.py"), "the search finds what there is"


def test_kube_writes_only_events_and_what_its_caller_names() -> None:
    found = {call for path in (ROOT / "kube").glob("*.py") for call in writes(f"kube/{path.name}")}
    assert {kind for _, kind in found} == {"EVENT", "resource"}
