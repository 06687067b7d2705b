"""Processes of the local stack: found again by their files, ended by nobody's mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dev.stack.errors import StackCancelledError, StackError
from dev.stack.folder import claim_folder, take_down
from dev.stack.processes import Command, Identity, Process, parse_identity, read_pid_file
from dev.stack.teardown import end_processes, is_stack, remove_files, running
from tests.eventually import eventually

STAT = "1234 (some (odd) name) S 1 1234 1234 0 -1 4194560 1 2 0 0 1 2 3 4 20 0 1 0 107522 1834 68 1844 1 1"
SLEEPS = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(600)"]
READY = ("begun\n", "deaf\n")  # an error message in the log is none
UP = """
import pathlib, sys, time
from dev.stack.folder import claim_folder
with claim_folder(pathlib.Path(sys.argv[1]), evictable=True):
    print("holds", flush=True)
    time.sleep(600)
"""
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A stack's folder whose processes are ended after the test, whatever it did."""
    yield tmp_path
    for process in running(tmp_path).values():
        process.signal(signal.SIGKILL)


def _process(
    folder: Path, arguments: list[str], *, name: str = "sleeper", cancelled: threading.Event | None = None
) -> Process:
    log = folder / "logs" / f"{name}.log"
    command = Command(arguments, env={"PATH": os.environ["PATH"]})
    return Process(
        name, directory=folder, command=lambda: command, ready=lambda: log.read_text() in READY, cancelled=cancelled
    )


def test_a_line_of_proc_is_read_whatever_the_programs_name() -> None:
    assert parse_identity(f"boot-id {STAT}") == Identity(boot="boot-id", pid=1234, started=107522)


@pytest.mark.parametrize("text", ["", "boot-id", STAT, f"boot-id {STAT[:40]}", "boot-id 12 (x) S 1"])
def test_a_file_that_is_not_whole_names_nobody(text: str) -> None:
    assert parse_identity(text) is None


def test_a_started_process_is_found_by_its_file(folder: Path) -> None:
    process = _process(folder, SLEEPS)
    process.start()
    process.wait_ready()
    assert running(folder) == {"sleeper": process.identity()}
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(sys.executable.encode())
    process.terminate()
    assert not process.alive
    assert running(folder) == {}


def test_a_second_start_of_a_running_process_does_nothing(folder: Path) -> None:
    process = _process(folder, SLEEPS)
    process.start()
    first = process.pid
    process.start()
    assert process.pid == first
    process.kill()


def test_a_killed_process_comes_back_and_its_log_goes_on(folder: Path) -> None:
    process = _process(folder, SLEEPS)
    process.start()
    process.wait_ready()
    first = process.pid
    process.kill()
    process.start()
    assert process.pid != first
    eventually(lambda: process.log.read_text() == "begun\nbegun\n", what="the log of both")
    process.kill()


def test_one_that_does_not_end_when_asked_is_killed(folder: Path) -> None:
    process = _process(folder, DEAF)
    process.start()
    process.wait_ready()
    process.terminate(timeout_s=0.2)
    assert not process.alive


def test_a_process_that_ends_is_not_waited_for(folder: Path) -> None:
    process = _process(folder, [sys.executable, "-c", "raise SystemExit('no such luck')"])
    process.start()
    with pytest.raises(StackError, match=r"sleeper ended; the end of .*no such luck"):
        process.wait_ready()
    process.reap()


def test_a_program_that_is_not_there_is_an_error(folder: Path) -> None:
    process = _process(folder, ["/nonexistent/program"])

    def start_and_wait() -> None:
        """The shell that writes the pid file does start, so either may be the one to notice."""
        process.start()
        process.wait_ready()

    with pytest.raises(StackError, match="nonexistent"):
        start_and_wait()
    process.reap()


def test_waiting_ends_when_starting_is_given_up(folder: Path) -> None:
    cancelled = threading.Event()
    process = _process(folder, SLEEPS, cancelled=cancelled)
    process.start()
    cancelled.set()
    with pytest.raises(StackCancelledError):
        process.wait_ready()
    process.kill()
    with pytest.raises(StackCancelledError):
        process.start()


def test_a_pid_that_was_given_to_somebody_else_is_not_signalled(folder: Path) -> None:
    stranger = subprocess.Popen(SLEEPS, stdout=subprocess.DEVNULL)
    (folder / "pids").mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    own = parse_identity(f"{boot} {Path(f'/proc/{stranger.pid}/stat').read_text()}")
    assert own is not None
    assert own.alive()
    for other in (replace(own, started=own.started - 1), replace(own, boot="an-earlier-boot")):
        (folder / "pids" / "bao").write_text(
            f"{other.boot} {STAT.replace('1234', str(other.pid)).replace('107522', str(other.started))}"
        )
        assert read_pid_file(folder / "pids" / "bao") == other
        assert end_processes(folder) == []
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    identity = parse_identity(f"{boot} {Path(f'/proc/{child.pid}/stat').read_text()}")
    assert identity is not None
    eventually(lambda: not identity.alive(), what="the end of a child that nobody waited for")
    child.wait()


def test_down_needs_the_folder_alone_and_leaves_the_logs(folder: Path) -> None:
    """As after a crash of the process that started them."""
    processes = [_process(folder, SLEEPS, name=name) for name in ("watcher", "access", "bao", "something-new")]
    for process in processes:
        process.start()
    (folder / "state.json").write_text("{}")
    assert sorted(end_processes(folder)) == ["access", "bao", "something-new", "watcher"]
    remove_files(folder)
    assert [entry.name for entry in folder.iterdir()] == ["logs"]
    for process in processes:
        process.reap()


def test_a_folder_is_held_by_one(folder: Path) -> None:
    with claim_folder(folder, evictable=False):
        with pytest.raises(StackError, match="another process starts, keeps or ends"):
            claim_folder(folder, evictable=True)
        with pytest.raises(StackError, match="belongs to a process that ends it itself"):
            take_down(folder)
    claim_folder(folder, evictable=True).close()


def test_down_ends_an_up_that_is_still_starting(folder: Path) -> None:
    """First the one who starts, then what was started: else more would be started behind it."""
    up = subprocess.Popen([sys.executable, "-c", UP, str(folder)], stdout=subprocess.PIPE)
    assert up.stdout is not None
    assert up.stdout.readline() == b"holds\n"
    process = _process(folder, SLEEPS)
    process.start()
    assert take_down(folder) == ["sleeper"]
    assert up.wait() == -signal.SIGTERM
    up.stdout.close()
    process.reap()


def test_a_folder_that_is_no_stacks_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert not is_stack(tmp_path)
    with pytest.raises(StackError, match="is not the folder of a local stack"):
        remove_files(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
