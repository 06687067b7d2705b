"""Help of the three command lines, as ``--help`` prints it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cli.kubectl_vault.commands import cli as kubectl_vault
from cli.leasegate.commands import cli as leasegate
from deploy.vault.__main__ import main as vault_policies
from dev.docs.markdown import code, page

WIDTH = 100
PROGRAMS: tuple[tuple[str, click.Command], ...] = (
    ("kubectl vault", kubectl_vault),
    ("leasegate", leasegate),
    ("leasegate-vault-policies", vault_policies),
)


def render() -> str:
    """One section a program, one below it a command."""
    parts = [part for name, command in PROGRAMS for part in _command(command, name, None, level=2)]
    return page("Command lines", source="the programs' own `--help`", parts=parts)


def _command(command: click.Command, name: str, parent: click.Context | None, *, level: int) -> Iterator[str]:
    path = name if parent is None else f"{parent.command_path} {name}"
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    with click.Context(command, info_name=name, parent=parent, **settings) as context:
        yield f"{'#' * level} {path}"
        yield code(command.get_help(context), "text")
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                if found and not found.hidden:
                    yield from _command(found, each, context, level=level + 1)
