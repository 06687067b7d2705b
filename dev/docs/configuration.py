"""Options and environment variables of the four processes."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dev.docs.markdown import page, table
from services.access.__main__ import main as access
from services.access.domain.failpoints import VARIABLE as ACCESS_FAILPOINT
from services.engine.__main__ import main as engine
from services.roles.__main__ import main as roles
from watcher.__main__ import main as watcher
from watcher.reconcilers.failpoints import VARIABLE as WATCHER_FAILPOINT

PROCESSES: tuple[tuple[str, click.Command], ...] = (
    ("engine", engine),
    ("roles", roles),
    ("access", access),
    ("watcher", watcher),
)
INTRO = """Each process reads its environment first; an option overrides its variable. A wrong value ends the start
with one line on stderr and exit code 2. Secrets are given by file path only. An option that is repeated takes
several values in its variable, separated by blanks."""

OTHER = (
    ("watcher", "`KUBECONFIG`", "File with the Kubernetes cluster, where `--kubeconfig` is not given."),
    ("access", f"`{ACCESS_FAILPOINT}`", "For tests: the process ends at this failpoint, see [safety](../safety.md)."),
    ("watcher", f"`{WATCHER_FAILPOINT}`", "For tests: the process ends at this failpoint, see [safety](../safety.md)."),
)


def render() -> str:
    """One table a process."""
    parts = [INTRO]
    for name, command in PROCESSES:
        prefix = str(command.context_settings["auto_envvar_prefix"])
        parts += [f"## leasegate-{name}", command.help or "", table(_COLUMNS, _options(command, prefix))]
    parts += ["## Other variables", table(("process", "variable", "meaning"), OTHER)]
    return page("Configuration", source="the processes' options", parts=parts)


_COLUMNS = ("option", "variable", "value", "default", "description")


def _options(command: click.Command, prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        variable = option.envvar or f"{prefix}_{str(option.name).upper()}"
        text = (option.help or "") + " Repeatable." * option.multiple
        yield f"`{option.opts[0]}`", f"`{variable}`", _value(option), _default(option), text


def _value(option: click.Option) -> str:
    if option.is_flag:
        return "flag"
    kind = option.type
    if isinstance(kind, click.Choice):
        return ", ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange | click.FloatRange):
        name = "integer" if isinstance(kind, click.IntRange) else "number"
        low, high = kind.min, kind.max
        if low is None or high is None:
            return name if low is None else f"{name} from {low}"
        return f"{name} from {low} to {high}"
    if isinstance(kind, click.Path):
        return "file"
    return f"`{option.metavar}`" if option.metavar else str(kind.name)


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    default = option.default
    if option.is_flag or not isinstance(default, str | int | float) or default == "":
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
