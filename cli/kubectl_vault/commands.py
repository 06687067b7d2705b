"""The command line: options, output and exit codes (0 all done, 1 something failed, 2 wrong usage)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from cli.kubectl_vault.cluster import Cluster
from cli.kubectl_vault.deciding import Clock, decide
from cli.kubectl_vault.decisions import Decision, Json, Verdict
from cli.kubectl_vault.describe import as_description, grant_lines
from cli.kubectl_vault.errors import CommandError
from cli.kubectl_vault.kubectl import Kubectl
from cli.kubectl_vault.options import COMMENT_LIMIT, approving, connection, deciding, kubectl_flags
from cli.kubectl_vault.resource import Named, parse_names, read_file
from cli.kubectl_vault.table import as_table, as_text
from leasegate_server import __version__
from services.common.core_dumps import disable_core_dumps
from services.common.texts import escaped

_SAID = {Verdict.APPROVE: "approved", Verdict.DENY: "  Denied"}  # as the guide prints it
_NOTHING = "No resources found"


class _Commands(click.Group):
    """Prints an error in one line, in place of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CommandError as err:
            _print_error(str(err))
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@click.version_option(__version__, prog_name="kubectl-vault")
@connection
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """Approve, deny, show and describe access requests.

    An access request is a DatabaseAccessRequest of engine.kubevault.com; its type here is databaseaccessrequest or dar.
    """
    ctx.obj = flags


@cli.command()
@approving
@click.pass_obj
def approve(before: dict[str, Any], /, **given: Any) -> None:
    """Approve access requests: credentials are issued.

    What is granted is printed to standard error first, and the approval is for exactly that (status.digest). A script
    that looked before names what it saw by --digest. An approval cannot be undone, but denying the access request
    revokes its credentials.
    """
    _decide_all(Verdict.APPROVE, before, **given)


@cli.command()
@deciding
@click.pass_obj
def deny(before: dict[str, Any], /, **given: Any) -> None:
    """Deny access requests: no credentials are issued, and issued ones are revoked. A denial is final."""
    _decide_all(Verdict.DENY, before, **given)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="databaseaccessrequest [NAME...]")
@click.option("-A", "--all-namespaces", is_flag=True, help="Access requests of all namespaces.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Output format.",
)
@connection
@click.pass_obj
def get(before: dict[str, Any], /, words: tuple[str, ...], all_namespaces: bool, output: str, **flags: Any) -> None:
    """Show access requests: status, requester, approver, and when the lease expires."""
    names = parse_names(words)
    if names and all_namespaces:
        raise CommandError("a name belongs to one namespace: leave out -A or the name")
    cluster, namespace = _connect(before, flags)
    found = (
        _read_named(cluster, names, namespace) if names else cluster.list_requests("" if all_namespaces else namespace)
    )
    if found or (output != "table" and not names):
        click.echo(_shown(found, output=output, single=len(names) == 1, with_namespace=all_namespaces))
    elif not names:
        click.echo(_NOTHING + ("" if all_namespaces else f" in {namespace} namespace."), err=True)
    if len(found) < len(names):
        raise SystemExit(1)


@cli.command()
@click.argument("words", nargs=-1, required=True, metavar="databaseaccessrequest NAME...")
@connection
@click.pass_obj
def describe(before: dict[str, Any], /, words: tuple[str, ...], **flags: Any) -> None:
    """Show access requests with what an approval grants: database, SQL statements, subjects and durations."""
    names = parse_names(words)
    if not names:
        raise CommandError(f"say which ones: {words[0]} NAME...")
    cluster, namespace = _connect(before, flags)
    found = _read_named(cluster, names, namespace)
    if found:
        click.echo("\n\n".join(as_description(request, _role_of(cluster, request)) for request in found))
    if len(found) < len(names):
        raise SystemExit(1)


def _role_of(cluster: Cluster, request: Json) -> Json | None:
    """The PostgresRole, needed only where the status says no grant."""
    if (request.get("status") or {}).get("grant"):
        return None
    role = (request.get("spec") or {}).get("roleRef") or {}
    namespace = str(role.get("namespace") or request["metadata"]["namespace"])
    return cluster.find_role(namespace, str(role.get("name", "")))


def _read_named(cluster: Cluster, names: Sequence[str], namespace: str) -> list[Json]:
    """Read these; an error is printed, and the others are shown all the same."""
    found: list[Json] = []
    for name in names:
        try:
            found.append(cluster.get_request(Named(name, namespace)))
        except CommandError as err:
            _print_error(str(err))
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
    digest: str = "",
    **flags: Any,
) -> None:
    if len(reason) > COMMENT_LIMIT:
        raise CommandError(f"--reason has at most {COMMENT_LIMIT} characters")
    meant = _meant(words, files)
    if not meant:
        click.echo(_NOTHING)
        return
    if digest and len(meant) > 1:
        raise CommandError("a digest is that of one access request: with --digest name one")
    cluster, namespace = _connect(before, flags)
    all_named = [_in_namespace(each, namespace, given=flags["namespace"] or before["namespace"]) for each in meant]
    decision = Decision(verdict, cluster.get_user_name(), " ".join(reason.split()))
    several = len(all_named) > 1
    done = [_decide_one(cluster, each, decision, wait_s=wait_s, digest=digest, several=several) for each in all_named]
    if not all(done):
        raise SystemExit(1)


def _decide_one(
    cluster: Cluster, named: Named, decision: Decision, *, wait_s: float, digest: str, several: bool
) -> bool:
    def show(request: Json) -> None:
        click.echo(f"{named} grants:", err=True)
        for line in grant_lines(request, _role_of(cluster, request)):
            click.echo(f"  {line}", err=True)

    clock = Clock(lambda: datetime.now(UTC), time.monotonic, time.sleep)
    try:
        decide(cluster, named, decision, clock=clock, wait_s=wait_s, digest=digest, show=show)
    except CommandError as err:
        _print_error(str(err) if str(named) in str(err) else f"{named}: {err}")
        return False
    click.echo(escaped(_SAID[decision.verdict] + (f" {named.name}" if several else "")))
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
        raise CommandError(f'{named.name} has namespace "{named.namespace}" in the file, but -n names "{given}"')
    return Named(named.name, named.namespace or namespace)


def _connect(before: dict[str, Any], flags: dict[str, Any]) -> tuple[Cluster, str]:
    """The cluster that the flags name, and the namespace; flags after the command win over those before it."""
    given = before | {name: value for name, value in flags.items() if value}
    cluster = Cluster(Kubectl(kubectl_flags(given), print_stderr=lambda line: click.echo(escaped(line), err=True)))
    return cluster, given["namespace"] or cluster.default_namespace()


def _print_error(message: str) -> None:
    click.echo(escaped(f"error: {message}"), err=True)


def main() -> None:
    """Run as a program, also as kubectl's plugin."""
    disable_core_dumps()
    cli(prog_name="kubectl vault")
