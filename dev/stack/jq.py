"""The part of jq that the guide uses, for machines without jq: path filters, and ``-r``.

A path is such as ``.status``, ``.items[0].name``, ``.items[]`` or ``."a.b"``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(
    r'\.?\[(?P<index>-?\d+)\]|\.?\[\]|\.?\["(?P<quoted>[^"]*)"\]|\."(?P<named>[^"]*)"|\.(?P<name>[A-Za-z_]\w*)'
)


class FilterError(ValueError):
    """The filter is no path, or does not fit the input."""


def select(value: Any, path: str) -> Iterator[Any]:
    """What a path filter finds.

    Raises:
        FilterError: The path cannot be read, or does not fit the value.
    """
    if path in ("", "."):
        yield value
        return
    step = _STEP.match(path)
    if step is None:
        raise FilterError(f"this jq has path filters only, and {path!r} is none; install jq for more")
    for found in _take(value, step):
        yield from select(found, path[step.end() :])


def _take(value: Any, step: re.Match[str]) -> Iterator[Any]:
    keys = [key for key in (step["name"], step["named"], step["quoted"]) if key is not None]
    try:
        if keys:
            yield None if value is None else value.get(keys[0])
        elif step["index"] is not None:
            index = int(step["index"])
            yield value[index] if value is not None and -len(value) <= index < len(value) else None
        else:
            yield from value.values() if isinstance(value, dict) else iter(value)
    except (AttributeError, KeyError, TypeError) as err:
        raise FilterError(f"{step[0]} does not fit a {type(value).__name__}") from err


def main(arguments: list[str]) -> int:
    """Filter standard input; returns the exit code."""
    raw = any(argument in ("-r", "--raw-output") for argument in arguments)
    paths = [argument for argument in arguments if not argument.startswith("-")]
    try:
        for found in select(json.load(sys.stdin), paths[0] if paths else "."):
            print(found if raw and isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False))
    except ValueError as err:  # a filter or input that cannot be read
        print(f"jq: error: {err}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
