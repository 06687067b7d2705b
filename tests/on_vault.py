"""Runs the tests that depend on how a Vault behaves, on the one that VAULT_BINARY names: ``make test-vault``.

They are the contracts of its texts and answers, its policies, what becomes of leases, mounts, connections and roles,
outages, and the set-up. Other tests run on it as well: ``make test-vault VAULT_BINARY=...
TESTS=tests/e2e/test_story.py`` for the story on a whole stack.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import click

from dev.stack.bao import server_binary, server_version
from dev.stack.errors import StackError

TESTS = (
    "tests/contract/test_vault_error_texts.py",
    "tests/contract/test_attempt_vault.py",
    "tests/contract/test_vault_port.py",
    "tests/integration/test_policies.py",
    "tests/integration/test_statement_texts.py",
    "tests/integration/test_lease_endings.py",
    "tests/integration/test_vault_setup.py",
    "tests/integration/test_vault_service_auth.py",
    "tests/integration/test_engine.py",
    "tests/integration/test_roles.py",
    "tests/integration/test_neighbours_vault.py",
    "tests/integration/test_operators_orphans.py",
    "tests/integration/test_access_outages.py",
    "tests/integration/test_access_kubernetes.py",
    "tests/integration/test_lockout.py",
    "tests/integration/test_holders.py",
    "tests/integration/test_cleanup_roles.py",
)


@click.command()
@click.argument("tests", nargs=-1)
def main(tests: Sequence[str]) -> None:
    """Run TESTS, or those that depend most on the server."""
    try:
        binary = server_binary()
        click.echo(f"Testing on {server_version(binary)} ({binary}).")
    except StackError as err:
        raise click.ClickException(str(err)) from err
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *(tests or TESTS)], check=False).returncode)


if __name__ == "__main__":
    main()
