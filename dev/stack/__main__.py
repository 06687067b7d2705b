"""The command ``python -m dev.stack``: build, up, down, status, env."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import click

from dev.stack.errors import StackError
from dev.stack.external_servers import ExternalServers
from dev.stack.folder import take_down
from dev.stack.go_programs import grpcurl_binary, kube_binary
from dev.stack.services import CLIENTS, SERVERS
from dev.stack.stack import LocalStack
from dev.stack.teardown import running

_DEFAULT = Path(__file__).parents[2] / ".stack"


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StackError as err:
            raise click.ClickException(str(err)) from err


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    envvar="LEASEGATE_STACK_DIR",
    default=_DEFAULT,
    type=click.Path(file_okay=False, path_type=Path),
    help="The stack's folder: keys, data, logs, pids. [env: LEASEGATE_STACK_DIR; default: .stack in the repository]",
)
@click.pass_context
def main(ctx: click.Context, directory: Path) -> None:
    """Run Leasegate on this machine with real servers: Kubernetes, OpenBao and PostgreSQL.

    They listen on free ports of 127.0.0.1 and need neither root nor Docker. KUBECONFIG, VAULT_ADDR (with VAULT_TOKEN
    and VAULT_CACERT) and LEASEGATE_POSTGRES_URL replace a local server where they are set; `up` prints which ones.
    """
    ctx.obj = directory.resolve()


@main.command()
def build() -> None:
    """Build etcd, kube-apiserver, kube-controller-manager and grpcurl into your cache folder: once, 5 to 10 minutes."""
    click.echo(kube_binary(_say))
    click.echo(grpcurl_binary(_say))


@main.command()
@click.option(
    "--detach", "-d", is_flag=True, help="Return once everything is ready, and leave it running until `down`."
)
@click.option(
    "--services/--no-services", default=True, show_default=True, help="Start engine, roles, access and watcher as well."
)
@click.pass_obj
def up(directory: Path, detach: bool, services: bool) -> None:
    """Start everything, print how to reach it, and keep it running until Ctrl-C or `down`.

    The data is deleted at the end.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    began, external = time.monotonic(), ExternalServers.from_environment(directory)
    for line in external.lines():
        click.secho(line, err=True, bold=True)
    try:
        stack = LocalStack.start(directory, services=services, external=external, evictable=True, say=_say)
        click.echo(_how_to_reach(stack, seconds=time.monotonic() - began, services=services))
        if not detach:
            _keep(stack)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        raise SystemExit(130) from None


@main.command()
@click.pass_obj
def down(directory: Path) -> None:
    """Stop the processes that `up` started, also after it crashed, and delete their data. The logs stay."""
    stopped = take_down(directory)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing was running in {directory}")


@main.command()
@click.pass_obj
def status(directory: Path) -> None:
    """List the processes; exit 1 if one does not run."""
    now, stack = running(directory), LocalStack.attach(directory)
    started = [process for process in stack.processes if process.log.exists()]  # `up --no-services` starts fewer
    for process in started:
        state = f"pid {now[process.name].pid}" if process.name in now else f"NOT RUNNING (log: {process.log})"
        click.echo(f"{process.name:<25} {state}")
    if any(process.name not in now for process in started):
        raise SystemExit(1)


@main.command()
@click.pass_obj
def env(directory: Path) -> None:
    """Print one line that puts the tools on PATH and names the servers: eval "$(python -m dev.stack env)"."""
    stack = LocalStack.attach(directory)
    named = " ".join(f"{key}={shlex.quote(value)}" for key, value in stack.variables().items())
    click.echo(f'export PATH={shlex.quote(str(directory / "bin"))}:"$PATH" {named}')


def _say(text: str) -> None:
    click.echo(text, err=True)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _keep(stack: LocalStack) -> None:
    """Keep the stack until SIGINT or SIGTERM, and report each process that ends before."""
    with stack:
        reported: set[str] = set()
        while True:
            dead = {process.name for process in stack.processes if not process.alive}
            for name in sorted(dead - reported):
                _say(f"{name} has ended; its log: {stack.process(name).log}")
            reported = dead
            time.sleep(1)


def _how_to_reach(stack: LocalStack, *, seconds: float, services: bool) -> str:
    certificates = stack.client_cert("operator")[0].parent
    lines = [
        "",
        f"The local stack is up after {seconds:.1f} s, in {stack.directory}",
        "",
        f"  Kubernetes   KUBECONFIG={stack.kubeconfig}",
        "               contexts admin, alice (group dev), bob (group approvers), carol (no group)",
        f"  Vault        VAULT_ADDR={stack.vault_addr} VAULT_CACERT={stack.vault_ca}",
        f"  PostgreSQL   {_without_password(stack.postgres_url)}",
        *([f"    with TLS   {_without_password(stack.postgres_tls_url)}"] if stack.postgres_tls_url else []),
        *(
            f"  {name:<12} {stack.addresses[name]}  health {stack.health_addresses[name]}"
            for name in SERVERS
            if services
        ),
        *([f"  {'watcher':<12} http://{stack.health_addresses['watcher']}/readyz"] if services else []),
        f"  certificates {certificates} ({', '.join(CLIENTS)}; ca.crt)",
        "",
        "In another shell, this line puts the tools (kubectl, vault, psql, grpcurl, jq) on PATH and names the servers:",
        f'  eval "$({_command(stack, "env")})"',
        "Then follow the guide; after `kubectl create ns demo`, one command enables the namespace for Leasegate:",
        f"  kubectl apply -n demo -f {stack.enabled_namespace('demo')}",
        f"Stop it with Ctrl-C, or from anywhere with `{_command(stack, 'down')}`.",
    ]
    return "\n".join(lines)


def _command(stack: LocalStack, name: str) -> str:
    chosen = "" if stack.directory == _DEFAULT else f" --dir {shlex.quote(str(stack.directory))}"
    return f"{shlex.quote(sys.executable)} -m dev.stack{chosen} {name}"


def _without_password(url: str) -> str:
    head, _, rest = url.rpartition("@")
    return f"{head.rpartition(':')[0]}:...@{rest}" if head else url


if __name__ == "__main__":
    os.umask(0o077)
    main(prog_name="python -m dev.stack")
