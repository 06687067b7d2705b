"""Checks or exports a ledger's file by the access service's own program: the command line itself knows no ledger."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

from cli.leasegate.errors import CommandError

_MODULE = "services.access.ledger.inspect"


def run(command: str, arguments: Sequence[str]) -> int:
    """Run ``check`` or ``export``, which print their result.

    Returns:
        Its exit code.

    Raises:
        CommandError: The access service is not installed here.
    """
    if not all(importlib.util.find_spec(name) for name in ("sqlalchemy", "alembic")):
        raise CommandError(
            "the access service is not installed here: run this where it is, or pip install 'leasegate-server[access]'"
        )
    path = os.pathsep.join(filter(None, sys.path))  # the wheel's packages are not on the path of a new interpreter
    return subprocess.run(
        [sys.executable, "-m", _MODULE, command, *arguments], env=os.environ | {"PYTHONPATH": path}, check=False
    ).returncode
