"""Looks at a ledger file: ``python -m services.access.ledger.inspect``, run by ``leasegate ledger``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from services.access.ledger.inspect import checks
from services.access.ledger.inspect.export import export
from services.access.ledger.inspect.offline import NoLedgerError
from services.common.core_dumps import disable_core_dumps
from services.common.texts import escaped, escaped_json

_FILE = click.Path(dir_okay=False, path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form."
)


class _NoLedgerError(click.ClickException):
    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Look at a ledger file of the access service, whether the service runs or not. Nothing is changed."""


@main.command()
@click.argument("file", type=_FILE)
@_OUTPUT
def check(file: Path, output: str) -> None:
    """Say whether a ledger is whole. Exit code 0 if it is, 1 if something is wrong, 2 if it is no ledger."""
    try:
        found = checks.check(file)
    except NoLedgerError as err:
        raise _NoLedgerError(escaped(f"{err}.")) from err
    click.echo(escaped_json(json.dumps(asdict(found), indent=2)) if output == "json" else _table(file, found))
    sys.exit(1 if found.problems else 0)


@main.command("export")
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=click.Choice(["json"]), default="json", show_default=True, help="Form.")
@click.option(
    "--with-ids", is_flag=True, help="Write whole lease ids and token accessors, too, with which leases can be ended."
)
def export_command(file: Path, output: str, with_ids: bool) -> None:
    """Print a ledger as JSON. It holds no password and no token."""
    try:
        found = export(file, with_ids=with_ids)
    except NoLedgerError as err:
        raise _NoLedgerError(escaped(f"{err}.")) from err
    click.echo(escaped_json(json.dumps(found, indent=1)))


def _table(file: Path, found: checks.LedgerCheck) -> str:
    lines = [f"ledger    {found.ledger_id or '-'}", f"file      {file}", f"version   {found.version or '-'}"]
    if found.owner is not None:
        lines.append(f"in use    by process {found.owner or '-'}")
    for title, counts in (("requests", found.access_requests), ("attempts", found.attempts)):
        lines.append(f"{title:<10}" + (", ".join(f"{number} {name}" for name, number in counts.items()) or "none"))
    lines += [f"note      {remark}" for remark in found.remarks]
    lines += [f"WRONG     {problem}" for problem in found.problems]
    lines.append(
        "It is whole." if not found.problems else "Something is wrong: keep the file, and restore a copy that is whole."
    )
    return "\n".join(map(escaped, lines))


if __name__ == "__main__":
    disable_core_dumps()
    main(prog_name="python -m services.access.ledger.inspect")
