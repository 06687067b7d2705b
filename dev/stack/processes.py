"""Servers as processes that outlive the one that started them, and that can be found and stopped by their folder.

Each process has a file with its pid, its start time and the boot id that the start time counts from. The process writes
the file itself before it becomes the server, so that no server runs without one; the start time keeps a reused pid from
being signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dev.stack.errors import StackCancelledError, StackError

# $0 is a name for ps; standard output is the pid file and standard error the log until the server takes over.
_WRITE_PID_THEN_BECOME = (
    'read -r stat </proc/$$/stat; read -r boot </proc/sys/kernel/random/boot_id; echo "$boot $stat"; exec "$@" >&2'
)
_STARTTIME_FIELD = 22  # proc(5), counted from 1
_LOG_TAIL_LINES = 5
_LOG_TAIL_CHARS = 600


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, different from any later one with the same pid."""

    boot: str
    pid: int
    started: int

    def alive(self) -> bool:
        """Whether this process still runs; a zombie does not."""
        try:
            now = f"{_boot_id()} {Path(f'/proc/{self.pid}/stat').read_text()}"
        except OSError:
            return False
        return parse_identity(now) == self and now.rpartition(")")[2].split()[0] not in "ZX"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return  # it ended between the two lines


def parse_identity(line: str) -> Identity | None:
    """Read ``BOOT_ID`` and a line of /proc/PID/stat; None for anything else, such as an incomplete file."""
    head, _, rest = line.rpartition(")")  # the program's name stands in brackets and may have any characters
    words, fields = head.split("(")[0].split(), rest.split()
    if len(words) != 2 or len(fields) < _STARTTIME_FIELD - 2:
        return None
    return Identity(boot=words[0], pid=int(words[1]), started=int(fields[_STARTTIME_FIELD - 3]))


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one server.

    Attributes:
        arguments: Program and its arguments.
        env: The whole environment, or None for that of the caller; may have secrets.
        cwd: Working folder.
        user: Numeric (uid, gid) to run as, for a server that refuses root.
    """

    arguments: Sequence[str]
    env: Mapping[str, str] | None = field(default=None, repr=False)
    cwd: Path | None = None
    user: tuple[int, int] | None = None


class Process:
    """One server of the stack: the same name, address, log and files however often it is started."""

    def __init__(
        self,
        name: str,
        *,
        directory: Path,
        command: Callable[[], Command],
        ready: Callable[[], bool],
        before_start: Callable[[], None] = lambda: None,
        stop_signal: signal.Signals = signal.SIGTERM,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Describe a server; nothing is started.

        Args:
            name: Names the pid file and the log.
            directory: The stack's folder.
            command: Called at each start.
            ready: Whether it serves; called only while the process runs.
            before_start: Called at each start, for instance to release the server's ports.
            stop_signal: Stops it in an orderly way.
            cancelled: Waiting ends with an error once this is set.
        """
        self.name = name
        self.log = directory / "logs" / f"{name}.log"
        self._pid_file = directory / "pids" / name
        self._command, self._ready, self._before_start = command, ready, before_start
        self._stop_signal, self._cancelled = stop_signal, cancelled or threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def identity(self) -> Identity | None:
        """The process that runs under this name, also if another program started it."""
        found = read_pid_file(self._pid_file)
        return found if found and found.alive() else None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.identity() is not None

    @property
    def pid(self) -> int:
        """The pid of the running server.

        Raises:
            StackError: It does not run.
        """
        if (found := self.identity()) is None:
            raise StackError(f"{self.name} is not running{self._last_words()}")
        return found.pid

    def start(self) -> None:
        """Start it, unless it runs; does not wait until it is ready.

        Raises:
            StackError: The program could not be started.
        """
        if self._cancelled.is_set():
            raise StackCancelledError(f"{self.name} was not started")
        if self.alive:
            return
        self.reap()
        command = self._command()
        self.log.parent.mkdir(exist_ok=True)
        self._pid_file.parent.mkdir(exist_ok=True)
        self._before_start()
        with self._pid_file.open("wb") as pid_file, self.log.open("ab") as log:
            self._child = self._spawn(command, pid_file=pid_file.fileno(), log=log.fileno())
        self._await_identity()

    def _spawn(self, command: Command, *, pid_file: int, log: int) -> subprocess.Popen[bytes]:
        uid, gid = command.user or (None, None)
        return subprocess.Popen(
            ["/bin/sh", "-c", _WRITE_PID_THEN_BECOME, self.name, *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=pid_file,
            stderr=log,
            env=command.env,
            cwd=command.cwd,
            start_new_session=True,  # a Ctrl-C at the terminal must not end it as well
            user=uid,
            group=gid,
            extra_groups=None if command.user is None else [],
        )

    def _await_identity(self) -> None:
        end = time.monotonic() + 10
        while read_pid_file(self._pid_file) is None:
            if (self._child and self._child.poll() is not None) or time.monotonic() > end:
                raise StackError(f"{self.name} could not be started{self._last_words()}")
            time.sleep(0.002)

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until it serves.

        Raises:
            StackError: It ended, or was not ready in time; the text has the last lines of its log.
        """
        end = time.monotonic() + timeout_s
        while True:
            if self._cancelled.is_set():
                raise StackCancelledError(f"gave up waiting for {self.name}")
            if not self.alive:  # another server may answer at the address
                raise StackError(f"{self.name} ended{self._last_words()}")
            if self._ready() and self.alive:
                return
            if time.monotonic() > end:
                raise StackError(f"{self.name} was not ready in {timeout_s:.0f} s{self._last_words()}")
            time.sleep(0.03)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it has ended."""
        self._signal_and_wait(signal.SIGKILL, timeout_s=10)

    def terminate(self, timeout_s: float = 15) -> None:
        """Stop it and wait; kill it after ``timeout_s``."""
        self._signal_and_wait(self._stop_signal, timeout_s=timeout_s)
        self.kill()

    def reap(self) -> None:
        """Collect the child's exit code if it has ended, so that it is no zombie."""
        if self._child and not self.alive:
            self._child.wait()
            self._child = None

    def _signal_and_wait(self, number: signal.Signals, *, timeout_s: float) -> None:
        if found := self.identity():
            end_process(found, number, timeout_s=timeout_s)
        self.reap()

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        except OSError:
            return ""
        return f"; the end of {self.log}: " + " | ".join(lines)[-_LOG_TAIL_CHARS:] if lines else ""


def own_identity_line() -> str:
    """What ``parse_identity`` reads, of the calling process."""
    return f"{_boot_id()} {Path('/proc/self/stat').read_text()}"


def read_pid_file(path: Path) -> Identity | None:
    """The process that a pid file names, or None if the file is missing or incomplete."""
    try:
        return parse_identity(path.read_text())
    except (OSError, ValueError):
        return None


def end_process(process: Identity, number: signal.Signals, *, timeout_s: float) -> bool:
    """Signal one process and wait; returns whether it has ended."""
    process.signal(number)
    end = time.monotonic() + timeout_s
    while process.alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
