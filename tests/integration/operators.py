"""``leasegate`` as an operator runs it, against a service of ``access_world``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.vault.api import VaultApi
from deploy.vault.setup import Setup
from tests.integration.access_world import OPERATOR, Callee, World
from tests.servers import DEFAULT_MOUNTS, Servers

Done = subprocess.CompletedProcess[str]


def leasegate(made: World | None, callee: Callee | None, *args: str, typed: str = "", **environment: str) -> Done:
    """Run the program; never with a traceback."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("LEASEGATE_", "PG"))}
    if made and callee:
        made.client(OPERATOR)
        known |= {"LEASEGATE_ACCESS": callee.address, "LEASEGATE_CERTS": str(made.authority.folder)}
    done = subprocess.run(
        [sys.executable, "-m", "cli.leasegate", *args],
        env=known | environment,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@contextmanager
def listing_granted(servers: Servers) -> Iterator[None]:
    """The access service may list leases while inside."""
    setup = Setup(VaultApi(servers.vault_addr, ca=servers.vault_ca, token=servers.root_token))
    list(setup.policies(replace(DEFAULT_MOUNTS, list_leases=True)))
    yield
    servers.allow_mounts()
