"""``python -m dev.docs``: write the generated pages; with ``--check`` only compare, and name what is not current."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from dev.docs import commands, configuration, crds, errors, events, metrics, policies, rpcs, states

ROOT = Path(__file__).parents[2]
REFERENCE = "docs/reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": commands.render,
    "configuration.md": configuration.render,
    "crds.md": lambda: crds.render(ROOT),
    "errors.md": lambda: errors.render(ROOT),
    "events.md": lambda: events.render(ROOT),
    "grpc.md": lambda: rpcs.render(ROOT),
    "metrics.md": metrics.render,
}
RELEASED = ROOT / "watcher" / "delivery" / "released_policies.json"
SAFETY = ROOT / "docs" / "safety.md"


def rendered() -> dict[Path, str]:
    """Every generated file with what it should hold."""
    pages = {ROOT / REFERENCE / name: render() for name, render in PAGES.items()}
    pages[RELEASED] = policies.render(ROOT)
    return pages | {SAFETY: states.replace(SAFETY.read_text(encoding="utf-8"))}


@click.command(help="Generates docs/reference, the diagram in docs/safety.md and the digests of deploy/policies.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a page is not current.")
def main(check: bool) -> None:
    """Write or compare."""
    outdated = []
    for file, text in rendered().items():
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            outdated.append(str(file.relative_to(ROOT)))
            if not check:
                file.write_text(text, encoding="utf-8")
    if not outdated:
        click.echo("docs: the generated pages are current")
    else:
        click.echo(f"docs: {'not current, run `make docs`' if check else 'written'}: {', '.join(outdated)}")
        sys.exit(int(check))


if __name__ == "__main__":
    main()
