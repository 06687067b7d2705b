"""The console scripts: each puts this package's folder on sys.path, then runs the ``main`` of a program inside it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def engine() -> None:
    """Run the engine service."""
    _run("services.engine.__main__")


def roles() -> None:
    """Run the role service."""
    _run("services.roles.__main__")


def access() -> None:
    """Run the access service."""
    _run("services.access.__main__")


def watcher() -> None:
    """Run the watcher."""
    _run("watcher.__main__")


def vault_policies() -> None:
    """Set up Vault for Leasegate."""
    _run("deploy.vault.__main__")


def kubectl_vault() -> None:
    """Run ``kubectl vault``."""
    _run("cli.kubectl_vault")


def leasegate() -> None:
    """Run the operators' command line."""
    _run("cli.leasegate")


def _run(module: str) -> None:
    sys.path.insert(
        0, str(Path(__file__).parent)
    )  # before site-packages, which may have a `services` of another project
    import_module(module).main()
