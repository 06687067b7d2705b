"""Checks all prose against the house words: ``python -m dev.prose`` runs Vale with .vale.ini and styles/Leasegate."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dev.stack.go_programs import vale_binary

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "protos/leasegate", "deploy", "cli", "services", "watcher", "dev")
FILES = "*.{md,proto,yaml,hcl,py}"


def main() -> int:
    """Check the top-level documents and ``FOLDERS``; each alert is a line with file, line and column.

    Returns:
        Exit code: 0 for no alert.
    """
    documents = sorted(path.name for path in ROOT.glob("*.md"))
    command = [str(vale_binary()), "--output=line", f"--glob={FILES}", *documents, *FOLDERS]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0:
        print(f"prose: {', '.join((*documents, *FOLDERS))} have the house words")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
