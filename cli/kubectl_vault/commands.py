"""The command line: options, output and exit codes (0 all done, 1 something failed, 2 wrong usage)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli.kubectl_vault.deciding import Clock, decide
from cli.kubectl_vault.decisions import Decision, Json, Verdict
from cli.kubectl_vault.options import COMMENT_LIMIT, connection, deciding
from cli.kubectl_vault.problem import CommandError
from cli.kubectl_vault.resource import Named, parse_names, read_file
from cli.kubectl_vault.table import as_table, as_text

if TYPE_CHECKING:
    from cli.kubectl_vault.api import Api

_SAID = {Verdict.APPROVE: "approved", Verdict.DENY: "  Denied"}  # as the guide prints it
_NOTHING = "No resources found"


class _Commands(click.Group):
    """Tells a problem in one line, in place of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as problem:
            _tell(str(problem))
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@click.version_option(package_name="leasegate", prog_name="kubectl-vault")
@connection
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """Approve, deny and look at requests for database access.

    The requests are DatabaseAccessRequests of engine.kubevault.com; their name is databaseaccessrequest, in short dar.
    """
    ctx.obj = flags


@cli.command()
@deciding
@click.pass_obj
def approve(before: dict[str, Any], /, **given: Any) -> None:
    """Approve requests: credentials are issued.

    What is approved is what the request's status shows now (status.digest). An approval is not undone, but denying the
    request takes the credentials back.
    """
    _decide_all(Verdict.APPROVE, before, **given)


@cli.command()
@deciding
@click.pass_obj
def deny(before: dict[str, Any], /, **given: Any) -> None:
    """Deny requests: nothing is issued, and what was issued is taken back. A denial is final."""
    _decide_all(Verdict.DENY, before, **given)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="databaseaccessrequest [NAME...]")
@click.option("-A", "--all-namespaces", is_flag=True, help="Requests of all namespaces.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Form."
)
@connection
@click.pass_obj
def get(before: dict[str, Any], /, words: tuple[str, ...], all_namespaces: bool, output: str, **flags: Any) -> None:
    """Show requests: state, who asked, who decided, and when the lease ends."""
    names = parse_names(words)
    if names and all_namespaces:
        raise CommandError("a name is looked for in one namespace: leave out -A or the name")
    api, namespace = _connect(before, flags)
    found = _read_named(api, names, namespace) if names else api.read_all("" if all_namespaces else namespace)
    if found or (output != "table" and not names):
        click.echo(_shown(found, output=output, single=len(names) == 1, with_namespace=all_namespaces))
    elif not names:
        click.echo(_NOTHING + ("" if all_namespaces else f" in {namespace} namespace."), err=True)
    if len(found) < len(names):
        raise SystemExit(1)


def _read_named(api: Api, names: Sequence[str], namespace: str) -> list[Json]:
    """Read these; a failure is told, and does not keep the others from being shown."""
    found: list[Json] = []
    for name in names:
        try:
            found.append(api.read(Named(name, namespace)))
        except CommandError as problem:
            _tell(str(problem))
    return found


def _shown(found: Sequence[Json], *, output: str, single: bool, with_namespace: bool) -> str:
    if output == "table":
        return as_table(found, now=datetime.now(UTC), with_namespace=with_namespace)
    return as_text(found, form=output, single=single)


def _decide_all(
    verdict: Verdict,
    before: dict[str, Any],
    *,
    words: Sequence[str],
    files: Sequence[str],
    reason: str,
    wait_s: float,
    **flags: Any,
) -> None:
    if len(reason) > COMMENT_LIMIT:
        raise CommandError(f"--reason has at most {COMMENT_LIMIT} characters")
    meant = _meant(words, files)
    if not meant:
        click.echo(_NOTHING)
        return
    api, namespace = _connect(before, flags)
    all_named = [_in_namespace(each, namespace, given=flags["namespace"] or before["namespace"]) for each in meant]
    decision = Decision(verdict, api.whoami(), " ".join(reason.split()))
    done = [_decide_one(api, named, decision, wait_s=wait_s, several=len(all_named) > 1) for named in all_named]
    if not all(done):
        raise SystemExit(1)


def _decide_one(api: Api, named: Named, decision: Decision, *, wait_s: float, several: bool) -> bool:
    clock = Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep)
    try:
        decide(api, named, decision, clock=clock, wait_s=wait_s)
    except CommandError as problem:
        _tell(str(problem) if str(named) in str(problem) else f"{named}: {problem}")
        return False
    click.echo(_SAID[decision.verdict] + (f" {named.name}" if several else ""))
    return True


def _meant(words: Sequence[str], files: Sequence[str]) -> list[Named]:
    if words and files:
        raise CommandError("give names or -f FILE, not both")
    if files:
        found = [named for file in files for named in read_file(file)]
    else:
        found = [Named(name) for name in parse_names(words)]
        if not found:
            raise CommandError(f"say which ones: {words[0]} NAME..., or -f FILE")
    return list(dict.fromkeys(found))


def _in_namespace(named: Named, namespace: str, *, given: str) -> Named:
    if given and named.namespace not in ("", given):
        raise CommandError(f'{named.name} stands in namespace "{named.namespace}" in the file, but -n names "{given}"')
    return Named(named.name, named.namespace or namespace)


def _connect(before: dict[str, Any], flags: dict[str, Any]) -> tuple[Api, str]:
    """Connect as the flags say; those after the command win over those before it."""
    from cli.kubectl_vault.api import (
        Api,
    )  # the Kubernetes client takes a tenth of a second to import: not for --help or a misspelt word
    from cli.kubectl_vault.kubeconfig import Flags, load

    asked = Flags(**(before | {name: value for name, value in flags.items() if value}))
    access = load(asked)
    return Api(
        access, timeout_s=asked.request_timeout_s or 30, warn=lambda text: click.echo(f"Warning: {text}", err=True)
    ), access.namespace


def _tell(problem: str) -> None:
    click.echo(f"error: {problem}", err=True)


def main() -> None:
    """Run as a program, also as kubectl's plugin."""
    cli(prog_name="kubectl vault")
