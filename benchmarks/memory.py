"""Resident memory of each service at rest, started against nothing: what it imports. ``python -m benchmarks.memory``.

The watcher does not start without Kubernetes; the scale group of ``python -m benchmarks`` measures it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.processes import cpu_of
from benchmarks.waiting import until

_SERVER = ("--plaintext-loopback", "--allow-any-vault", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0")
_LOOKS = 10


@click.command()
def main() -> None:
    """Print the resident memory of engine, roles and access at rest, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "engine": ("services.engine", *_SERVER),
            "roles": ("services.roles", *_SERVER),
            "access": ("services.access", *_SERVER, "--ledger", f"{folder}/ledger.db"),
        }
        for name, (module, *options) in commands.items():
            click.echo(f"{name:<8}{_rss_mb(module, options, address=Path(folder, name)):6.1f} MiB")


def _rss_mb(module: str, options: list[str], *, address: Path) -> float:
    command = [sys.executable, "-m", module, *options, "--health-address-file", str(address)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(address.exists, timeout_s=60, what="a listening service")
        _wait_idle(process.pid)
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
    finally:
        process.terminate()
        process.wait(30)


def _wait_idle(pid: int) -> None:
    """Wait until the process takes no processor time for several looks."""
    looks, before = 0, -1.0

    def idle() -> bool:
        nonlocal looks, before
        now = cpu_of(pid)
        looks, before = (looks + 1 if now == before else 0), now
        return looks >= _LOOKS

    until(idle, timeout_s=60, what="a service at rest", every_s=0.1)


if __name__ == "__main__":
    main()
