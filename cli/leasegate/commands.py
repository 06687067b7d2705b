"""The command line: options, output and exit codes (0 success, 1 something was found or failed, 2 wrong usage)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.leasegate import offline, postgres, show
from cli.leasegate.connection import connection, operator
from cli.leasegate.errors import CommandError, error_text
from leasegate.access.v1 import lease_pb2, operator_service_pb2_grpc
from leasegate.access.v1 import operator_service_pb2 as pb
from leasegate_server import __version__
from services.common.core_dumps import disable_core_dumps
from services.common.errors import LeasegateError
from services.common.texts import escaped

REASON_CHARS = 1024  # RevokeLeaseRequest.reason in leasegate/access/v1/operator_service.proto
USERS_AT_ONCE = 20_000  # FindOrphansRequest.database_users, likewise
_PAGE = 500
_FILE = click.Path(dir_okay=False, path_type=Path)
_output = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output format."
)


class _Commands(click.Group):
    """Prints an error in one line, in place of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (CommandError, LeasegateError) as err:
            click.echo(f"error: {error_text(err) if isinstance(err, LeasegateError) else escaped(str(err))}", err=True)
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="leasegate")
def cli() -> None:
    """List, renew and revoke leases, find orphans, and check the ledger of the access service."""


@cli.command()
@click.option(
    "--state", type=click.Choice(show.STATES), help="Only leases in this state; without it, all that are not closed."
)
@_output
@connection
def leases(state: str | None, output: str, **where: Any) -> None:
    """List leases, newest first."""
    wanted = lease_pb2.LeaseState.Value(f"LEASE_STATE_{state.upper()}") if state else lease_pb2.LEASE_STATE_UNSPECIFIED
    with operator(**where) as stub:
        found = list(_pages(stub, wanted))
    if output == "json":
        click.echo(show.as_json(found))
    elif found:
        click.echo(show.leases(found, now=datetime.now(UTC)))
    else:
        click.echo("No leases.", err=True)


def _pages(
    stub: operator_service_pb2_grpc.OperatorServiceStub, state: lease_pb2.LeaseState.ValueType
) -> Iterator[lease_pb2.Lease]:
    token = ""
    while True:
        page = stub.ListLeases(pb.ListLeasesRequest(state=state, page_size=_PAGE, page_token=token))
        yield from page.leases
        if not (token := page.next_page_token):
            return


@cli.command()
@click.argument("handle")
@_output
@connection
def renew(handle: str, output: str, **where: Any) -> None:
    """Renew one lease now, by its HANDLE (`leasegate leases` shows it)."""
    with operator(**where) as stub:
        lease = stub.RenewLease(pb.OperatorServiceRenewLeaseRequest(handle=handle)).lease
    click.echo(show.as_json(lease) if output == "json" else show.leases([lease], now=datetime.now(UTC)))


@cli.command()
@click.argument("handle")
@click.option("--reason", required=True, help=f"Why, for the audit log; at most {REASON_CHARS} characters.")
@_output
@connection
def revoke(handle: str, reason: str, output: str, **where: Any) -> None:
    """Revoke one lease by its HANDLE: its database user is dropped.

    An access request that is still approved gets a new credential.
    """
    if len(reason) > REASON_CHARS:
        raise CommandError(f"--reason has at most {REASON_CHARS} characters")
    with operator(**where) as stub:
        lease = stub.RevokeLease(
            pb.RevokeLeaseRequest(request_id=secrets.token_hex(16), handle=handle, reason=reason)
        ).lease
    click.echo(show.as_json(lease) if output == "json" else escaped(f"lease {lease.handle}: {show.state(lease)}"))


@cli.command()
@click.option(
    "--postgres",
    "url",
    metavar="URL",
    help="Compare the database users of this PostgreSQL server, too; the password better in PGPASSWORD.",
)
@_output
@connection
@click.pass_context
def orphans(ctx: click.Context, /, url: str | None, output: str, **where: Any) -> None:
    """Find leases and database users that the ledger does not explain, and what to do about each. Nothing is revoked.

    Exit code 0 if all is explained, 1 if not. Vault's leases are compared where its policy permits listing them.
    """
    seen = postgres.database_users(url) if url else []
    with operator(**where) as stub:
        found = stub.FindOrphans(pb.FindOrphansRequest(database_users=seen[:USERS_AT_ONCE]))
        for start in range(USERS_AT_ONCE, len(seen), USERS_AT_ONCE):
            more = stub.FindOrphans(pb.FindOrphansRequest(database_users=seen[start : start + USERS_AT_ONCE]))
            found.orphans.extend(each for each in more.orphans if each.username and not each.lease_id)
            found.database_users_compared += more.database_users_compared
    click.echo(show.as_json(found) if output == "json" else show.orphans(found, database=url is not None))
    ctx.exit(1 if found.orphans else 0)


@cli.group()
def ledger() -> None:
    """Check or export a ledger's file; show and accept the loss of a ledger at the running service."""


@ledger.command()
@click.argument("file", type=_FILE)
@_output
@click.pass_context
def check(ctx: click.Context, /, file: Path, output: str) -> None:
    """Check that the ledger FILE is intact, also beside a running service. Nothing is changed.

    Exit code 0 if it is, 1 if something is wrong with it, 2 if it is no ledger or cannot be read.
    """
    ctx.exit(offline.run("check", [f"--output={output}", "--", str(file)]))


@ledger.command()
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=click.Choice(["json"]), default="json", show_default=True, help="Output format.")
@click.option(
    "--with-ids", is_flag=True, help="Print whole lease ids and token accessors, too, by which leases can be revoked."
)
@click.pass_context
def export(ctx: click.Context, /, file: Path, output: str, with_ids: bool) -> None:
    """Print the ledger FILE, also beside a running service. It has no password and no token."""
    flags = [f"--output={output}", *(["--with-ids"] if with_ids else [])]
    ctx.exit(offline.run("export", [*flags, "--", str(file)]))


@ledger.command()
@_output
@connection
@click.pass_context
def status(ctx: click.Context, /, output: str, **where: Any) -> None:
    """Show the ledger of the service, and whether its loss pauses issuance. Exit code 1 if it does."""
    with operator(**where) as stub:
        found = stub.GetLedger(pb.GetLedgerRequest()).ledger
    click.echo(show.as_json(found) if output == "json" else show.ledger(found))
    ctx.exit(1 if found.issuance_paused or found.paused_access_requests else 0)


@ledger.command("accept-loss")
@click.option("--reason", required=True, help=f"Why, for the audit log; at most {REASON_CHARS} characters.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@connection
def accept_loss(reason: str, yes: bool, **where: Any) -> None:
    """Accept that what the service's ledger does not know is lost: issuance resumes, with new credentials.

    Database users that the lost ledger knew remain until their leases expire. `leasegate orphans --postgres URL` finds
    them.
    """
    if len(reason) > REASON_CHARS:
        raise CommandError(f"--reason has at most {REASON_CHARS} characters")
    with operator(**where) as stub:
        found = stub.GetLedger(pb.GetLedgerRequest()).ledger
        click.echo(show.ledger(found))
        if not (found.issuance_paused or found.paused_access_requests):
            return
        if not yes:
            click.confirm(
                "Is everything that this ledger does not know lost for good, with no older copy to restore?", abort=True
            )
        stub.AcceptLedgerLoss(pb.AcceptLedgerLossRequest(ledger_id=found.id, reason=reason))
    click.echo("accepted: issuance resumes. Look for orphans: leasegate orphans --postgres URL")


def main() -> None:
    """Run as a program."""
    disable_core_dumps()
    cli(prog_name="leasegate")
