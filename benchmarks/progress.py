"""Lines that say how far a run is."""

from __future__ import annotations

import time

import click

_BEGAN = time.monotonic()


def say(text: str) -> None:
    """Print a line with the minutes and seconds since the program began."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGAN), 60)
    click.echo(f"{minutes:3d}:{seconds:02d}  {text}")
