"""The command ``python -m benchmarks.beside``: the same figures of this checkout and of another one, in turns.

Absolute times mean little on a shared machine. Two checkouts that take turns meet the same noise, so that their ratio
says what a change costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from benchmarks.progress import say

HERE = Path(__file__).parents[1]
RENAMED = {
    "delete_to_login_dropped_vs_raw_revoke_p50": "delete_to_user_dropped_vs_raw_revoke_p50",
    "delete_to_login_dropped_ms_p50": "delete_to_user_dropped_ms_p50",
    "delete_to_login_dropped_ms_p99": "delete_to_user_dropped_ms_p99",
}
"""Keys that an earlier checkout has under another name."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("other", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="KEY", help="Measure only these keys or groups. Repeatable.")
@click.option("--rounds", default=2, show_default=True, help="How many times each checkout is measured, in turns.")
@click.option("--full", is_flag=True, help="The full sizes; without it the --quick ones.")
@click.option(
    "--fast-rbac/--default-rbac",
    default=True,
    show_default=True,
    help="Both with deploy/rbac/fast-rbac.yaml, whose verbs earlier checkouts always had, or this one without.",
)
def main(other: Path, only: Sequence[str], rounds: int, full: bool, fast_rbac: bool) -> None:
    """Measure this checkout beside OTHER, a checkout of the commit before, and print the ratio of each figure."""
    found: dict[Path, list[Mapping[str, float]]] = {other: [], HERE: []}
    for number in range(rounds):
        for tree, figures in found.items():
            say(f"round {number + 1} of {rounds}: {tree.name}")
            options = ["--fast-rbac"] if fast_rbac and _has_fast_rbac(tree) else []
            figures.append(_measured(tree, only, options, full=full))
    click.echo("\n".join(_table(found[other], found[HERE])))


def _has_fast_rbac(tree: Path) -> bool:
    """Whether a checkout's RBAC has the verbs as an option; before, it always had them."""
    return (tree / "deploy" / "rbac" / "fast-rbac.yaml").exists()


def _measured(tree: Path, only: Sequence[str], options: Sequence[str], *, full: bool) -> Mapping[str, float]:
    """Run the benchmarks of a checkout in its own environment; answers its figures by today's keys."""
    python = tree / ".venv" / "bin" / "python"
    if not python.exists():
        raise click.ClickException(f"{tree} has no environment of its own: run `make stack` in it first")
    results = tree / "benchmarks" / "results" / ("latest.json" if full else "quick.json")
    before = results.read_text() if results.exists() else None
    results.unlink(missing_ok=True)
    options = [*options, *(word for key in only for word in ("--only", key)), *([] if full else ["--quick"])]
    path = f"{tree}{os.pathsep}{tree / 'protos' / 'gen'}"
    try:
        command = [str(python), "-m", "benchmarks", *options]
        subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": path}, check=True, stdout=subprocess.DEVNULL)
        figures: dict[str, float] = json.loads(results.read_text())
    finally:
        if before is not None and full:
            results.write_text(before)  # the committed figures are of a run of their own
    return {RENAMED.get(key, key): value for key, value in figures.items()}


def _table(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> Iterator[str]:
    yield f"{'key':52} {'before':>10} {'after':>10} {'after/before':>13}"
    for key in after[0]:
        if all(key in each for each in before):
            then, now = (statistics.median(each[key] for each in figures) for figures in (before, after))
            yield f"{key:52} {then:10.2f} {now:10.2f} {now / then if then else float('nan'):13.2f}"


if __name__ == "__main__":
    main()
