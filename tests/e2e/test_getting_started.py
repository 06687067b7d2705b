"""The commands of docs/getting-started.md run as printed, in a namespace of their own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from dev.demo.story import EXAMPLES, REPOSITORY
from dev.stack.stack import LocalStack
from tests.e2e.space import FILES, space
from tests.eventually import eventually

NAME = "getting-started"
SECTIONS = ("A database and a database role", "Request and approve", "Use the credential", "Look behind it")
END = "Take it back"


def _commands(heading: str) -> list[str]:
    """Returns the commands below a heading, with the namespace and the mount of this test."""
    section = (REPOSITORY / "docs" / "getting-started.md").read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    block = re.search(r"```console\n(.*?)```", section, re.S)
    assert block, heading
    lines = [line[2:] for line in block[1].splitlines() if line.startswith("$ ")]
    return [re.sub(r"\bdemo\b(?!-)", NAME, line).replace("my-postgres-se", f"team/{NAME}") for line in lines]


def test_getting_started_from_the_database_to_the_denial(stack: LocalStack, tmp_path: Path) -> None:
    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        script = "\n".join(["set -euo pipefail", *lines])
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=stack.environment(), capture_output=True, text=True, timeout=180
        )

    with space(stack, NAME) as made:
        for file in FILES:
            text = (REPOSITORY / EXAMPLES / f"{file}.yaml").read_text(encoding="utf-8")
            copy = tmp_path / EXAMPLES / f"{file}.yaml"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text.replace("namespace: demo", f"namespace: {NAME}").replace("my-postgres-se", made.mount))
        credential = [line for line in _commands(SECTIONS[2]) if re.match(r"\w+=\$\(", line)]
        # Other tests' leases may be found as well: what they leave is theirs to check.
        lines = [f"{line} || test $? = 1" if "orphans" in line else line for s in SECTIONS for line in _commands(s)]
        done = run(*lines)
        assert done.returncode == 0, done.stderr
        for seen in ("approved", "condition met", f"token-{NAME}-psql-role-", "CREATE ROLE", "incident 4711"):
            assert seen in done.stdout, f"{seen} is missing in\n{done.stdout}"
        deny, after = _commands(END)
        kept = run(*credential, 'echo "username=$username password=$password"').stdout
        assert run(deny).stdout == "  Denied\n"
        eventually(lambda: run(kept, after).returncode == 2, timeout_s=30, what="the refusal of the dropped user")
