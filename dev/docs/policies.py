"""Digests of the admission policies of this release, with which the watcher compares those of its cluster."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from watcher.delivery.policy_audit import digest_of


def render(root: Path) -> str:
    """The content of ``watcher/delivery/released_policies.json``."""
    files = sorted((root / "deploy/policies").rglob("*.yaml"))
    objects = [document for file in files for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    digests = {f"{each['kind']}/{each['metadata']['name']}": digest_of(each) for each in objects}
    return json.dumps(digests, indent=2, sort_keys=True) + "\n"
