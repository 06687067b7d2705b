"""Writes a folder for PATH with the commands that the guide uses: kubectl, kubectl-vault, vault, psql, jq, grpcurl."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from dev.stack.bao import bao_binary
from dev.stack.go_build import Say
from dev.stack.go_programs import grpcurl_binary
from dev.stack.kubectl import kubectl_binary
from dev.stack.postgres import postgres_programs

_ROOT = Path(__file__).parents[2]


def write_tools(folder: Path, *, say: Say) -> None:
    """Write the folder; existing commands in it are replaced.

    Args:
        folder: The folder.
        say: Receives the progress where grpcurl is still to be built.
    """
    folder.mkdir(exist_ok=True)
    programs = postgres_programs()
    commands: dict[str, list[str]] = {
        "kubectl": [str(kubectl_binary())],
        "kubectl-vault": [sys.executable, "-m", "cli.kubectl_vault"],
        "leasegate": [sys.executable, "-m", "cli.leasegate"],
        "vault": [str(bao_binary())],
        "bao": [str(bao_binary())],
        "psql": [str(programs / "psql")],
        "grpcurl": [str(grpcurl_binary(say))],
    }
    if shutil.which("jq") is None:
        commands["jq"] = [sys.executable, "-m", "dev.stack.jq"]
    for name, command in commands.items():
        _write(folder / name, command)


def _write(path: Path, command: list[str]) -> None:
    python_path = os.pathsep.join(map(str, (_ROOT, _ROOT / "protos" / "gen")))
    head = f"export PYTHONPATH={shlex.quote(python_path)}\n" if command[0] == sys.executable else ""
    path.write_text(f'#!/bin/sh\n{head}exec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
