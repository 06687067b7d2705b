"""Keeps Python's garbage collector off what lives as long as the process.

A full round looks at every object there is and stops all threads for that: over the 116,000 that the imports alone make it takes 30 to
90 ms, longer than a credential, and shows as the slowest calls in a hundred.
"""

from __future__ import annotations

import gc


def freeze_startup_objects() -> None:
    """Leave all that exists now out of later rounds; call it once, when the process is ready to work.

    Source: https://docs.python.org/3/library/gc.html#gc.freeze.
    """
    gc.collect()
    gc.freeze()
