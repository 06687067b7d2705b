"""What a process imports at its start is most of its memory: libraries that it does not need then are not among it."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = {"requests", "hvac", "structlog", "rich", "pygments", "alembic", "mako", "cryptography", "psycopg", "pytest"}
"""Each of them takes between 1 and 10 MiB. Alembic is loaded for a migration, cryptography for a call over TLS, the
official Kubernetes client for an exec plugin."""

UNWANTED = {
    "services.engine.__main__": NEVER | {"sqlalchemy", "kubernetes"},
    "services.roles.__main__": NEVER | {"sqlalchemy", "kubernetes"},
    "services.access.__main__": NEVER | {"kubernetes"},
    "watcher.__main__": NEVER | {"sqlalchemy", "kubernetes", "pydantic", "oauthlib"},
}
PROGRAM = (
    "import importlib, sys; importlib.import_module(sys.argv[1]); print(*{m.partition('.')[0] for m in sys.modules})"
)


@pytest.mark.parametrize("module", UNWANTED)
def test_a_process_does_not_load_what_it_does_not_need(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, timeout=60, check=True
    )
    assert UNWANTED[module] & set(done.stdout.split()) == set()
