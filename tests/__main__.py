"""Runs all tests, or the fast ones (``python -m tests fast``), in two processes side by side.

Most of a test's time is spent waiting for servers, which each process has for itself. The output of the first process
is seen at once, that of the second one after it ends. ``python -m pytest PATH`` runs any folder alone. Each process
prints how long each folder took (tests/durations.py); the last lines say how long each process took.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import IO

HERE = Path(__file__).parent
FOLDERS = sorted({str(each.parent.relative_to(HERE.parent)) for each in HERE.rglob("test_*.py")})
E2E, UNIT, CONTRACT = "tests/e2e", "tests/unit", "tests/contract"
Part = tuple[str, ...]
ALL: tuple[Part, Part] = ((E2E,), tuple(folder for folder in FOLDERS if folder != E2E))
FAST: tuple[Part, Part] = ((CONTRACT,), (UNIT,))


def main(arguments: list[str]) -> int:
    """Run both parts.

    Returns:
        0 if both passed, else the exit code of one that did not; 2 for wrong usage.
    """
    if arguments not in ([], ["fast"]):
        print("usage: python -m tests [fast]", file=sys.stderr)
        return 2
    parts, began = (FAST if arguments else ALL), time.monotonic()
    with tempfile.TemporaryFile() as kept, ThreadPoolExecutor() as waiting:
        running = [_start(parts[0], None), _start(parts[1], kept)]
        _pass_on_signals(running)
        ended = list(waiting.map(lambda child: (child.wait(), time.monotonic() - began), running))
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
    sys.stdout.buffer.flush()
    for part, (code, seconds) in zip(parts, ended, strict=True):
        print(f"{seconds:6.0f} s  {' '.join(part)}: {'passed' if code == 0 else f'FAILED (exit code {code})'}")
    print(f"{time.monotonic() - began:6.0f} s  in all")
    return next((code for code, _ in ended if code), 0)


def _start(part: Part, out: IO[bytes] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *part]
    return subprocess.Popen(
        command, stdout=out, stderr=subprocess.STDOUT if out else None, start_new_session=True, cwd=HERE.parent
    )


def _pass_on_signals(running: list[subprocess.Popen[bytes]]) -> None:
    """Pass Ctrl-C and SIGTERM on to both processes, which end their servers; this process still waits for them."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for each in running:
            if each.poll() is None:
                each.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
