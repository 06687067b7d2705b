"""``make demo``: starts the local stack, runs the guide on it and prints each step with its result."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click

from dev.demo.story import NotSeenError, Story
from dev.stack.errors import StackError
from dev.stack.external_servers import ExternalServers
from dev.stack.stack import LocalStack


@click.command()
@click.option("--keep-going", is_flag=True, help="Run the remaining steps after one that failed.")
def main(*, keep_going: bool) -> None:
    """Run the guide "Manage PostgreSQL credentials" on real servers, step by step.

    Starts Kubernetes, OpenBao, PostgreSQL and the four processes of Leasegate on free ports of 127.0.0.1, and stops
    them all at the end. VAULT_ADDR (with VAULT_TOKEN and VAULT_CACERT) and LEASEGATE_POSTGRES_URL name servers to use
    instead of local ones; the cluster is always a local one. The exit code is 0 only if every step passed.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leasegate-demo-") as folder, _start(Path(folder) / "stack") as stack:
        click.echo(f"The local stack runs ({time.monotonic() - began:.0f} s).\n")
        passed, count = run_steps(Story(stack), keep_going=keep_going)
    click.echo(f"\ndemo: {passed} of {count} steps passed ({time.monotonic() - began:.0f} s)")
    sys.exit(0 if passed == count else 1)


def _start(directory: Path) -> LocalStack:
    """Start the stack with the Vault and PostgreSQL of the environment; its KUBECONFIG may be a cluster in use."""
    try:
        external = replace(ExternalServers.from_environment(directory), kubeconfig=None)
        for line in external.lines():
            click.secho(line, err=True, bold=True)
        return LocalStack.start(directory, external=external)
    except StackError as err:
        raise click.ClickException(str(err)) from err


def run_steps(story: Story, *, keep_going: bool = False) -> tuple[int, int]:
    """Run the steps of the guide and print each.

    Returns:
        How many steps passed, and how many there are.
    """
    steps, passed = story.steps(), 0
    for number, step in enumerate(steps, 1):
        click.secho(f"[{number:2}/{len(steps)}] {step.title}", bold=True)
        try:
            seen = step.run()
        except NotSeenError as err:
            click.secho(f"FAILED: {err}", fg="red")
            if not keep_going:
                break
        else:
            passed += 1
            click.echo("\n".join(f"        {line}" for line in seen.splitlines()))
    return passed, len(steps)


if __name__ == "__main__":
    main()
