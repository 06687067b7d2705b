"""Each process starts with what its extra installs, and with nothing of another's."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "kubernetes",
    "sqlalchemy",
    "alembic",
    "grpc_reflection",
    "cryptography",
    "psycopg",
    "pytest",
    "grpc_tools",
}
NEEDED = {
    "watcher.__main__": {"kubernetes"},
    "cli.kubectl_vault.commands": {"psycopg"},
    "cli.leasegate": {"psycopg"},
    "services.engine.__main__": {"grpc_reflection"},
    "services.roles.__main__": {"grpc_reflection"},
    "services.access.__main__": {"grpc_reflection", "sqlalchemy"},
}
PROGRAM = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split():
            raise ModuleNotFoundError(f"{name} is not installed here")
sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", NEEDED)
def test_a_process_needs_its_own_extra_only(module: str) -> None:
    """It can be imported where the other processes' libraries are not installed."""
    absent = " ".join(sorted(HEAVY - NEEDED[module]))
    done = subprocess.run([sys.executable, "-c", PROGRAM, module, absent], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
