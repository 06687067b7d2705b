"""The commands of README.md run as printed, and its tables are complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

from dev.demo.story import REPOSITORY, Story
from dev.stack.stack import LocalStack
from tests.eventually import eventually


def _block(heading: str) -> list[str]:
    """Returns the commands of the first console block below a heading of README.md."""
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    block = re.search(r"```console\n(.*?)```", section, re.S)
    assert block, heading
    return [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]


def test_a_request_without_kubernetes_by_grpcurl(stack: LocalStack, tmp_path: Path) -> None:
    """Reflection lists the services, health is checked, and an access request goes from create to release."""
    lines = _block("Without Kubernetes: grpcurl")
    script = "\n".join(["set -euo pipefail", *lines])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=stack.environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for seen in (
        "leasegate.access.v1.RequesterService",
        '"status": "SERVING"',
        "APPROVAL_STATE_PENDING",
        "APPROVAL_STATE_APPROVED",
        "ACCESS_STATE_ACTIVE",
        "token-films-reader-",
        "LEASE_STATE_ACTIVE",
        "APPROVAL_STATE_WITHDRAWN",
    ):
        assert seen in done.stdout, f"{seen} is missing in\n{done.stdout}"
    eventually(lambda: not Story(stack).database_users(), timeout_s=30, what="the user's drop after the release")


def test_the_fields_table_names_every_field_of_the_schemas() -> None:
    """The compatibility table keeps up with the schemas' own fields below spec."""
    table = (REPOSITORY / "docs" / "reference" / "kubevault-compatibility.md").read_text(encoding="utf-8")
    for file in sorted((REPOSITORY / "deploy" / "crds").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            missing = [name for name in schema if name not in table]
            assert missing == [], f"{document['spec']['names']['kind']}: {missing}"
