"""Builds the Go program in ``kube/`` once and keeps it in the user's cache folder, under a key of everything that goes into it.

The first build takes minutes, so it says how far it is. Interrupted, it goes on where it was: Go keeps every package that it has compiled.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.stack.errors import StackError
from dev.stack.go_toolchain import cache_folder, find_go, go_environment, go_version

SOURCE = Path(__file__).parent / "kube"
_INPUTS = ("main.go", "go.mod", "go.sum")
_CACHED = "available in build cache"  # Go's reason for a package that need not be compiled
_SCRATCH = "kube-build-"
_TTY_EVERY_S, _LOG_EVERY_S = 0.2, 15.0


def kube_binary(say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)) -> Path:
    """The built program, from the cache if it is there.

    Args:
        say: Told what goes on, a line at a time.

    Raises:
        StackError: Go is not to be had, or the build failed.
    """
    go = find_go(say=say)
    home = cache_folder() / f"kube-{_key(go)}"
    binary = home / "kube"
    if binary.exists():
        return binary
    with _lock(cache_folder() / "kube.lock", say=say):
        if not binary.exists():  # another process may have built it while we waited
            _build(go, home, say=say)
    return binary


def _key(go: Path) -> str:
    digest = hashlib.sha256()
    for part in (
        *((SOURCE / name).read_bytes() for name in _INPUTS),
        str(go_version(go)).encode(),
        "".join(_flags()).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    digest.update(f"{platform.system()}/{platform.machine()}".encode())
    return digest.hexdigest()


def _flags() -> list[str]:
    """Flags that decide what is built; the version is what kube-apiserver says it is."""
    found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.(\S+)", (SOURCE / "go.mod").read_text())
    if found is None:
        raise StackError(f"{SOURCE}/go.mod does not require k8s.io/kubernetes")
    major, minor, patch = found.groups()
    named = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": major, "gitMinor": minor}
    return [
        "-trimpath",
        "-ldflags",
        " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in named.items())]),
    ]


@contextmanager
def _lock(path: Path, *, say: Callable[[str], None]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds the control plane; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _build(go: Path, home: Path, *, say: Callable[[str], None]) -> None:
    say("Building etcd, kube-apiserver and kube-controller-manager from Go modules: once, 5 to 10 minutes on 2 cores.")
    say(f"(Interrupt it if you like: it goes on where it was. The result is kept in {home.parent}.)")
    for left in home.parent.glob(f"{_SCRATCH}*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=home.parent) as scratch:
        work, out = Path(scratch) / "src", Path(scratch) / "out"
        work.mkdir()
        out.mkdir()
        for name in _INPUTS:
            shutil.copy(SOURCE / name, work)
        _compile(go, work, out, say=say)
        out.rename(home)
    say(f"Built {home / 'kube'}.")


def _compile(go: Path, work: Path, out: Path, *, say: Callable[[str], None]) -> None:
    total = _count_packages(go, work, progress=Progress("Downloading modules", "modules", total=None, say=say))
    command = [str(go), "build", "-v", *_flags(), "-o", str(out / "kube"), "."]
    tail = _run(command, work, progress=Progress("Compiling", "packages", total=total, say=say))
    if tail is not None:
        raise StackError(f"the Go build failed; run it again to go on, or see: {tail}")


def _count_packages(go: Path, work: Path, *, progress: Progress) -> int:
    """How many packages are still to be compiled; this downloads every module that is needed."""
    names = work / "stale"
    template = (
        "{{if .Stale}}{{if not (eq .StaleReason `not installed but " + _CACHED + "`)}}{{.ImportPath}}{{end}}{{end}}"
    )
    tail = _run([str(go), "list", "-deps", *_flags(), "-f", template, "."], work, progress=progress, output=names)
    if tail is not None:
        raise StackError(f"the Go modules could not be had: {tail}")
    return len(names.read_text().split())


def _run(command: list[str], work: Path, *, progress: Progress, output: Path | None = None) -> str | None:
    """Run one Go command; each line that it prints counts as one step. Answers None, or its last lines if it failed."""
    tail: list[str] = []
    with (output or Path(os.devnull)).open("w") as out:
        child = subprocess.Popen(
            command, cwd=work, env=go_environment(), stdout=out, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        try:
            for line in child.stderr or ():
                tail = [*tail[-4:], line.strip()]
                progress.step()
        finally:
            if child.poll() is None and sys.exc_info()[0]:
                child.terminate()
            code = child.wait()
            progress.end()
    return " | ".join(tail) if code else None


class Progress:
    """Says how many steps are done and how long the rest takes, on one line of a terminal or as a few lines of a log."""

    def __init__(self, what: str, unit: str, *, total: int | None, say: Callable[[str], None]) -> None:
        """Begin to count.

        Args:
            what: What goes on.
            unit: What is counted.
            total: How many there are, if that is known.
            say: Told a line at a time, if standard error is no terminal.
        """
        self._what, self._unit, self._total, self._say = what, unit, total, say
        self._done, self._began, self._told = 0, time.monotonic(), time.monotonic()
        self._tty = sys.stderr.isatty()

    def step(self) -> None:
        """Count one."""
        self._done += 1
        now = time.monotonic()
        if now - self._told >= (_TTY_EVERY_S if self._tty else _LOG_EVERY_S):
            self._told = now
            self._tell()

    def end(self) -> None:
        """Leave the terminal's line."""
        if self._tty and self._done:
            self._tell()
            print(file=sys.stderr)

    def _tell(self) -> None:
        if self._tty:
            print(f"\r\033[K{self.text(time.monotonic() - self._began)}", end="", file=sys.stderr, flush=True)
        else:
            self._say(self.text(time.monotonic() - self._began))

    def text(self, elapsed_s: float) -> str:
        """What is told after ``elapsed_s`` seconds."""
        if not self._total:
            return f"{self._what}: {self._done} {self._unit}"
        done = min(self._done, self._total)
        if done == self._total:
            return f"{self._what}: {done} of {self._total} {self._unit}, linking"
        left_s = elapsed_s / max(done, 1) * (self._total - done)
        return f"{self._what}: {done} of {self._total} {self._unit}, about {_duration(left_s)} left"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
