"""All tests, in two processes side by side: most of their time is spent waiting for servers, which each process has for itself.

What the first one says is seen at once, what the other one says when it is done. ``python -m pytest PATH`` runs any part alone.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import IO

HERE = Path(__file__).parent
FOLDERS = sorted({str(each.parent.relative_to(HERE.parent)) for each in HERE.rglob("test_*.py")})
E2E = "tests/e2e"
PARTS = ((E2E,), tuple(folder for folder in FOLDERS if folder != E2E))


def main() -> int:
    """Run both; answers 0 if both passed, else the code of one that did not."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as kept:
        running = [_start(PARTS[0], None), _start(PARTS[1], kept)]
        _pass_on_signals(running)
        codes = [each.wait() for each in running]
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
    sys.stdout.buffer.flush()
    for part, code in zip(PARTS, codes, strict=True):
        print(f"{' '.join(part)}: {'passed' if code == 0 else f'FAILED (exit code {code})'}")
    print(f"all tests: {time.monotonic() - began:.0f} s")
    return next((code for code in codes if code), 0)


def _start(part: tuple[str, ...], out: IO[bytes] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *part]
    return subprocess.Popen(
        command, stdout=out, stderr=subprocess.STDOUT if out else None, start_new_session=True, cwd=HERE.parent
    )


def _pass_on_signals(running: list[subprocess.Popen[bytes]]) -> None:
    """Ctrl-C and SIGTERM go to both, which end their servers; then they are waited for as always."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for each in running:
            if each.poll() is None:
                each.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)


if __name__ == "__main__":
    raise SystemExit(main())
