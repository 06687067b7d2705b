"""Resident memory of each service at rest, started against nothing: what it imports. ``python -m benchmarks.memory``.

The watcher does not start without Kubernetes; the scale group of ``python -m benchmarks`` measures it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

_SERVER = ("--plaintext-loopback", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0")


@click.command()
@click.option("--settle", default=4.0, show_default=True, help="Seconds from the start of a process to its reading.")
def main(settle: float) -> None:
    """Print the resident memory of engine, roles and access at rest, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "engine": ("services.engine", *_SERVER),
            "roles": ("services.roles", *_SERVER),
            "access": ("services.access", *_SERVER, "--ledger", f"{folder}/ledger.db"),
        }
        for name, (module, *options) in commands.items():
            click.echo(f"{name:<8}{_rss_mb(module, options, settle_s=settle):6.1f} MiB")


def _rss_mb(module: str, options: list[str], *, settle_s: float) -> float:
    process = subprocess.Popen([sys.executable, "-m", module, *options], stderr=subprocess.DEVNULL)
    try:
        time.sleep(settle_s)
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
