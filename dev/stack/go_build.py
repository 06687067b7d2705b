"""Builds Go programs once and keeps them in the user's cache folder, under a key of everything that goes into them.

The first build of Kubernetes takes minutes, so a build reports its progress. An interrupted build resumes: Go keeps
every package that it has compiled.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.stack.errors import StackError
from dev.stack.go_toolchain import cache_folder, find_go, go_environment, go_version

Say = Callable[[str], None]

_CACHED = "available in build cache"  # Go's reason for a package that need not be compiled
_SCRATCH_SUFFIX = "-build-"
_TTY_EVERY_S, _LOG_EVERY_S = 0.2, 15.0


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program that is built from Go modules alone.

    Attributes:
        name: File name of the binary.
        source: Folder with go.mod and go.sum, and with the Go files that are ours.
        package: What ``go build`` builds, seen from ``source``.
        variables: Go string variables that the linker sets, by their full name.
        estimate: What the build takes on 2 cores, for people.
    """

    name: str
    source: Path
    package: str
    variables: dict[str, str]
    estimate: str

    def flags(self) -> list[str]:
        """Flags that decide what is built."""
        linked = " ".join(["-s", "-w", *(f"-X {key}={value}" for key, value in self.variables.items())])
        return ["-trimpath", "-ldflags", linked]

    def files(self) -> list[Path]:
        """Every file that the build reads, relative to ``source``."""
        found = (*self.source.rglob("*.go"), *self.source.rglob("go.mod"), *self.source.rglob("go.sum"))
        return sorted(file.relative_to(self.source) for file in found)

    def key(self, version: tuple[int, ...]) -> str:
        """Digest of all that decides what is built, for a Go compiler of this version."""
        digest = hashlib.sha256()
        for file in self.files():
            digest.update(f"{file} {hashlib.sha256((self.source / file).read_bytes()).hexdigest()}\n".encode())
        digest.update(f"{version} {self.package} {self.flags()} {platform.system()}/{platform.machine()}".encode())
        return digest.hexdigest()


def say_on_stderr(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


def build_program(program: GoProgram, say: Say = say_on_stderr) -> Path:
    """Build a program, unless the cache has it.

    Args:
        program: What to build.
        say: Receives the progress, a line at a time.

    Returns:
        The binary in the cache.

    Raises:
        StackError: Go cannot be found or installed, or the build failed.
    """
    go = find_go(say=say)
    home = cache_folder() / f"{program.name}-{program.key(go_version(go))}"
    binary = home / program.name
    if binary.exists():
        return binary
    with _lock(cache_folder() / f"{program.name}.lock", program, say=say):
        if not binary.exists():  # another process may have built it meanwhile
            _build(program, go, home, say=say)
    return binary


@contextmanager
def _lock(path: Path, program: GoProgram, *, say: Say) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process builds {program.name}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: GoProgram, go: Path, home: Path, *, say: Say) -> None:
    version = ".".join(map(str, go_version(go)))
    say(f"Building {program.name} from Go modules: once, {program.estimate} on 2 cores, with Go {version} ({go}).")
    say(f"(An interrupted build resumes. The result is kept in {home.parent}.)")
    scratch_prefix = f"{program.name}{_SCRATCH_SUFFIX}"
    for left in home.parent.glob(f"{scratch_prefix}*"):  # of a build that was killed; this process has the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=scratch_prefix, dir=home.parent) as scratch:
        work, out = Path(scratch) / "src", Path(scratch) / "out"
        out.mkdir()
        for file in program.files():
            (work / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(program.source / file, work / file)
        _compile(program, go, work, out, say=say)
        out.rename(home)
    say(f"Built {home / program.name}.")


def _compile(program: GoProgram, go: Path, work: Path, out: Path, *, say: Say) -> None:
    progress = Progress("Downloading modules", "modules", total=None, say=say)
    total = _count_packages(program, go, work, progress=progress)
    command = [str(go), "build", "-v", *program.flags(), "-o", str(out / program.name), program.package]
    tail = _run(command, work, progress=Progress("Compiling", "packages", total=total, say=say))
    if tail is not None:
        raise StackError(f"the Go build of {program.name} failed; run it again to resume, or see: {tail}")


def _count_packages(program: GoProgram, go: Path, work: Path, *, progress: Progress) -> int:
    """Count the packages that are still to be compiled; downloads every module that is needed."""
    names = work / "stale"
    template = (
        "{{if .Stale}}{{if not (eq .StaleReason `not installed but " + _CACHED + "`)}}{{.ImportPath}}{{end}}{{end}}"
    )
    command = [str(go), "list", "-deps", *program.flags(), "-f", template, program.package]
    tail = _run(command, work, progress=progress, output=names)
    if tail is not None:
        raise StackError(f"the Go modules of {program.name} could not be downloaded: {tail}")
    return len(names.read_text().split())


def _run(command: list[str], work: Path, *, progress: Progress, output: Path | None = None) -> str | None:
    """Run one Go command, each line of whose standard error counts as one step.

    Returns:
        None, or the last lines of standard error if the command failed.
    """
    tail: list[str] = []
    with (output or Path(os.devnull)).open("w") as out:
        child = subprocess.Popen(
            command, cwd=work, env=go_environment(), stdout=out, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        try:
            for line in child.stderr or ():
                tail = [*tail[-4:], line.strip()]
                progress.count_step()
        finally:
            if child.poll() is None and sys.exc_info()[0]:
                child.terminate()
            code = child.wait()
            progress.close()
    return " | ".join(tail) if code else None


class Progress:
    """Reports how many steps are done and how long the rest takes: one line of a terminal, or a few lines of a log."""

    def __init__(self, what: str, unit: str, *, total: int | None, say: Say) -> None:
        """Start counting.

        Args:
            what: What goes on.
            unit: What is counted.
            total: How many there are, if that is known.
            say: Receives a line at a time, if standard error is no terminal.
        """
        self._what, self._unit, self._total, self._say = what, unit, total, say
        self._done, self._began, self._reported = 0, time.monotonic(), time.monotonic()
        self._tty = sys.stderr.isatty()

    def count_step(self) -> None:
        """Count one step."""
        self._done += 1
        now = time.monotonic()
        if now - self._reported >= (_TTY_EVERY_S if self._tty else _LOG_EVERY_S):
            self._reported = now
            self._report()

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._tty and self._done:
            self._report()
            print(file=sys.stderr)

    def _report(self) -> None:
        if self._tty:
            print(f"\r\033[K{self.text(time.monotonic() - self._began)}", end="", file=sys.stderr, flush=True)
        else:
            self._say(self.text(time.monotonic() - self._began))

    def text(self, elapsed_s: float) -> str:
        """The report after ``elapsed_s`` seconds."""
        if not self._total:
            return f"{self._what}: {self._done} {self._unit}"
        done = min(self._done, self._total)
        if done == self._total:
            return f"{self._what}: {done} of {self._total} {self._unit}, linking"
        left_s = elapsed_s / max(done, 1) * (self._total - done)
        return f"{self._what}: {done} of {self._total} {self._unit}, about {_duration(left_s)} left"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
