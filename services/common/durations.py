"""Durations as people and Vault write them (``1h``, ``1h30m``, ``3600``), and as Go prints them (``1h0m0s``)."""

from __future__ import annotations

import re

_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")


def parse_seconds(text: str | int) -> float:
    """Read a span.

    Args:
        text: A number of seconds, or numbers with the units d, h, m, s, ms, as Vault takes them
            (https://developer.hashicorp.com/vault/docs/concepts/duration-format).

    Returns:
        Seconds, never negative.

    Raises:
        ValueError: The text is no span.
    """
    text = str(text).strip()
    if re.fullmatch(r"\d+", text):
        return float(text)
    if not text or not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        raise ValueError(f"{text[:40]!r} is no duration: write it like 1h, 90m, 1h30m or 3600 (seconds)")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def go_duration(seconds: float) -> str:
    """Print a span as Go's ``time.Duration`` does, whole seconds: ``1h0m0s``, ``5m0s``, ``30s``."""
    left = int(seconds)
    hours, left = divmod(left, 3600)
    minutes, left = divmod(left, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
