"""Excludes what lives as long as the process from Python's garbage collection (docs/adr/0042-gc-freeze.md)."""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Exclude all objects that exist now from later collections; call it once, when the process is ready to work.

    Source: https://docs.python.org/3/library/gc.html#gc.freeze.
    """
    gc.collect()
    gc.freeze()
