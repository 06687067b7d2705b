"""``make profile`` wraps functions of the product by name: they have to be there, whatever is renamed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "import sys; from benchmarks import traced; getattr(traced, sys.argv[1])(traced.Notes(sys.argv[2]))"


@pytest.mark.parametrize("trace", ["trace_access", "trace_watcher"])
def test_every_traced_function_exists(trace: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, trace, str(tmp_path / "spans")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
